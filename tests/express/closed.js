// One handler for each way in which Express routes: X-Reached says which one a target came to. What of it is closed to the
// outside is the test's affair.
//
//   node closed.js     prints one line {"port":N} once it listens, stops when stdin closes
//
// Environment: EXPRESS 4|5.
'use strict';

const path = require('node:path');

const five = process.env.EXPRESS === '5';
const express = five ? require('express5') : require('express');

const app = express();
const reached = (name) => (request, response) => response.set('X-Reached', name).end();

app.all('/exact/secret', reached('exact'));
app.use('/internal', reached('mount'));

const inner = express.Router();
inner.all('/inner', reached('router'));
app.use('/nested', inner);

app.all(five ? '/files/*rest' : '/files/*', reached('wildcard'));
app.all('/debug/:what', reached('parameter'));
app.all('/users/:id/keys', reached('parameter inside'));
app.all(/^\/reports\/(.+)$/i, reached('expression'));

/** Files in which one directory is private. */
function files(name) {
  return express.static(path.join(__dirname, 'static'), {
    setHeaders: (response, file) => {
      if (file.includes(`${path.sep}private${path.sep}`)) response.set('X-Reached', name);
    },
  });
}
app.use('/assets', files('static below a mount'));
app.use(files('static'));

app.use((request, response) => response.status(404).end());
app.use((error, request, response, next) => response.status(error.status ?? 500).end());

const server = app.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ port: server.address().port }));
});
process.stdin.on('end', () => process.exit(0)).on('error', () => process.exit(0)).resume();
