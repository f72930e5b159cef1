// What the environment says, with defaults that are nobody's secrets.
'use strict';

/** JSON has no regular expressions: a string between slashes is one. */
function revive(key, value) {
  const pattern = typeof value === 'string' && /^\/(.+)\/$/.exec(value);
  return pattern ? new RegExp(pattern[1]) : value;
}

module.exports = {
  appId: process.env.APP_ID ?? '970CA35de60c44645bbae8a215061b33',
  certificate: process.env.APP_CERTIFICATE ?? '5CFd2fd1755d40ecb72977518be15d3b',
  jwtSecret: process.env.JWT_SECRET ?? 'test-secret',
  /** Requests per minute and address; 0 switches all of the app's limiters off. */
  requestsPerMinute: Number(process.env.RATE_LIMIT ?? 200),
  /** What cors() takes, as JSON. */
  cors: JSON.parse(process.env.CORS ?? '{"origin":true,"credentials":true}', revive),
  mount: process.env.MOUNT ?? 'router',
};
