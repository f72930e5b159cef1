// Signs with Node: one JSON object a line in, one token a line out.
//
// in: { payload, key, algorithm, keyid? }   a private key in PEM; "EdDSA" is signed by node:crypto, the rest by jsonwebtoken
'use strict';

const crypto = require('node:crypto');
const readline = require('node:readline');
const jwt = require('jsonwebtoken');

function ed25519({ payload, key, keyid }) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const header = { alg: 'EdDSA', typ: 'JWT', ...(keyid && { kid: keyid }) };
  const signed = `${encode(header)}.${encode(payload)}`;
  return `${signed}.${crypto.sign(null, Buffer.from(signed), key).toString('base64url')}`;
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const row = JSON.parse(line);
  const options = { algorithm: row.algorithm, ...(row.keyid && { keyid: row.keyid }) };
  const token = row.algorithm === 'EdDSA' ? ed25519(row) : jwt.sign(row.payload, row.key, options);
  process.stdout.write(`${token}\n`);
});
