// A Node backend that answers every request with a kilobyte of JSON; LISTEN is a port, or the path of a unix socket.
'use strict';

const http = require('node:http');

const body = Buffer.from(JSON.stringify({ success: true, data: 'x'.repeat(1024 - 26) }));
const fields = { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': body.length };
const where = process.env.LISTEN;
const server = http.createServer((request, response) => response.writeHead(200, fields).end(body));
server.keepAliveTimeout = 75_000;
server.listen(where.startsWith('/') ? { path: where } : { port: Number(where), host: '127.0.0.1' });
