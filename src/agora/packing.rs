//! The integers and strings that both token formats are made of: little-endian, strings behind a 16-bit length.
//!
//! Must not know: the meaning of a value.

use super::BuildError;

/// Appends 16 bits.
pub(super) fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends 32 bits.
pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a count of things that follow.
pub(super) fn put_count(out: &mut Vec<u8>, count: usize) -> Result<(), BuildError> {
    put_u16(out, u16::try_from(count).map_err(|_| BuildError::TooLong)?);
    Ok(())
}

/// Appends bytes behind their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), BuildError> {
    put_count(out, bytes.len())?;
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a map of privilege number to seconds (007) or Unix seconds (006).
pub(super) fn put_privileges(
    out: &mut Vec<u8>,
    privileges: impl ExactSizeIterator<Item = (u16, u32)>,
) -> Result<(), BuildError> {
    put_count(out, privileges.len())?;
    for (privilege, expiry) in privileges {
        put_u16(out, privilege);
        put_u32(out, expiry);
    }
    Ok(())
}

/// The bytes ended inside a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truncated;

/// Reads from the front of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct SliceReader<'a> {
    rest: &'a [u8],
}

impl<'a> SliceReader<'a> {
    /// Starts at the front.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that haven't been read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], Truncated> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// 16 bits, unsigned.
    pub(super) fn u16(&mut self) -> Result<u16, Truncated> {
        self.take().map(u16::from_le_bytes)
    }

    /// 16 bits, signed.
    pub(super) fn i16(&mut self) -> Result<i16, Truncated> {
        self.take().map(i16::from_le_bytes)
    }

    /// 32 bits, unsigned.
    pub(super) fn u32(&mut self) -> Result<u32, Truncated> {
        self.take().map(u32::from_le_bytes)
    }

    /// Bytes behind their length.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Truncated> {
        let length = usize::from(self.u16()?);
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A map of privileges; of a repeated number the last entry counts, as in Agora's parser.
    pub(super) fn privileges(&mut self) -> Result<super::service::Privileges, Truncated> {
        (0..self.u16()?)
            .map(|_| Ok((self.u16()?, self.u32()?)))
            .collect()
    }
}
