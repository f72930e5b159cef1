// The live-streaming backend that renewd's tests put it in front of: its faults are the point, don't mend them.
//
//   node app.js        prints one line {"port":N} once it listens, stops when stdin closes or on SIGTERM
//
// Environment: EXPRESS 4|5, HOST, PORT, and those of settings.js: JWT_SECRET, APP_ID, APP_CERTIFICATE,
//   CORS, RATE_LIMIT (requests per minute and address, 0 is off), MOUNT router|nested|leaf|prefix (how the live router is attached),
//   SOCKET_IO 2|3|4 (the version of socket.io).
'use strict';

const http = require('node:http');
const express = process.env.EXPRESS === '5' ? require('express5') : require('express');
const cors = require('cors');
const helmet = require('helmet');
const { rateLimit } = require('express-rate-limit');

const calls = require('./calls');
const { hits, control } = require('./control');
const { internal, internalControl } = require('./internal');
const { liveRouters, adminRouter, refreshToken } = require('./live');
const settings = require('./settings');
const socket = require('./socket');
const wire = require('./wire');

const app = express();
app.set('trust proxy', 1);

// What the tests look at comes before every body parser and limiter.
app.use('/__control', control(express));
app.use('/__control', internalControl(express));
app.use('/wire', wire(express));

app.use(helmet());
app.use(cors(settings.cors));
if (settings.requestsPerMinute > 0) {
  const limit = settings.requestsPerMinute;
  app.use(rateLimit({ windowMs: 60_000, limit, standardHeaders: true, legacyHeaders: false }));
}
app.use(express.json({ limit: '10mb' }));
app.use(express.urlencoded({ extended: true }));

app.get('/health', (request, response) => response.json({ status: 'ok' }));

const routers = liveRouters(express);
switch (settings.mount) {
  case 'router':
    app.use('/api/live', routers.live);
    break;
  case 'nested': {
    const api = express.Router();
    api.use('/live', routers.live);
    const root = express.Router();
    root.use('/api', api);
    app.use('', root);
    break;
  }
  case 'leaf':
    for (const [path, handlers] of Object.entries(routers.owned)) {
      const leaf = express.Router();
      leaf.post('/', handlers);
      app.use(`/api/live${path}`, leaf);
    }
    app.use('/api/live', routers.live);
    break;
  case 'prefix':
    // With all that is below, whatever the method.
    for (const [path, handlers] of Object.entries(routers.owned)) app.use(`/api/live${path}`, handlers);
    app.use('/api/live', routers.live);
    app.use('/refresh-token', refreshToken);
    break;
  default:
    throw new Error(`MOUNT=${settings.mount}`);
}
app.use('/api/admin', adminRouter(express));
app.use('/internal', internal(express));
app.post('/refresh-token', refreshToken);

app.use((request, response) => response.status(404).json({ success: false, message: 'Route not found' }));
app.use((error, request, response, next) => {
  if (response.headersSent) return next(error);
  response.status(error.status ?? 500).json({ success: false, message: error.message });
});

// Node 20's parser refuses bytes above 0x7F in a target, looser ones pass them on as Latin-1: with this header any Node
// routes such a target.
const server = http.createServer((request, response) => {
  const target = request.headers['x-target-base64'];
  if (target) request.url = Buffer.from(target, 'base64').toString('latin1');
  app(request, response);
});

socket.attach(server);
const socketIo = require({ 2: 'socket.io-2', 3: 'socket.io-3' }[process.env.SOCKET_IO] ?? 'socket.io');
// Version 2 is its own server's constructor. Clients of version 2 speak the protocol of EIO3.
const SocketServer = socketIo.Server ?? socketIo;
const io = new SocketServer(server, { cors: { origin: true }, allowEIO3: true });
calls.attach(io);
io.on('connection', (socket) => {
  hits.socket = (hits.socket ?? 0) + 1;
  socket.on('echo', (message, acknowledge) => acknowledge(message));
  socket.on('broadcast', (message) => io.emit('broadcast', message));
  socket.on('disconnect', () => { hits.socketClosed = (hits.socketClosed ?? 0) + 1; });
});

server.listen(Number(process.env.PORT ?? 0), process.env.HOST ?? '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});

// A test that dies must not leave its backend behind.
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
process.on('SIGTERM', () => process.exit(0));
