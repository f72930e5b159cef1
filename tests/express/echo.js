// A WebSocket echo server and nothing else, on any path: what conformance suites talk to.
//
//   node echo.js       prints one line {"port":N} once it listens, stops when stdin closes
'use strict';

const { WebSocketServer } = require('ws');

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  maxPayload: 64 * 1024 * 1024,
  perMessageDeflate: { threshold: 0 },
});
server.on('connection', (socket) => {
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  // The suites break the protocol on purpose: the close code is the answer.
  socket.on('error', () => {});
});
server.on('listening', () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on('end', () => process.exit()).resume();
