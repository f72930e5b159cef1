//! DER (ITU-T X.690), as far as certificates and keys need it: one element after the other.
//!
//! Must not know: what an element means.

/// One element: a tag, its content, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Element<'der> {
    /// The identifier octet.
    pub tag: u8,
    /// The contents octets.
    pub content: &'der [u8],
    /// Identifier, length and contents.
    pub whole: &'der [u8],
    /// The bytes after it.
    pub rest: &'der [u8],
}

impl<'der> Element<'der> {
    /// The first element of some DER. `None` where it is cut short, or longer than a `usize` can say.
    pub(crate) fn first(der: &'der [u8]) -> Option<Self> {
        let (tag, rest) = der.split_first()?;
        let (first, rest) = rest.split_first()?;
        let (length, rest) = if first & 0x80 == 0 {
            (usize::from(*first), rest)
        } else {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().try_fold(0_usize, |length, byte| {
                length.checked_mul(256)?.checked_add(usize::from(*byte))
            })?;
            (length, rest)
        };
        let (content, rest) = rest.split_at_checked(length)?;
        Some(Self {
            tag: *tag,
            content,
            whole: der.get(..der.len() - rest.len())?,
            rest,
        })
    }

    /// The first element of what follows.
    pub(crate) fn next(&self) -> Option<Self> {
        Self::first(self.rest)
    }

    /// The first element of the content.
    pub(crate) fn inner(&self) -> Option<Self> {
        Self::first(self.content)
    }
}

/// The first field of a certificate's `TBSCertificate` after its version (RFC 5280 §4.1): serialNumber; signature,
/// issuer, validity, subject and subjectPublicKeyInfo follow. `None` if this is no certificate.
pub(crate) fn serial_number(certificate: &[u8]) -> Option<Element<'_>> {
    const EXPLICIT_0: u8 = 0xa0;
    let first = Element::first(certificate)?.inner()?.inner()?;
    // version is there from X.509 v2 on.
    if first.tag == EXPLICIT_0 {
        first.next()
    } else {
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_short_or_long() {
        let short = Element::first(&[2, 1, 7, 9]).unwrap();
        assert_eq!((short.tag, short.content), (2, [7].as_slice()));
        assert_eq!(
            (short.whole, short.rest),
            ([2, 1, 7].as_slice(), [9].as_slice())
        );
        let long = Element::first(&[4, 0x82, 0, 2, 8, 9]).unwrap();
        assert_eq!(long.content, [8, 9]);
        assert!(long.rest.is_empty());
    }

    #[test]
    fn what_is_cut_short_is_no_element() {
        let whole = [0x30, 0x82, 0, 2, 8, 9];
        for length in 0..whole.len() {
            assert_eq!(Element::first(&whole[..length]), None, "{length}");
        }
        assert_eq!(Element::first(&[4, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
