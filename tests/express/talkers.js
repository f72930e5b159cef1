// Socket.io clients, of any version, that do what a test says on standard input, a line of JSON for each step, and answer
// each line by one on standard output:
//
//   {open: NAME, url, version: 2|3|4, options}        {opened: transport}, or {refused: why}
//   {open: NAME, over: NAME, namespace, options}      the same, on a connection that is there
//   {ask: NAME, event, with: […]}                     {got: […]}: the arguments of the acknowledgement
//   {emit: NAME, event, with: […]}                    {}
//   {wait: NAME, event}                               {got: […]}: those of the first such event that nobody waited for
//   {again: NAME, auth}                               {opened}: out of the namespace and into it, with another login
//   {drop: NAME}                                      {opened}: the connection breaks, and the client makes another
//   {close: NAME}                                     {}
//
// Bytes are written {"$bytes": "base64"}.
'use strict';

const readline = require('node:readline');

const PACKAGES = { 2: 'socket.io-client-2', 3: 'socket.io-client-3', 4: 'socket.io-client' };
const DEADLINE = 25_000;

/** Name → {socket, waiting: Map(event → [arguments]), wanted: Map(event → [resolve])}. */
const talkers = new Map();

function written(value) {
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) return { $bytes: Buffer.from(value).toString('base64') };
  return mapped(value, written);
}

function read(value) {
  if (typeof value?.$bytes === 'string') return Buffer.from(value.$bytes, 'base64');
  return mapped(value, read);
}

function mapped(value, change) {
  if (Array.isArray(value)) return value.map(change);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, change(member)]));
}

/** Keeps what comes until somebody waits for it. */
function listen(name, socket) {
  const talker = { socket, waiting: new Map(), wanted: new Map() };
  const heard = socket.onevent;
  socket.onevent = function onevent(packet) {
    const [event, ...rest] = packet.data;
    const wanted = talker.wanted.get(event)?.shift();
    if (wanted) wanted(rest);
    else talker.waiting.set(event, [...talker.waiting.get(event) ?? [], rest]);
    return heard.call(this, packet);
  };
  talkers.set(name, talker);
}

/** Waits until a namespace is open, and the connection has become what it is to be. */
function opened(socket, transports) {
  return new Promise((resolve) => {
    const last = transports?.at(-1);
    const ready = () => {
      const { engine } = socket.io;
      if (last && engine.transport.name !== last) engine.once('upgrade', ready);
      else resolve({ opened: engine.transport.name });
    };
    socket.once('connect', ready);
    const refused = (error) => resolve({ refused: error?.message ?? String(error) });
    socket.once('connect_error', refused);
    socket.once('error', refused);
  });
}

const steps = {
  open({ open: name, over, namespace, url, version = 4, options = {} }) {
    const { io } = over ? {} : { io: require(PACKAGES[version]) };
    const socket = over
      ? talkers.get(over).socket.io.socket(namespace, options)
      : io(url, { forceNew: true, reconnectionDelay: 10, reconnectionDelayMax: 20, timeout: DEADLINE, ...options });
    listen(name, socket);
    return opened(socket, options.transports);
  },
  ask({ ask: name, event, with: what = [] }) {
    return new Promise((resolve) => {
      talkers.get(name).socket.emit(event, ...read(what), (...got) => resolve({ got }));
    });
  },
  emit({ emit: name, event, with: what = [] }) {
    talkers.get(name).socket.emit(event, ...read(what));
    return {};
  },
  wait({ wait: name, event }) {
    const { waiting, wanted } = talkers.get(name);
    const got = waiting.get(event)?.shift();
    if (got) return { got };
    return new Promise((resolve) => {
      wanted.set(event, [...wanted.get(event) ?? [], (later) => resolve({ got: later })]);
    });
  },
  again({ again: name, auth }) {
    const { socket } = talkers.get(name);
    socket.disconnect();
    socket.auth = auth;
    // The server ends the connection of who comes back so soon: the client makes another.
    const open = opened(socket, socket.io.opts.transports);
    socket.connect();
    return open;
  },
  drop({ drop: name }) {
    const { socket } = talkers.get(name);
    const open = opened(socket, socket.io.opts.transports);
    socket.io.engine.close();
    return open;
  },
  close({ close: name }) {
    talkers.get(name).socket.close();
    talkers.delete(name);
    return {};
  },
};

async function answer(line) {
  const step = JSON.parse(line);
  const kind = Object.keys(steps).find((name) => name in step);
  const late = setTimeout(() => {
    console.error(`no answer to ${line}`);
    process.exit(1);
  }, DEADLINE);
  const done = await steps[kind](step);
  clearTimeout(late);
  console.log(JSON.stringify(written(done)));
}

let last = Promise.resolve();
readline.createInterface({ input: process.stdin })
  .on('line', (line) => { last = last.then(() => answer(line)); })
  .on('close', () => last.then(() => process.exit(0)));
