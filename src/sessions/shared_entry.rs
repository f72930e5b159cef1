//! A record as an entry of the set that replicas share. Pure.
//!
//! The bytes: the version of the form, when what the record says is over (Unix seconds, little-endian), then the pieces
//! of the record as the journal has them, each behind its length (u16).
//!
//! Keeps true: an entry of a later form, or of a record that only a later version knows, is read as unknown; fields
//! of a session that only a later version knows are written again as they were.
//! Must not know: where the set is, which of two records counts.

use sha2::{Digest as _, Sha256};

use super::record::{LaterFields, identity};
use super::{Records, SessionRecord};
use crate::logins::remembered::{Login, RefusedLogin};

/// The version of the form.
const FORM: u8 = 1;

/// The length of an entry's name in the set. It is a hash: with fewer bytes, names could be made to meet.
const NAME: usize = 16;

/// A record with the end of what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedEntry {
    /// The record.
    pub record: SessionRecord,
    /// When what it says is over, in Unix seconds.
    pub until: u32,
    /// The fields that a later version has written of it.
    pub later: LaterFields,
}

impl SharedEntry {
    /// An entry of this version.
    pub(crate) fn new(record: SessionRecord, until: u32) -> Self {
        Self {
            record,
            until,
            later: LaterFields::default(),
        }
    }

    /// The name under which the set has the record; `None` for what has none.
    pub(crate) fn name(&self) -> Option<[u8; NAME]> {
        let mut named = Vec::with_capacity(128);
        match &self.record {
            SessionRecord::Session(kept) => identity(&kept.identity, &mut named)?,
            SessionRecord::Forgotten(of) => identity(of, &mut named)?,
            SessionRecord::Refused(RefusedLogin { login, .. }) => {
                let Login(login) = login;
                named.extend_from_slice(&login.get().to_le_bytes());
            }
            SessionRecord::Unknown => return None,
        }
        Sha256::digest(&named).first_chunk().copied()
    }

    /// The entry's bytes, with login hashes of the key of this name; `None` for what can't be written.
    pub(crate) fn encode(&self, key: u32) -> Option<Vec<u8>> {
        let pieces = Records::new(key).encode_over(&self.record, &self.later);
        if pieces.is_empty() {
            return None;
        }
        let mut bytes = vec![FORM];
        bytes.extend_from_slice(&self.until.to_le_bytes());
        for piece in self.later.riders.iter().chain(&pieces) {
            bytes.extend_from_slice(&u16::try_from(piece.len()).ok()?.to_le_bytes());
            bytes.extend_from_slice(piece);
        }
        Some(bytes)
    }

    /// The entry that these bytes are; its record is unknown where this version doesn't know it.
    pub(crate) fn decode(bytes: &[u8], key: u32) -> Self {
        Self::read(bytes, key).unwrap_or_else(|| Self::new(SessionRecord::Unknown, 0))
    }

    fn read(bytes: &[u8], key: u32) -> Option<Self> {
        let (&[FORM], rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let (until, mut rest) = rest.split_first_chunk()?;
        let mut records = Records::new(key);
        let (mut entry, mut riders) = (None, Vec::new());
        while let Some((length, after)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_le_bytes(*length));
            let (piece, after) = after.split_at_checked(length)?;
            rest = after;
            match records.decode(piece)? {
                SessionRecord::Unknown if records.has_addition() => {}
                SessionRecord::Unknown => riders.push(piece.to_vec()),
                record => {
                    entry = Some(Self {
                        record,
                        until: u32::from_le_bytes(*until),
                        later: LaterFields {
                            riders: std::mem::take(&mut riders),
                            ..LaterFields::of(piece)
                        },
                    });
                }
            }
        }
        entry.filter(|_| rest.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::sessions::{Grounds, SessionIdentity, SessionUser, StoredSession};
    use crate::terms::role::Role;

    const KEY: u32 = 77;

    fn kept(login: Option<Login>) -> StoredSession {
        StoredSession {
            identity: SessionIdentity {
                channel: "show".to_owned(),
                subject: "ann".to_owned(),
                user: SessionUser::Uid(7),
            },
            role: Role::Publisher,
            first_issued: 100,
            expires: [200, 0],
            refreshes: 3,
            refused: true,
            ended: false,
            lacks: Grounds::ALL,
            login,
            settled: 150,
            account_refused: false,
        }
    }

    fn entries() -> [SharedEntry; 3] {
        let login = NonZeroU64::new(9).map(Login);
        let session = kept(login);
        let identity = session.identity.clone();
        let refused = RefusedLogin {
            login: Login(NonZeroU64::MIN),
            until: 300,
            at: 200,
        };
        [
            SharedEntry::new(SessionRecord::Session(session), 200),
            SharedEntry::new(SessionRecord::Forgotten(identity), 200),
            SharedEntry::new(SessionRecord::Refused(refused), 300),
        ]
    }

    #[test]
    fn what_is_written_is_read_as_it_was_and_a_part_of_it_is_unknown() {
        for entry in entries() {
            let bytes = entry.encode(KEY).unwrap();
            assert_eq!(SharedEntry::decode(&bytes, KEY), entry);
            for length in 0..bytes.len() {
                let part = SharedEntry::decode(&bytes[..length], KEY);
                assert_eq!(part.record, SessionRecord::Unknown, "{length}");
            }
            let later = [&[FORM + 1], &bytes[1..]].concat();
            assert_eq!(
                SharedEntry::decode(&later, KEY).record,
                SessionRecord::Unknown
            );
        }
    }

    #[test]
    fn a_session_has_one_name_whether_it_lives_or_is_struck_out() {
        let [session, struck, refused] = entries().map(|entry| entry.name().unwrap());
        assert_eq!(session, struck);
        assert_ne!(session, refused);
    }

    #[test]
    fn what_a_later_version_writes_of_a_session_stays() {
        let [mut entry, ..] = entries();
        entry.later = LaterFields {
            marks: 0x50,
            trailing: vec![1, 2, 3],
            riders: vec![vec![9, 9, 9]],
        };
        let read = SharedEntry::decode(&entry.encode(KEY).unwrap(), KEY);
        assert_eq!(read, entry);
        let SessionRecord::Session(session) = &read.record else {
            panic!("{read:?}");
        };
        assert_eq!(*session, kept(NonZeroU64::new(9).map(Login)));
    }
}
