// The app of tests/express as a contender: one account, logged in, and limits that are on and never reached.
//
// Environment: PORT, JWT_SECRET, and KEY_OBJECT: not empty makes the secret a KeyObject before any token is verified.
'use strict';

const { createSecretKey } = require('node:crypto');

process.env.RATE_LIMIT = '100000000';
const settings = require('../tests/express/settings');
if (process.env.KEY_OBJECT) settings.jwtSecret = createSecretKey(Buffer.from(settings.jwtSecret));
const { accounts } = require('../tests/express/control');

// The login that benches/stage.py signs.
accounts.set('65f000000000000000000001', { activeSession: { sessionId: 'benchmark' } });
// The app ends with its standard input, and here it has none.
Object.defineProperty(process, 'stdin', { value: new (require('node:stream').PassThrough)() });
require('../tests/express/app');
