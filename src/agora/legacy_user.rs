//! Which user a 006 token is for, found from the CRC-32 that stands in its place.
//!
//! Keeps true: every numeric uid with that CRC-32 is found, in microseconds whatever the value.
//! Must not know: tokens. Several users may share a CRC-32; the token's signature tells which.

/// The most digits of a uid, 4294967295.
const MOST_DIGITS: usize = 10;

/// Bits that tell ASCII digits apart: `0` is 0x30, and the low four bits count.
const BITS: usize = 4;

/// Every numeric uid, as tokens spell it, whose CRC-32 this is; uid 0 is spelled as the empty string.
///
/// CRC-32 is affine over single bits, so for each number of digits the digits' bits are the unknowns of 32 linear
/// equations; what the equations leave open (256 cases for ten digits) is tried.
pub(crate) fn numeric_users(crc: u32) -> Vec<String> {
    let mut users = Vec::new();
    if crc == 0 {
        users.push(String::new());
    }
    for digits in 1..=MOST_DIGITS {
        let (solution, open) = solve(digits, crc);
        let Some(solution) = solution else { continue };
        for choice in 0..1_u64 << open.len() {
            let chosen = open.iter().enumerate();
            let bits = chosen
                .filter(|(index, _)| choice >> index & 1 == 1)
                .fold(solution, |bits, (_, vector)| bits ^ vector);
            users.extend(spelled(digits, bits));
        }
    }
    users
}

/// One solution as bits of the digits (the first digit's lowest bit first), and what may be added to it.
fn solve(digits: usize, crc: u32) -> (Option<u64>, Vec<u64>) {
    let zeros = [b'0'; MOST_DIGITS];
    let zeros = zeros.get(..digits).unwrap_or(&zeros);
    let origin = crc32fast::hash(zeros);
    // Echelon form: each with a leading bit that no other has, and the unknowns that it is the sum of.
    let mut basis: Vec<(u32, u64)> = Vec::with_capacity(32);
    let mut open = Vec::new();
    for unknown in 0..digits * BITS {
        let mut text = [b'0'; MOST_DIGITS];
        if let Some(digit) = text.get_mut(unknown / BITS) {
            *digit ^= 1 << (unknown % BITS);
        }
        let text = text.get(..digits).unwrap_or(&text);
        let (rest, sum) = reduce(&basis, crc32fast::hash(text) ^ origin, 1 << unknown);
        if rest == 0 {
            open.push(sum);
        } else {
            basis.push((rest, sum));
        }
    }
    let (rest, sum) = reduce(&basis, crc ^ origin, 0);
    ((rest == 0).then_some(sum), open)
}

/// Subtracts what the basis can of a vector.
fn reduce(basis: &[(u32, u64)], mut vector: u32, mut sum: u64) -> (u32, u64) {
    for (row, of) in basis {
        let leading = 31 - row.leading_zeros();
        if vector >> leading & 1 == 1 {
            vector ^= row;
            sum ^= of;
        }
    }
    (vector, sum)
}

/// The digits as text, if they are digits, without leading zeros, and a uid.
fn spelled(digits: usize, bits: u64) -> Option<String> {
    let mut text = String::with_capacity(digits);
    for position in 0..digits {
        let digit = u32::try_from(bits >> (position * BITS) & 0xf).ok()?;
        text.push(char::from_digit(digit, 10)?);
    }
    let uid: u32 = text.parse().ok()?;
    (uid.to_string() == text).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_the_range_are_found_and_nothing_beyond() {
        for user in ["", "0", "1", "9", "10", "999999999", "4294967295"] {
            assert!(
                numeric_users(crc32fast::hash(user.as_bytes())).contains(&user.to_owned()),
                "{user}"
            );
        }
        for user in ["4294967296", "00", "007", "ann"] {
            let found = numeric_users(crc32fast::hash(user.as_bytes()));
            assert!(!found.contains(&user.to_owned()), "{user}");
        }
    }

    proptest! {
        #[test]
        fn every_uid_is_found_from_its_crc(uid: u32) {
            let text = uid.to_string();
            let crc = crc32fast::hash(text.as_bytes());
            let found = numeric_users(crc);
            prop_assert!(found.contains(&text));
            prop_assert!(found.len() < 300);
            for other in found {
                prop_assert_eq!(crc32fast::hash(other.as_bytes()), crc);
            }
        }
    }
}
