// One of several socket.io servers: says which one it is when asked `who`. Polling, WebSocket, and from one to the other.
//
//   node sticky.js NAME PORT     0: any
//
// Prints its port once it listens, and ends with its standard input.
'use strict';

const http = require('node:http');

const { Server } = require('socket.io');

const [name, port] = process.argv.slice(2);
const server = http.createServer();
// No ping comes between the answers that a test waits for.
const sockets = new Server(server, { pingInterval: 600_000 });
sockets.on('connection', (socket) => {
  socket.on('who', (answer) => answer(name));
});
server.listen(Number(port), '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
