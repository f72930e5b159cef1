// A plain Node server for the data plane's tests: what real frameworks do underneath.
// Prints its port, then one line per event.
'use strict';
const http = require('node:http');

const server = http.createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://backend');
  request.on('aborted', () => console.log(`aborted ${pathname}`));
  response.on('close', () => {
    if (!response.writableFinished) console.log(`cut ${pathname}`);
  });
  if (pathname === '/echo') {
    response.setHeader('content-type', 'application/octet-stream');
    request.pipe(response);
  } else if (pathname === '/early') {
    // Answers without reading, as body parsers do with what is too long.
    response.writeHead(413).end('too long');
  } else if (pathname === '/forever') {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write('data: hello\n\n');
  } else if (pathname === '/crash') {
    response.writeHead(200, { 'content-length': 100 });
    response.write('beginning', () => request.socket.destroy());
  } else {
    request.resume();
    request.on('end', () => response.end(`${request.method} ${request.url}`));
  }
});
server.on('upgrade', (request, socket, head) => {
  const { pathname, searchParams } = new URL(request.url, 'http://backend');
  if (pathname === '/refuse') {
    // Politely, and keeps the socket: whatever is sent on it next is not HTTP's.
    socket.write(searchParams.get('answer'));
    socket.on('data', () =>
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nHIJACK'),
    );
    socket.on('end', () => {
      console.log('left alone');
      socket.end();
    });
    return;
  }
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
  );
  socket.write(head);
  socket.on('end', () => socket.end('bye'));
  socket.pipe(socket, { end: false });
});
server.keepAliveTimeout = Number(process.argv[2] ?? 5000);
// Node adds a second of its own to what it announces unless told otherwise.
server.keepAliveTimeoutBuffer = 0;
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
process.stdin.on('end', () => process.exit(0)).resume();
