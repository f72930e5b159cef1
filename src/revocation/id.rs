//! The name of a revocation: 32 hexadecimal digits, of which the first 12 are its time, so that a list by name is a
//! list by age, and the others are random, so that replicas choose different ones.

use std::fmt;

use crate::terms::clock::{Entropy, EntropyError};

/// Random bits of a name.
const RANDOM_BITS: u32 = 80;

/// A revocation's name. The order of names is that of their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevocationId(u128);

impl RevocationId {
    /// The least name.
    pub(crate) const FIRST: Self = Self(0);

    /// A new name at this time, in milliseconds since the Unix epoch.
    pub(crate) fn new(unix_millis: u64, entropy: Entropy) -> Result<Self, EntropyError> {
        let random = u128::from(entropy.u64()?) << 64 | u128::from(entropy.u64()?);
        let time = u128::from(unix_millis) << RANDOM_BITS;
        Ok(Self(time | random >> (u128::BITS - RANDOM_BITS)))
    }

    /// A name out of the text it was shown as; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(lower) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }
}

impl fmt::Display for RevocationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_a_later_one_is_greater() {
        let first = RevocationId::new(1_800_000_000_000, Entropy::Fixed(u64::MAX)).unwrap();
        let second = RevocationId::new(1_800_000_000_001, Entropy::Fixed(0)).unwrap();
        assert!(first < second);
        assert_eq!(second.to_string(), "01a3185c500100000000000000000000");
        assert_eq!(RevocationId::parse(&first.to_string()), Some(first));
    }

    #[test]
    fn other_texts_are_no_names() {
        for text in [
            "",
            "1",
            "01A3185C500100000000000000000000",
            "+1a3185c500100000000000000000000",
            "01a3185c5001000000000000000000000",
        ] {
            assert_eq!(RevocationId::parse(text), None, "{text}");
        }
    }
}
