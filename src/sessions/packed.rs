//! A short string in 24 bytes, with no allocation for the names that channels and subjects usually have.
//!
//! Keeps true: equal texts pack equally, so packed texts compare, and hash, as they are.
//! Must not know: what the text names.

/// Bytes for text beside the two lengths and the enum's tag: 24 in all, as much as a `String` without its text.
const INLINE: usize = 21;

/// A string whose trailing hexadecimal digits take half a byte each: a Mongo `ObjectId` takes 12 bytes, `live_`
/// before one 17. A text that doesn't fit is allocated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Packed {
    Inline {
        /// Bytes of text as written, at the beginning.
        plain: u8,
        /// Bytes of two lower-case digits each, after them.
        digits: u8,
        bytes: [u8; INLINE],
    },
    Long(Box<str>),
}

impl Packed {
    pub(super) fn new(text: &str) -> Self {
        pack(text).unwrap_or_else(|| Self::Long(text.into()))
    }

    /// Whether the packed string is this text.
    pub(super) fn is(&self, text: &str) -> bool {
        match self {
            Self::Long(long) => **long == *text,
            Self::Inline { .. } => pack(text).is_some_and(|packed| packed == *self),
        }
    }

    /// The text again.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Long(long) => long.to_string(),
            Self::Inline {
                plain,
                digits,
                bytes,
            } => {
                let (text, rest) = bytes.split_at(usize::from(*plain).min(INLINE));
                // `pack` cut a string where a character ends: nothing is lost.
                let mut text = String::from_utf8_lossy(text).into_owned();
                for byte in rest.iter().take(usize::from(*digits)) {
                    text.push(digit(byte >> 4));
                    text.push(digit(byte & 0xf));
                }
                text
            }
        }
    }
}

fn pack(text: &str) -> Option<Packed> {
    let run = text.bytes().rev().map_while(value).count();
    // A byte takes two digits: the first of an odd number stays text.
    let (plain, run) = text.split_at_checked(text.len() - run + run % 2)?;
    let mut bytes = [0; INLINE];
    let (packed, rest) = bytes.split_at_mut_checked(plain.len())?;
    packed.copy_from_slice(plain.as_bytes());
    let packed = rest.get_mut(..run.len() / 2)?;
    for (byte, pair) in packed.iter_mut().zip(run.as_bytes().chunks_exact(2)) {
        *byte = pair.iter().fold(0, |byte, digit| {
            byte << 4 | value(*digit).unwrap_or_default()
        });
    }
    Some(Packed::Inline {
        plain: u8::try_from(plain.len()).ok()?,
        digits: u8::try_from(run.len() / 2).ok()?,
        bytes,
    })
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_names_of_the_current_app_need_no_allocation() {
        assert_eq!(size_of::<Packed>(), 24);
        for name in [
            "65f000000000000000000001",
            "live_65f000000000000000000001",
            "",
            "a-user-of-twenty-1-by",
        ] {
            assert!(matches!(Packed::new(name), Packed::Inline { .. }), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back_and_equals_itself_alone(
            text in "([a-z_é]{0,12}[0-9a-f]{0,44})|.{0,60}",
            other in "[0-9a-f]{0,44}|.{0,30}",
        ) {
            let packed = Packed::new(&text);
            prop_assert_eq!(packed.text(), text.clone());
            prop_assert!(packed.is(&text));
            prop_assert_eq!(packed.is(&other), text == other);
            prop_assert_eq!(packed == Packed::new(&other), text == other);
        }
    }
}
