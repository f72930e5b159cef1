// What only the tests use: the data in memory, and how often each handler ran.
'use strict';

const { randomUUID } = require('node:crypto');
const { ObjectId } = require('bson');
const jwt = require('jsonwebtoken');
const { AccessToken: AccessToken006 } = require('agora-token/src/AccessToken');
const { AccessToken2 } = require('agora-token/src/AccessToken2');

const settings = require('./settings');

/** Handler name → calls. */
const hits = {};
/** astrologerId (24 hex) → account document. */
const accounts = new Map();
/** Stream documents as mongoose would return them: ids are ObjectIds. */
const streams = [];

/** Counts a call and marks the answer, so that a client can tell which handler its request reached. */
function reached(name) {
  return (request, response, next) => {
    hits[name] = (hits[name] ?? 0) + 1;
    response.set('x-reached', name);
    next();
  };
}

function startStream(astrologerId, fields = {}) {
  const stream = {
    _id: new ObjectId(),
    astrologerId: new ObjectId(astrologerId),
    agoraChannelName: `live_${astrologerId}`,
    isLive: true,
    isBanned: false,
    bannedViewers: [],
    startedAt: new Date(),
    lastHeartbeat: new Date(),
    ...fields,
  };
  streams.push(stream);
  return stream;
}

function endStreams(channel) {
  for (const stream of streams) {
    if (stream.agoraChannelName === channel) stream.isLive = false;
  }
}

/** What Agora's package reads in a 006 token, with lifetimes as seconds from now. It doesn't say its channel and user. */
function inspect006({ token, channelName, uid = 0 }) {
  const parsed = new AccessToken006(settings.appId, settings.certificate, channelName, uid);
  if (!parsed.fromString(token)) return undefined;
  const now = Math.floor(Date.now() / 1000);
  const left = Object.entries(parsed.messages).map(([privilege, ends]) => [privilege, ends - now]);
  const verified = parsed.build() === token;
  return { appId: parsed.appID, expire: Math.max(...left.map(([, ends]) => ends)), privileges: Object.fromEntries(left), verified };
}

function control(express) {
  const router = express.Router();
  router.use(express.json());
  router.get('/hits', (request, response) => response.json(hits));
  // {astrologerId, sessionId, isSuspended?, suspensionReason?}
  router.post('/accounts', (request, response) => {
    const { astrologerId, sessionId, ...rest } = request.body;
    accounts.set(astrologerId, { _id: new ObjectId(astrologerId), activeSession: { sessionId }, ...rest });
    response.status(201).json({ success: true });
  });
  // {astrologerId, claims?, expiresIn?}: logs in as the app would, with a fresh session; answers {token}.
  router.post('/login', (request, response) => {
    const { astrologerId, claims = {}, expiresIn = '7d' } = request.body;
    const sessionId = randomUUID();
    accounts.set(astrologerId, { _id: new ObjectId(astrologerId), activeSession: { sessionId } });
    const token = jwt.sign({ astrologerId, sessionId, ...claims }, settings.jwtSecret, { expiresIn });
    response.status(201).json({ token });
  });
  // {token}, for 006 {channelName, uid?} too: what Agora's own package reads in it.
  router.post('/inspect', (request, response) => {
    if (request.body.token.startsWith('006')) return response.json(inspect006(request.body));
    const parsed = new AccessToken2('', '', 0, 0);
    if (!parsed.from_string(request.body.token)) return response.status(400).json({ success: false });
    const services = parsed.services.map((service) => ({
      type: service.service_type(),
      channelName: service.__channel_name?.toString(),
      uid: service.__uid?.toString(),
      privileges: service.__privileges,
    }));
    const verified = parsed.verifySignature(settings.certificate);
    response.json({ appId: parsed.appId.toString(), issuedAt: parsed.issueTs, expire: parsed.expire, services, verified });
  });
  // {astrologerId, agoraChannelName?, isBanned?, bannedViewers?}
  router.post('/streams', (request, response) => {
    const { astrologerId, ...fields } = request.body;
    const stream = startStream(astrologerId, fields);
    response.status(201).json({ id: stream._id, channelName: stream.agoraChannelName });
  });
  router.post('/streams/end', (request, response) => {
    endStreams(request.body.channelName);
    response.json({ success: true });
  });
  router.post('/reset', (request, response) => {
    for (const name of Object.keys(hits)) delete hits[name];
    accounts.clear();
    streams.length = 0;
    response.json({ success: true });
  });
  return router;
}

module.exports = { hits, accounts, streams, reached, startStream, endStreams, control };
