// What renewd may ask the app over HTTP: who is in good standing, what is live, whether a grant is allowed, which keys
// sign logins. Each route can be made to fail in the ways that such routes do.
'use strict';

const { rateLimit } = require('express-rate-limit');

const { hits } = require('./control');
const { authenticate, findLive } = require('./live');

/** Route → fault; routes without one answer as they should. */
const faults = {};
/** What the hook answers. */
let opinion = { status: 204, body: {} };
/** The key set. */
let keys = [];

/** Nobody gets past it. */
const limited = rateLimit({ windowMs: 60_000, limit: 0, standardHeaders: true, legacyHeaders: false });

/** Writes `chunk` again and again, every so many milliseconds or as fast as it is taken, until the other side leaves. */
function endless(response, chunk, pause) {
  response.type('json').status(200);
  const write = () => {
    if (response.destroyed) return;
    const taken = response.write(chunk);
    if (pause) setTimeout(write, pause).unref();
    else if (taken) setImmediate(write);
    else response.once('drain', write);
  };
  write();
}

/** The ways to fail, by name. */
const failures = {
  // Never an answer: the handler forgot about it.
  silent: () => {},
  // A header section at once, and then a byte now and then.
  trickle: (request, response) => endless(response, ' ', 100),
  reset: (request) => request.socket.resetAndDestroy(),
  garbage: (request, response) => response.socket.end('rubbish\r\n\r\n'),
  // Half an answer.
  cut: (request, response) => {
    response.set('content-length', '1000').write('{');
    setImmediate(() => response.socket.destroy());
  },
  html: (request, response) => response.send('<html>Sign in</html>'),
  huge: (request, response) => response.json({ data: 'x'.repeat(3_000_000) }),
  endless: (request, response) => endless(response, ' '.repeat(65_536)),
  redirect: (request, response) => response.redirect('/internal/elsewhere'),
  // The app's own answer to what it doesn't know.
  404: (request, response, next) => next('router'),
  429: limited,
  500: () => { throw new Error('the database is gone'); },
};

/** Counts a question; fails where it is to. */
function asked(name) {
  return (request, response, next) => {
    hits[name] = (hits[name] ?? 0) + 1;
    const failure = failures[faults[name]];
    if (failure) failure(request, response, next);
    else next();
  };
}

function internal(express) {
  const router = express.Router();
  router.get('/account', asked('account'), authenticate, (request, response) => response.status(204).end());
  router.get('/streams/:channel', asked('streams'), (request, response, next) => {
    const stream = findLive(request.params.channel);
    if (!stream) return next('router');
    response.json({ success: true, data: stream });
  });
  router.post('/authorize', asked('authorize'), (request, response) => {
    response.status(opinion.status).json(opinion.body);
  });
  router.get('/keys', asked('keys'), (request, response) => response.json({ keys }));
  router.use('/elsewhere', asked('elsewhere'), (request, response) => response.json({ success: true }));
  return router;
}

function internalControl(express) {
  const router = express.Router();
  // {route: account|streams|authorize|keys, fault}: null mends it.
  router.post('/fault', (request, response) => {
    faults[request.body.route] = request.body.fault;
    response.json({ success: true });
  });
  // {status, body}
  router.post('/opinion', (request, response) => {
    opinion = request.body;
    response.json({ success: true });
  });
  // {keys}
  router.post('/keys', (request, response) => {
    keys = request.body.keys;
    response.json({ success: true });
  });
  return router;
}

module.exports = { internal, internalControl };
