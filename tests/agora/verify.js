// Reads tokens with Agora's own packages: a JSON array of {token, certificate} on stdin, what they say of each on stdout.
'use strict'

const fs = require('node:fs')
const { AccessToken2 } = require('agora-token/src/AccessToken2')
const legacy = require('agora-access-token/src/AccessToken')

const text = (value) => (value === undefined ? undefined : value.toString())

function read007({ token, certificate }) {
  const reader = new AccessToken2('', '', 0, 0)
  const parsed = reader.from_string(token)
  return {
    parsed,
    verified: reader.verifySignature(certificate),
    appId: text(reader.appId),
    issueTs: reader.issueTs,
    expire: reader.expire,
    salt: reader.salt,
    services: reader.services.map((service) => ({
      type: service.service_type(),
      privileges: service.__privileges,
      channelName: text(service.__channel_name),
      uid: text(service.__uid),
      userId: text(service.__user_id),
      account: text(service.__account),
      roomUuid: text(service.__room_uuid),
      userUuid: text(service.__user_uuid),
    })),
  }
}

function read006({ token }) {
  const reader = new legacy.AccessToken('', '', '', '')
  const parsed = reader.fromString(token)
  return {
    parsed,
    salt: reader.salt,
    ts: reader.ts,
    privileges: reader.messages,
    crcChannel: reader.crc_channel_name,
    crcUid: reader.crc_uid,
  }
}

const tokens = JSON.parse(fs.readFileSync(0, 'utf8'))
const read = (entry) => (entry.token.startsWith('006') ? read006(entry) : read007(entry))
process.stdout.write(JSON.stringify(tokens.map(read)))
