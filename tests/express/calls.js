// The current app's calls over socket.io. Its faults are the point: whoever asks gets a token to publish with, for any
// channel and for a day.
'use strict';

const { RtcTokenBuilder, RtcRole } = require('agora-token');
const { RtcTokenBuilder: Builder006, Role: Role006 } = require('agora-token/src/RtcTokenBuilder');

const { appId, certificate } = require('./settings');

const DAY = 24 * 3600;

/** @param format '006' for the builder that older backends have. */
function mint({ channelName, uid = 0, role = 'publisher', format }) {
  if (format === '006') {
    const role006 = role === 'publisher' ? Role006.PUBLISHER : Role006.SUBSCRIBER;
    const ends = Math.floor(Date.now() / 1000) + DAY;
    return Builder006.buildTokenWithUid(appId, certificate, channelName, uid, role006, ends);
  }
  const role007 = role === 'publisher' ? RtcRole.PUBLISHER : RtcRole.SUBSCRIBER;
  return RtcTokenBuilder.buildTokenWithUid(appId, certificate, channelName, uid, role007, DAY, DAY);
}

/** Serves a socket of any version of socket.io; `namespace` is the one it is in. */
function serve(namespace, socket) {
  socket.on('join', (room, acknowledge) => {
    socket.join(room);
    acknowledge('joined');
  });
  socket.on('leave', (room, acknowledge) => {
    socket.leave(room);
    acknowledge('left');
  });
  // To the others in a room, whatever it is.
  socket.on('say', (room, ...what) => namespace.to(room).emit('said', ...what));
  socket.on('bytes', (message, acknowledge) => acknowledge(message));
  // {channelName, uid?, role?, format?, photo?}: the answer is the acknowledgement, or an event where none is wanted.
  socket.on('call:token', (wanted, acknowledge) => {
    const { channelName, photo } = wanted;
    const answer = { success: true, channelName, token: mint(wanted), appId };
    if (photo) answer.photo = photo;
    if (acknowledge) acknowledge(answer);
    else socket.emit('call:token', answer);
  });
  // {to, from, channelName}: rings.
  socket.on('call:incoming', ({ to, from, channelName }) => {
    const token = mint({ channelName, uid: to });
    namespace.to(`user:${to}`).emit('call:incoming', { from, channelName, token, appId });
  });
  // {to, from, channelName}: both sides learn of it, each with a token of its own.
  socket.on('call:accept', ({ to, from, channelName }) => {
    for (const uid of [to, from]) {
      const token = mint({ channelName, uid });
      namespace.to(`user:${uid}`).emit('call:accept', { channelName, uid, token, appId });
    }
  });
}

/** The namespaces in which calls are made. */
function attach(io) {
  for (const name of ['/', '/calls', '/chat']) {
    const namespace = io.of(name);
    namespace.on('connection', (socket) => serve(namespace, socket));
  }
}

module.exports = { attach };
