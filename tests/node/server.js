// One of several backends: says which one it is.
//
//   node server.js NAME WHERE     WHERE is a port (0: any) of 127.0.0.1 or the path of a unix socket
//
// Prints its port or path once it listens. With TLS_CERTIFICATE and TLS_KEY (PEM files) it speaks TLS; KEEP_ALIVE is
// for how many milliseconds it keeps idle connections. Its answers say how many were opened so far. Ends with its
// standard input; on SIGTERM it stops as a careful app does: no new connection, every request answered.
'use strict';

const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const net = require('node:net');

const [name, where] = process.argv.slice(2);
let healthy = 200;
let stopping = false;
let held = [];
let opened = 0;

function handle(request, response) {
  if (stopping) response.setHeader('connection', 'close');
  const { pathname, searchParams } = new URL(request.url, 'http://backend');
  let length = 0;
  request.on('data', (chunk) => { length += chunk.length; });
  request.on('end', () => {
    const answer = JSON.stringify({
      name,
      method: request.method,
      url: request.url,
      host: request.headers.host,
      agent: request.headers['user-agent'],
      length,
      held: held.length,
      opened,
    });
    response.setHeader('content-type', 'application/json');
    response.setHeader('content-length', answer.length);
    switch (pathname) {
      // Answers when somebody asks for /release.
      case '/hold':
        held.push(response);
        response.on('close', () => { held = held.filter((one) => one !== response); });
        response.answer = () => response.end(answer);
        return;
      case '/release':
        for (const one of held) one.answer();
        break;
      // ?status=N sets what it answers.
      case '/health':
        if (searchParams.has('status')) healthy = Number(searchParams.get('status'));
        else response.statusCode = healthy;
        break;
      default:
    }
    response.end(answer);
  });
}

const { TLS_CERTIFICATE, TLS_KEY, KEEP_ALIVE } = process.env;
const server = TLS_CERTIFICATE
  ? https.createServer({ cert: fs.readFileSync(TLS_CERTIFICATE), key: fs.readFileSync(TLS_KEY) }, handle)
  : http.createServer(handle);

server.on('connection', () => { opened += 1; });
if (KEEP_ALIVE) server.keepAliveTimeout = Number(KEEP_ALIVE);
if (!/^\d+$/.test(where)) fs.rmSync(where, { force: true });
const address = /^\d+$/.test(where) ? { host: '127.0.0.1', port: Number(where) } : { path: where };
server.listen(address, () => console.log(server.address().port ?? where));

// Every upgrade is taken, and then nothing is said.
server.on('upgrade', (request, socket) => {
  socket.on('error', () => {});
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
});

process.on('SIGTERM', () => {
  stopping = true;
  // Not http's own close: it would end idle connections while new ones still get in, and then be reset.
  net.Server.prototype.close.call(server, () => process.exit(0));
  setImmediate(() => server.closeIdleConnections());
});
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
