//! Which channel names and string user accounts Agora takes, and what is wrong with the others.
//!
//! Keeps true: what passes is never a wildcard. An error never echoes a byte that a terminal or a log would act on.

/// Longest channel name, in bytes (`channelId` of `joinChannel`).
pub(crate) const CHANNEL_BYTES: usize = 64;

/// Longest user account, in bytes (`userAccount` of `joinChannelWithUserAccount`).
pub(crate) const ACCOUNT_BYTES: usize = 255;

/// Longest user id in RTM and chat, in bytes (`userId` of RTM's `login`).
pub(crate) const MESSAGING_ID_BYTES: usize = 64;

/// Why a name isn't taken. The text reads on from the name of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Agora reads it as "any".
    #[error("must not be empty")]
    Empty,
    /// Has a `*`, which Agora reads as "any".
    #[error("must not contain *, a wildcard to Agora")]
    Wildcard,
    /// Over the limit.
    #[error("is {bytes} bytes long, the limit is {limit}")]
    TooLong {
        /// The name's length.
        bytes: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// Outside the 89 characters.
    #[error("has {} at byte {at}, which Agora does not allow", shown(*.character))]
    Character {
        /// The first such character.
        character: char,
        /// The character's offset in bytes.
        at: usize,
    },
    /// A user account of digits alone is a uid to Agora.
    #[error("must not be all digits: send it as uid")]
    AllDigits,
}

/// Shows a character only where a terminal and a log leave it alone.
fn shown(character: char) -> String {
    if character.is_ascii_graphic() {
        format!("{character:?}")
    } else {
        format!("U+{:04X}", u32::from(character))
    }
}

/// Checks a channel name: 1 to 64 bytes out of Agora's 89 characters.
pub(crate) fn channel_name(name: &str) -> Result<(), NameError> {
    name_of_at_most(name, CHANNEL_BYTES)
}

/// Checks a string user account: 1 to 255 bytes out of the same characters, not all digits.
pub(crate) fn user_account(account: &str) -> Result<(), NameError> {
    name_of_at_most(account, ACCOUNT_BYTES)?;
    if account.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NameError::AllDigits);
    }
    Ok(())
}

/// Checks a user id of RTM and chat: 1 to 64 bytes out of the same characters.
pub(crate) fn messaging_id(id: &str) -> Result<(), NameError> {
    name_of_at_most(id, MESSAGING_ID_BYTES)
}

fn name_of_at_most(name: &str, limit: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.contains('*') {
        return Err(NameError::Wildcard);
    }
    if name.len() > limit {
        return Err(NameError::TooLong {
            bytes: name.len(),
            limit,
        });
    }
    match name
        .char_indices()
        .find(|(_, character)| !allowed(*character))
    {
        Some((at, character)) => Err(NameError::Character { character, at }),
        None => Ok(()),
    }
}

/// One of the 89: letters, digits, space and 26 signs.
fn allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || " !#$%&()+-:;<=.>?@[]^_{}|~,".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_has_89_characters_and_no_asterisk() {
        let allowed_ones = (0..=u32::from(char::MAX))
            .filter_map(char::from_u32)
            .filter(|character| allowed(*character));
        assert_eq!(allowed_ones.count(), 89);
        assert!(!allowed('*'));
    }

    #[test]
    fn names_at_the_limit_pass_and_one_byte_more_fails() {
        assert_eq!(channel_name(&"a".repeat(64)), Ok(()));
        assert_eq!(
            channel_name(&"a".repeat(65)),
            Err(NameError::TooLong {
                bytes: 65,
                limit: 64
            })
        );
        assert_eq!(user_account(&"a".repeat(255)), Ok(()));
        assert_eq!(
            user_account(&"a".repeat(256)),
            Err(NameError::TooLong {
                bytes: 256,
                limit: 255
            })
        );
    }

    #[test]
    fn wildcards_are_named_before_anything_else_is() {
        assert_eq!(channel_name("*"), Err(NameError::Wildcard));
        assert_eq!(channel_name(&"*".repeat(99)), Err(NameError::Wildcard));
        assert_eq!(user_account("1*a*2"), Err(NameError::Wildcard));
        assert_eq!(channel_name(""), Err(NameError::Empty));
        assert_eq!(user_account(""), Err(NameError::Empty));
    }

    #[test]
    fn an_account_of_digits_is_a_uid_but_a_channel_of_digits_is_a_channel() {
        assert_eq!(user_account("42"), Err(NameError::AllDigits));
        assert_eq!(user_account("42a"), Ok(()));
        assert_eq!(channel_name("42"), Ok(()));
    }

    #[test]
    fn a_messaging_id_may_be_digits_but_never_a_wildcard() {
        assert_eq!(messaging_id("42"), Ok(()));
        assert_eq!(messaging_id(&"a".repeat(64)), Ok(()));
        assert!(messaging_id(&"a".repeat(65)).is_err());
        assert_eq!(messaging_id(""), Err(NameError::Empty));
        assert_eq!(messaging_id("ann*"), Err(NameError::Wildcard));
        assert!(messaging_id("\u{e4}nn").is_err());
    }

    #[test]
    fn a_refused_character_is_shown_without_echoing_control_bytes() {
        let shown = |name: &str| channel_name(name).unwrap_err().to_string();
        assert_eq!(
            shown("a/b"),
            "has '/' at byte 1, which Agora does not allow"
        );
        assert_eq!(
            shown("\u{1b}[2J"),
            "has U+001B at byte 0, which Agora does not allow"
        );
        assert_eq!(
            shown("a\u{202e}"),
            "has U+202E at byte 1, which Agora does not allow"
        );
    }
}
