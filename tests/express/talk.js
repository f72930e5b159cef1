// A socket.io client as the apps have it.
//
//   node talk.js URL polling|websocket|upgrade    prints the echoed message, then the transport it came over
'use strict';

const { io } = require('socket.io-client');

const [url, way] = process.argv.slice(2);
const transports = { polling: ['polling'], websocket: ['websocket'], upgrade: ['polling', 'websocket'] }[way];
const socket = io(url, { transports, reconnection: false, forceNew: true });

function echo() {
  const message = { text: 'é'.repeat(50_000), bytes: Buffer.from([0, 255]) };
  socket.emit('echo', message, (back) => {
    const same = back.text === message.text && Buffer.from(back.bytes).equals(message.bytes);
    console.log(same ? 'echoed' : 'changed', socket.io.engine.transport.name);
    socket.disconnect();
  });
}

socket.on('connect', () => {
  // By the time the namespace is open, the upgrade may be over.
  const waits = way === 'upgrade' && socket.io.engine.transport.name !== 'websocket';
  if (waits) socket.io.engine.once('upgrade', echo);
  else echo();
});
socket.on('connect_error', (error) => {
  console.log('refused', error.message);
  process.exit(1);
});
