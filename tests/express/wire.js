// Routes that show what arrived on the wire and answer in every shape HTTP/1.1 has.
'use strict';

const { createHash } = require('node:crypto');
const path = require('node:path');

const { hits } = require('./control');

function count(name) {
  hits[name] = (hits[name] ?? 0) + 1;
}

function wire(express) {
  const router = express.Router();

  // The request exactly as seen, any method: {method, url, version, headers, trailers, length, sha256}.
  router.use('/seen', (request, response) => {
    count(request.originalUrl.includes('smuggled') ? 'smuggled' : 'seen');
    const hash = createHash('sha256');
    let length = 0;
    request.on('data', (chunk) => { hash.update(chunk); length += chunk.length; });
    request.on('end', () => response.json({
      method: request.method,
      url: request.originalUrl,
      version: request.httpVersion,
      headers: request.rawHeaders,
      trailers: request.rawTrailers,
      ip: request.ip,
      protocol: request.protocol,
      hostname: request.hostname,
      length,
      sha256: hash.digest('hex'),
    }));
  });

  // The body back, chunk by chunk, as it arrives.
  router.post('/echo', (request, response) => {
    response.type(request.get('content-type') ?? 'application/octet-stream');
    response.flushHeaders();
    request.pipe(response);
  });

  // Reads all of it, answers with its length and hash.
  router.post('/upload', (request, response) => {
    const hash = createHash('sha256');
    let length = 0;
    request.on('data', (chunk) => { hash.update(chunk); length += chunk.length; });
    request.on('end', () => response.json({ length, sha256: hash.digest('hex') }));
    request.on('aborted', () => count('uploadAborted'));
  });

  // Answers before the body has come.
  router.post('/early', (request, response) => response.status(413).json({ success: false, message: 'too early' }));

  // Takes nothing of the body until somebody asks for /released, then answers as /upload does.
  const held = [];
  router.post('/held', (request, response) => {
    count('held');
    const hash = createHash('sha256');
    let length = 0;
    held.push(() => {
      request.on('data', (chunk) => { hash.update(chunk); length += chunk.length; });
      request.on('end', () => response.json({ length, sha256: hash.digest('hex') }));
    });
  });
  // 102 and 103, then the answer when somebody asks for /released, or with ?at=once at once.
  router.get('/hints', (request, response) => {
    response.writeProcessing();
    response.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
    const finish = () => response.end('hinted');
    if (request.query.at === 'once') finish();
    else held.push(finish);
  });
  router.get('/released', (request, response) => {
    for (const release of held.splice(0)) release();
    response.end();
  });

  // ?bytes=N of zeros, in chunks, with back-pressure; ?length=1 announces the length.
  router.get('/zeros', (request, response) => {
    let left = Number(request.query.bytes ?? 0);
    if (request.query.length) response.set('content-length', String(left));
    response.type('application/octet-stream');
    const chunk = Buffer.alloc(64 * 1024);
    let stalled;
    const write = () => {
      clearTimeout(stalled);
      while (left > 0) {
        const part = left < chunk.length ? chunk.subarray(0, left) : chunk;
        left -= part.length;
        hits.downloadLeft = left;
        if (!response.write(part)) {
          stalled = setTimeout(() => count('downloadStalled'), 300);
          return;
        }
      }
      response.end();
    };
    response.on('drain', write).on('close', () => { if (left > 0) count('downloadAborted'); });
    write();
  });

  // Server-sent events: ?count=N events at once, then silence until the client leaves or, with ?end=1, the end.
  router.get('/events', (request, response) => {
    response.set({ 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
    response.flushHeaders();
    for (let number = 1; number <= Number(request.query.count ?? 1); number += 1) {
      response.write(`id: ${number}\ndata: {"number":${number}}\n\n`);
    }
    response.on('close', () => count('eventsClosed'));
    if (request.query.end) response.end();
  });

  // A file: Range, ETag, If-None-Match.
  router.get('/file', (request, response) => response.sendFile(path.join(__dirname, 'package.json')));

  // ?code=N with an empty body.
  router.all('/status', (request, response) => response.status(Number(request.query.code ?? 200)).end());

  // The answer as ?answer= spells it: JSON of {code, reason, headers: [name, value, …], chunks: [text, …], trailers: {},
  // date: false for none}. Read from the raw target, because query parsers differ.
  router.use('/answer', (request, response) => {
    const [, encoded] = request.originalUrl.split('?answer=');
    const { code = 200, reason, headers = [], chunks = [], trailers, date = true } = JSON.parse(decodeURIComponent(encoded));
    count('answer');
    response.sendDate = date;
    response.removeHeader('x-powered-by');
    response.writeHead(code, reason, headers);
    for (const chunk of chunks) response.write(Buffer.from(chunk, 'latin1'));
    if (trailers) response.addTrailers(trailers);
    response.end();
  });

  // ?bytes= (base64url) is the answer as it stands, then the connection ends: what no HTTP library writes.
  router.use('/raw', (request) => {
    const [, encoded] = request.originalUrl.split('?bytes=');
    request.socket.end(Buffer.from(encoded, 'base64url'));
  });

  // Repeated and oddly ordered answer headers.
  router.get('/cookies', (request, response) => {
    response.set('x-first', '1');
    response.append('set-cookie', 'a=1; Path=/');
    response.append('set-cookie', 'b=2; HttpOnly');
    response.set('x-last', '2');
    response.end('cookies');
  });

  // Trailers after a chunked body.
  router.get('/trailers', (request, response) => {
    response.set('trailer', 'x-checksum');
    response.write('body');
    response.addTrailers({ 'x-checksum': 'abc' });
    response.end();
  });

  // Headers of the connection, which must not travel.
  router.get('/hop', (request, response) => {
    response.set({ connection: 'keep-alive, x-hop', 'x-hop': 'gone', 'keep-alive': 'timeout=1', 'x-end': 'stays' });
    response.end('hop');
  });

  // Half a body, then a broken connection.
  router.get('/cut', (request, response) => {
    response.set('content-length', '1000');
    response.write('half');
    setImmediate(() => response.socket.destroy());
  });

  // No answer until the client leaves.
  router.all('/hang', (request, response) => {
    count('hanging');
    response.on('close', () => count('hangClosed'));
  });

  return router;
}

module.exports = wire;
