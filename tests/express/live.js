// Live streams and their Agora tokens, faults included:
// absolute times where `agora-token` wants relative ones, and a string compared with an ObjectId.
'use strict';

const jwt = require('jsonwebtoken');
const { RtcTokenBuilder, RtcRole } = require('agora-token');
const { rateLimit } = require('express-rate-limit');

const { accounts, streams, reached, startStream, endStreams } = require('./control');
const { appId, certificate, jwtSecret, requestsPerMinute } = require('./settings');

/** "One hour" that Agora reads as 55 years: `now + 3600` goes where 3600 belongs. */
function mint(channelName, uid, role) {
  const expiresAt = Math.floor(Date.now() / 1000) + 3600;
  const rtcRole = role === 'publisher' ? RtcRole.PUBLISHER : RtcRole.SUBSCRIBER;
  const token = RtcTokenBuilder.buildTokenWithUid(appId, certificate, channelName, uid, rtcRole, expiresAt, expiresAt);
  return { token, expiresAt };
}

function authenticate(request, response, next) {
  const header = request.headers.authorization;
  const token = header?.startsWith('Bearer ') ? header.slice(7) : header;
  if (!token) return response.status(401).json({ success: false, message: 'No token provided' });
  let claims;
  try {
    claims = jwt.verify(token, jwtSecret, { algorithms: ['HS256'] });
  } catch (error) {
    const message = error.name === 'TokenExpiredError' ? 'Token expired' : 'Invalid token';
    return response.status(401).json({ success: false, message });
  }
  const account = accounts.get(claims.astrologerId);
  if (!account) return response.status(401).json({ success: false, message: 'Account not found' });
  if (account.isSuspended) {
    return response.status(403).json({
      success: false,
      message: 'Your account has been suspended',
      reason: account.suspensionReason,
      suspendedAt: account.suspendedAt,
    });
  }
  if (account.activeSession?.sessionId !== claims.sessionId) {
    return response.status(401).json({ success: false, message: 'Logged in on another device' });
  }
  request.astrologerId = claims.astrologerId;
  next();
}

function findLive(channelName) {
  return streams.find((stream) => stream.agoraChannelName === channelName && stream.isLive);
}

function agoraToken(request, response) {
  const { channelName, uid = 0, role = 'publisher' } = request.body ?? {};
  if (!channelName) return response.status(400).json({ success: false, message: 'channelName is required' });
  const { token, expiresAt } = mint(channelName, uid, role);
  response.json({ success: true, data: { token, channelName, uid, appId, expiresAt: new Date(expiresAt * 1000) } });
}

function refresh(request, response) {
  const { channelName, uid = 0, role = 'publisher' } = request.body ?? {};
  const stream = findLive(channelName);
  if (!stream) return response.status(404).json({ success: false, message: 'Stream no longer active' });
  // A string is never === an ObjectId: every broadcaster lands here.
  if (role === 'publisher' && stream.astrologerId !== request.astrologerId) {
    return response.status(403).json({ success: false, message: 'Not authorized to broadcast this stream' });
  }
  const { token, expiresAt } = mint(channelName, uid, role);
  response.json({ success: true, data: { token, channelName, uid, appId, expiresAt: new Date(expiresAt * 1000) } });
}

// Three a minute and address, unless the limits are off altogether.
const refreshLimit = requestsPerMinute === 0
  ? (request, response, next) => next()
  : rateLimit({ windowMs: 60_000, limit: 3, standardHeaders: true, legacyHeaders: false });

const refreshToken = [reached('refresh-token'), refreshLimit, authenticate, refresh];

/** A stream as it is shown, with a token inside. */
function shown(stream, role) {
  return { ...stream, agoraToken: mint(stream.agoraChannelName, 0, role).token, agoraAppId: appId };
}

function liveRouters(express) {
  const owned = {
    '/token': [reached('token'), authenticate, agoraToken],
    '/agora-token': [reached('agora-token'), authenticate, agoraToken],
    '/refresh-token': refreshToken,
  };
  const live = express.Router();
  for (const [path, handlers] of Object.entries(owned)) live.post(path, handlers);

  live.post('/start', reached('start'), authenticate, (request, response) => {
    endStreams(`live_${request.astrologerId}`);
    const stream = startStream(request.astrologerId);
    response.status(201).json({ success: true, data: shown(stream, 'publisher') });
  });
  live.post('/end', reached('end'), authenticate, (request, response) => {
    endStreams(`live_${request.astrologerId}`);
    response.json({ success: true });
  });
  // ?role=publisher: as an older version of the app gave its tokens to everybody.
  live.get('/active', reached('active'), (request, response) => {
    const { role = 'subscriber' } = request.query;
    const data = streams.filter((stream) => stream.isLive).map((stream) => shown(stream, role));
    response.json({ success: true, data });
  });
  live.get('/:id', reached('stream'), (request, response) => {
    const stream = streams.find((candidate) => candidate._id.toString() === request.params.id);
    if (!stream) return response.status(404).json({ success: false, message: 'Stream not found' });
    response.json({ success: true, data: shown(stream, 'subscriber') });
  });
  live.post('/:id/join', reached('join'), (request, response) => {
    const stream = streams.find((candidate) => candidate._id.toString() === request.params.id);
    if (!stream?.isLive) return response.status(404).json({ success: false, message: 'Stream no longer active' });
    response.json({ success: true, data: shown(stream, 'subscriber') });
  });
  return { live, owned };
}

function adminRouter(express) {
  const admin = express.Router();
  admin.get('/live-streams/:id/token', reached('admin-token'), (request, response) => {
    const stream = streams.find((candidate) => candidate._id.toString() === request.params.id);
    if (!stream) return response.status(404).json({ success: false, message: 'Stream not found' });
    response.json({ success: true, data: { token: mint(stream.agoraChannelName, 0, 'subscriber').token } });
  });
  return admin;
}

module.exports = { authenticate, findLive, liveRouters, adminRouter, refreshToken };
