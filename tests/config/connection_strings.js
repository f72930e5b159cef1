// What npm's `mongodb` says of connection strings: one JSON object. The strings come a line each on standard input;
// the first argument is the directory whose node_modules are used.
'use strict';

const { createRequire } = require('node:module');
const fs = require('node:fs');
const path = require('node:path');

const modules = createRequire(path.join(process.argv[2], 'package.json'));
const { MongoClient } = modules('mongodb');
const { OPTIONS } = require(path.join(process.argv[2], 'node_modules/mongodb/lib/connection_string.js'));

const VALUES = ['true', 'false', '1', '1000', 'x', 'primary', 'majority', 'PLAIN', 'a:b', 'none', 'auto', 'stream'];

process.removeAllListeners('warning');
process.on('warning', () => {});

function verdict(string) {
  try {
    return { takes: true, database: new MongoClient(string).options.dbName };
  } catch (error) {
    return { takes: false, said: error.message };
  }
}

const strings = fs.readFileSync(0, 'utf8').split('\n').filter(Boolean);
const options = {};
for (const option of Object.keys(OPTIONS)) {
  const values = VALUES.filter((value) => verdict(`mongodb://u:p@localhost/?${option}=${value}`).takes);
  if (values.length > 0) options[option] = values;
}
process.stdout.write(JSON.stringify({ strings: strings.map(verdict), options }));
