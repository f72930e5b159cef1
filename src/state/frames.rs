//! Records in a file: a mark, a length, a checksum, the bytes. Pure.
//!
//! Keeps true: every intact record of a damaged file is found, wherever the damage is; nothing that was not written
//! as a record is taken for one, since the mark begins with a byte that no UTF-8 text contains and a CRC-32 must
//! match.
//! Must not know: what a record holds.

use std::io::{self, Read};

/// The first bytes of each record; the last of them is the version of the format.
const MARK: [u8; 3] = [0xfe, b'R', 1];

/// Mark, length (u16), CRC-32 of length and bytes (u32); numbers are little-endian.
const HEAD: usize = MARK.len() + 2 + 4;

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Appends a record to `into`; appends nothing and returns `false` where the record is too long.
pub(super) fn write(record: &[u8], into: &mut Vec<u8>) -> bool {
    let Ok(length) = u16::try_from(record.len()) else {
        return false;
    };
    let length = length.to_le_bytes();
    into.extend_from_slice(&MARK);
    into.extend_from_slice(&length);
    into.extend_from_slice(&checksum(length, record).to_le_bytes());
    into.extend_from_slice(record);
    true
}

fn checksum(length: [u8; 2], record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(record);
    hasher.finalize()
}

/// Reads records one after another.
#[derive(Debug)]
pub(super) struct RecordReader<R> {
    source: R,
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    start: usize,
    ended: bool,
    skipped: u64,
}

impl<R: Read> RecordReader<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            start: 0,
            ended: false,
            skipped: 0,
        }
    }

    /// How many bytes so far belong to no intact record.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next intact record.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            self.fill(HEAD)?;
            if self.start >= self.buffer.len() {
                return Ok(None);
            }
            if let Some(length) = self.length() {
                self.fill(HEAD + length)?;
                if self.is_intact(length) {
                    let from = self.start + HEAD;
                    self.start = from + length;
                    return Ok(self.buffer.get(from..from + length));
                }
            }
            self.skip();
        }
    }

    /// The length that the head at the start claims, if there is one.
    fn length(&self) -> Option<usize> {
        let head = self.buffer.get(self.start..self.start + HEAD)?;
        let (mark, rest) = head.split_first_chunk::<3>()?;
        let (length, _) = rest.split_first_chunk::<2>()?;
        (*mark == MARK).then(|| usize::from(u16::from_le_bytes(*length)))
    }

    fn is_intact(&self, length: usize) -> bool {
        let rest = self.buffer.get(self.start + MARK.len()..);
        let parts = rest.and_then(|rest| {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (sum, rest) = rest.split_first_chunk::<4>()?;
            Some((*length, u32::from_le_bytes(*sum), rest))
        });
        parts.is_some_and(|(length_bytes, sum, rest)| {
            rest.get(..length)
                .is_some_and(|record| checksum(length_bytes, record) == sum)
        })
    }

    /// Moves to where the next record may begin.
    fn skip(&mut self) {
        let rest = self.buffer.get(self.start + 1..).unwrap_or_default();
        let distance = rest
            .iter()
            .position(|byte| *byte == MARK[0])
            .unwrap_or(rest.len());
        self.start += 1 + distance;
        self.skipped += 1 + u64::try_from(distance).unwrap_or(u64::MAX);
    }

    /// Reads until `wanted` bytes are unread in the buffer, or the source ends.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        if self.buffer.len() - self.start >= wanted || self.ended {
            return Ok(());
        }
        self.buffer.drain(..self.start);
        self.start = 0;
        while self.buffer.len() < wanted && !self.ended {
            let room = u64::try_from(CHUNK).unwrap_or(u64::MAX);
            let read = self
                .source
                .by_ref()
                .take(room)
                .read_to_end(&mut self.buffer)?;
            self.ended = read == 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let mut frames = RecordReader::new(bytes);
        let mut records = Vec::new();
        while let Some(record) = frames.next().unwrap() {
            records.push(record.to_vec());
        }
        (records, frames.skipped())
    }

    fn written(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for record in records {
            assert!(write(record, &mut bytes));
        }
        bytes
    }

    #[test]
    fn a_record_longer_than_its_length_can_say_is_refused_whole() {
        let mut bytes = Vec::new();
        assert!(!write(&vec![0; 65_536], &mut bytes));
        assert!(bytes.is_empty());
        assert!(write(&vec![7; 65_535], &mut bytes));
        assert_eq!(read(&bytes), (vec![vec![7; 65_535]], 0));
    }

    #[test]
    fn records_are_found_across_the_borders_of_what_is_read_at_once() {
        let records: Vec<_> = (0..2000_u16)
            .map(|number| vec![1; usize::from(number)])
            .collect();
        let bytes = written(&records);
        assert!(bytes.len() > 4 * CHUNK);
        assert_eq!(read(&bytes), (records, 0));
    }

    proptest! {
        #[test]
        fn damage_costs_the_records_it_hits_and_no_other(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..20),
            at in any::<prop::sample::Index>(),
            flip in 1..=255_u8,
        ) {
            let mut bytes = written(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let mut end = 0;
            let hit = records.iter().position(|record| {
                end += HEAD + record.len();
                at < end
            });
            let mut left = records.clone();
            left.remove(hit.unwrap());
            let (found, skipped) = read(&bytes);
            prop_assert_eq!(found, left);
            prop_assert!(skipped > 0);
        }

        #[test]
        fn a_cut_costs_the_record_it_hits(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..20),
            at in any::<prop::sample::Index>(),
        ) {
            let bytes = written(&records);
            let at = at.index(bytes.len());
            let mut end = 0;
            let whole = records.iter().take_while(|record| {
                end += HEAD + record.len();
                end <= at
            });
            let whole: Vec<_> = whole.cloned().collect();
            prop_assert_eq!(read(&bytes[..at]).0, whole);
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(prop_oneof![Just(0xfe_u8), Just(b'R'), Just(1), any::<u8>()], 0..300)) {
            let (_, skipped) = read(&bytes);
            prop_assert!(skipped <= bytes.len() as u64);
        }
    }
}
