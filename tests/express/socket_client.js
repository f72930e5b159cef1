// A socket.io client, as the tests run it:
//
//   node socket_client.js URL TRANSPORT...
//
// Connects by these transports (with two: begins with the first and waits for the upgrade to the second), sends text and
// bytes to be echoed, has a message broadcast to itself, prints what came of it as one line of JSON, leaves.
'use strict';

const { io } = require('socket.io-client');

const DEADLINE = 20_000;
const [url, ...transports] = process.argv.slice(2);
const socket = io(url, { transports, reconnection: false, timeout: DEADLINE });
const { engine } = socket.io;
// By the time the namespace is open, the upgrade may be over.
const first = engine.transport.name;

function fail(error) {
  console.error(error);
  process.exit(1);
}

function upgraded() {
  const wanted = transports.at(-1);
  if (engine.transport.name === wanted) return undefined;
  return new Promise((resolve) => { engine.once('upgrade', resolve); });
}

socket.on('connect_error', fail);
socket.once('connect', async () => {
  try {
    await upgraded();
    const bytes = Buffer.alloc(100_000, 'é');
    const sent = socket.timeout(DEADLINE);
    const text = await sent.emitWithAck('echo', 'grüße');
    const echoed = await sent.emitWithAck('echo', bytes);
    const broadcast = await new Promise((resolve) => {
      socket.once('broadcast', resolve);
      socket.emit('broadcast', 'to all');
    });
    const last = engine.transport.name;
    console.log(JSON.stringify({ first, last, text, bytes: bytes.equals(Buffer.from(echoed)), broadcast }));
    socket.close();
  } catch (error) {
    fail(error);
  }
});
setTimeout(() => fail(new Error('no connection')), 2 * DEADLINE).unref();
