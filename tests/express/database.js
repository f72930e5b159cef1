// The current app's collections, as its mongoose models write them.
'use strict';

const mongoose = require('mongoose');

const { ObjectId } = mongoose.Schema.Types;

const livestreams = new mongoose.Schema({
  astrologerId: { type: ObjectId, ref: 'Astrologer', required: true },
  title: String,
  agoraChannelName: { type: String, required: true, index: true },
  isLive: { type: Boolean, default: true },
  isBanned: { type: Boolean, default: false },
  bannedViewers: [{ userId: ObjectId, reason: String, bannedAt: { type: Date, default: Date.now } }],
  lastHeartbeat: { type: Date, default: Date.now },
}, { timestamps: true });

const astrologers = new mongoose.Schema({
  name: String,
  isSuspended: { type: Boolean, default: false },
  suspensionReason: String,
  suspendedAt: Date,
  activeSession: { sessionId: String, deviceId: String, lastActive: Date },
}, { timestamps: true });

module.exports = {
  mongoose,
  Livestream: mongoose.model('LiveStream', livestreams, 'livestreams'),
  Astrologer: mongoose.model('Astrologer', astrologers, 'astrologers'),
};
