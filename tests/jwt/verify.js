// Node's verdict on tokens: one JSON object a line in, one out.
//
// in:  { token | mint: { payload, options }, secret, claim, options }   options as jwt.verify takes them
// out: { token, verdict: "accepted" | "expired" | "inactive" | "refused", subject: string | null, message }
'use strict';

const readline = require('node:readline');
const jwt = require('jsonwebtoken');

// What an app would find at the claim and could use as an identity.
function subject(payload, claim) {
  if (payload === null || typeof payload !== 'object' || Array.isArray(payload)) return null;
  const value = Object.hasOwn(payload, claim) ? payload[claim] : null;
  if (typeof value === 'string' && value !== '') return value;
  return Number.isSafeInteger(value) ? String(value) : null;
}

function verdict({ token, secret, claim, options }) {
  try {
    return { verdict: 'accepted', subject: subject(jwt.verify(token, secret, options), claim), message: '' };
  } catch (error) {
    const names = { TokenExpiredError: 'expired', NotBeforeError: 'inactive' };
    return { verdict: names[error.name] || 'refused', subject: null, message: `${error.name}: ${error.message}` };
  }
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const row = JSON.parse(line);
  if (row.mint) row.token = jwt.sign(row.mint.payload, row.secret, row.mint.options);
  process.stdout.write(`${JSON.stringify({ token: row.token, ...verdict(row) })}\n`);
});
