// A client of the `ws` package that listens, to one WebSocket after the other, until the server closes it.
//
//   node listener.js URL...      prints an array for each: what came, in order
//
// Tokens are masked, and given beside the message: ['text', message, [token, …]]. A long message is given by its hash.
'use strict';

const { createHash } = require('node:crypto');

const WebSocket = require('ws');

const TOKEN = /(?<= ")007e[A-Z][A-Za-z0-9+/=]{100,}(?=" )/g;

function shown(data) {
  if (data.length < 300) return data.toString('latin1');
  return `${data.length} ${createHash('sha256').update(data).digest('hex')}`;
}

function text(data) {
  const whole = data.toString();
  return ['text', shown(Buffer.from(whole.replace(TOKEN, 'TOKEN'))), whole.match(TOKEN) ?? []];
}

function heard(url) {
  return new Promise((resolve) => {
    const heard = [];
    const socket = new WebSocket(url, { maxPayload: 64 * 1024 * 1024 });
    socket.on('message', (data, isBinary) => heard.push(isBinary ? ['binary', shown(data)] : text(data)));
    socket.on('ping', (data) => heard.push(['ping', shown(data)]));
    socket.on('pong', (data) => heard.push(['pong', shown(data)]));
    socket.on('error', (error) => heard.push(['error', error.message]));
    socket.on('close', (code, reason) => resolve([...heard, ['close', code, reason.toString()]]));
  });
}

async function main() {
  const all = [];
  for (const url of process.argv.slice(2)) all.push(await heard(url));
  console.log(JSON.stringify(all));
}

main();
