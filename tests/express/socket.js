// WebSockets without socket.io: frames, pings and close codes as the tests ask for them.
'use strict';

const { WebSocketServer } = require('ws');

const { hits } = require('./control');

function count(name) {
  hits[name] = (hits[name] ?? 0) + 1;
}

/** Serves /wire/socket of an http.Server; every other upgrade is left to the server's other listeners. */
function attach(server) {
  const sockets = new WebSocketServer({ noServer: true, maxPayload: 64 * 1024 * 1024 });
  server.on('upgrade', (request, socket, head) => {
    const [path, query] = request.url.split('?');
    if (path !== '/wire/socket') return;
    switch (query) {
      // An ordinary answer instead of a tunnel.
      case 'refuse=426':
        socket.end('HTTP/1.1 426 Upgrade Required\r\nX-Reason: later\r\nContent-Length: 5\r\n\r\nlater');
        return;
      // Bytes in the same segment as the 101, then whatever comes back, unframed, until either side closes.
      case 'raw':
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst');
        socket.write(head);
        socket.on('data', (chunk) => socket.write(chunk));
        socket.on('end', () => { count('rawEnded'); socket.end('last'); });
        socket.on('close', () => count('rawClosed'));
        socket.on('error', () => {});
        return;
      default:
        sockets.handleUpgrade(request, socket, head, (webSocket) => {
          count('webSocket');
          webSocket.on('message', (data, isBinary) => {
            if (!isBinary && data.toString().startsWith('close ')) {
              webSocket.close(Number(data.toString().slice(6)), 'as asked');
            } else if (!isBinary && data.toString() === 'ping') {
              webSocket.ping('from the app');
            } else {
              webSocket.send(data, { binary: isBinary });
            }
          });
          webSocket.on('pong', (data) => webSocket.send(`pong ${data}`));
          webSocket.on('close', (code, reason) => {
            count('webSocketClosed');
            hits.webSocketCode = code;
            hits.webSocketReason = reason.toString();
          });
          webSocket.on('error', () => {});
        });
    }
  });
}

module.exports = { attach };
