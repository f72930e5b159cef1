// The current app's way with its database: models, middleware, and the internal routes that renewd may ask over HTTP.
//
//   node mongoose_app.js        prints one line {"port":N} once it listens, stops when stdin closes
//
// Environment: MONGODB_URI, PORT, and JWT_SECRET as in settings.js.
'use strict';

const { randomUUID } = require('node:crypto');
const express = require('express');
const jwt = require('jsonwebtoken');

const { mongoose, Livestream, Astrologer } = require('./database');
const { jwtSecret } = require('./settings');

/** Route → calls. */
const hits = {};
const app = express();
app.use(express.json());
app.use((request, response, next) => {
  const name = request.path.split('/').slice(1, 3).join('/');
  hits[name] = (hits[name] ?? 0) + 1;
  next();
});

async function authenticate(request, response, next) {
  const header = request.headers.authorization ?? '';
  let claims;
  try {
    claims = jwt.verify(header.replace(/^Bearer /, ''), jwtSecret, { algorithms: ['HS256'] });
  } catch {
    return response.status(401).json({ success: false, message: 'Invalid token' });
  }
  const account = await Astrologer.findById(claims.astrologerId);
  if (!account) return response.status(401).json({ success: false, message: 'Account not found' });
  if (account.isSuspended) {
    const { suspensionReason: reason, suspendedAt } = account;
    return response.status(403).json({ success: false, message: 'Your account has been suspended', reason, suspendedAt });
  }
  if (account.activeSession?.sessionId !== claims.sessionId) {
    return response.status(401).json({ success: false, message: 'Logged in on another device' });
  }
  request.astrologerId = claims.astrologerId;
  next();
}

/** Express 4 leaves a rejected promise to nobody. */
const caught = (handler) => (request, response, next) => handler(request, response, next).catch(next);

app.get('/__control/hits', (request, response) => response.json(hits));
// {astrologerId, …fields}: writes the account, and signs it in with a fresh session; answers {token}.
app.post('/__control/login', caught(async (request, response) => {
  const { astrologerId, ...fields } = request.body;
  const sessionId = randomUUID();
  const account = { name: 'somebody', activeSession: { sessionId }, ...fields };
  await Astrologer.findByIdAndUpdate(astrologerId, account, { upsert: true, setDefaultsOnInsert: true });
  const token = jwt.sign({ astrologerId, sessionId }, jwtSecret, { expiresIn: '7d' });
  response.status(201).json({ token });
}));
// {astrologerId, …fields}
app.post('/__control/accounts', caught(async (request, response) => {
  const { astrologerId, ...fields } = request.body;
  await Astrologer.findByIdAndUpdate(astrologerId, fields, { upsert: true });
  response.json({ success: true });
}));
app.post('/__control/accounts/delete', caught(async (request, response) => {
  await Astrologer.deleteOne({ _id: request.body.astrologerId });
  response.json({ success: true });
}));
// {astrologerId, …fields}
app.post('/__control/streams', caught(async (request, response) => {
  const stream = await Livestream.create({ agoraChannelName: `live_${request.body.astrologerId}`, ...request.body });
  response.status(201).json({ id: stream._id });
}));
// {agoraChannelName, …fields}: of all documents of the channel.
app.post('/__control/streams/change', caught(async (request, response) => {
  const { agoraChannelName, ...fields } = request.body;
  await Livestream.updateMany({ agoraChannelName }, fields);
  response.json({ success: true });
}));

const live = express.Router();
live.use(caught(authenticate));
live.post('/start', caught(async (request, response) => {
  const { astrologerId } = request;
  const agoraChannelName = `live_${astrologerId}`;
  await Livestream.updateMany({ agoraChannelName }, { isLive: false });
  const stream = await Livestream.create({ astrologerId, agoraChannelName });
  response.status(201).json({ success: true, data: stream });
}));
live.post('/end', caught(async (request, response) => {
  await Livestream.updateMany({ agoraChannelName: `live_${request.astrologerId}` }, { isLive: false });
  response.json({ success: true });
}));
app.use('/api/live', live);

app.get('/internal/account', caught(authenticate), (request, response) => response.status(204).end());
app.get('/internal/streams/:channel', caught(async (request, response) => {
  const agoraChannelName = request.params.channel;
  const stream = await Livestream.findOne({ agoraChannelName, isLive: true }).sort({ _id: -1 });
  if (!stream) return response.status(404).json({ success: false });
  response.json({ success: true, data: stream });
}));

app.use((request, response) => response.status(404).json({ success: false, message: 'Route not found' }));

mongoose.connect(process.env.MONGODB_URI, { serverSelectionTimeoutMS: 20_000 }).then(() => {
  const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => {
    console.log(JSON.stringify({ port: server.address().port }));
  });
});

// A test that dies must not leave its backend behind.
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
