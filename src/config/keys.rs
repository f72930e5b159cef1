//! Every key of the configuration, and whether this build has what it asks for.
//!
//! Keeps true: a key is read, or refused by name; none is accepted and ignored. The keys that are built are those that
//! validation asks for; building a part removes its rows from [`UNBUILT`].
//! Must not know: what a key means.

use std::sync::LazyLock;

pub use super::raw::BuiltKey;
use super::raw::KnownKeys;
use super::validate;

/// Every key that is known and asks for a part that this build lacks: dotted paths; a table's path stands for everything
/// in it.
pub const UNBUILT: &[&str] = &["reissue.socket"];

static KNOWN: LazyLock<KnownKeys> =
    LazyLock::new(|| KnownKeys::asked_for(UNBUILT, validate::ask_for_everything));

/// Every key that this build reads.
pub fn built() -> &'static [BuiltKey] {
    &KNOWN.built
}

pub(super) fn known() -> &'static KnownKeys {
    &KNOWN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::KnownKey;

    fn suggestion(table: &str, name: &str) -> String {
        known().suggestion(table, name).unwrap()
    }

    #[test]
    fn no_key_is_both_built_and_not() {
        for key in UNBUILT {
            assert!(matches!(known().look_up(key), Some(KnownKey::Unbuilt)));
        }
    }

    #[test]
    fn a_table_is_known_by_the_keys_in_it() {
        for section in ["server.timeouts", "upstream.health", "auth.jwt.keys"] {
            let found = known().look_up(section);
            assert!(matches!(found, Some(KnownKey::Section)), "{section}");
        }
        assert!(known().look_up("server.time").is_none());
    }

    #[test]
    fn a_misspelt_key_gets_the_nearest_name_of_its_table() {
        assert_eq!(
            suggestion("server", "drain_timout"),
            "did you mean `drain_timeout`?"
        );
        assert_eq!(suggestion("", "servr"), "did you mean `server`?");
    }

    #[test]
    fn a_key_in_the_wrong_table_is_sent_to_the_right_one() {
        assert_eq!(
            suggestion("server", "lifetime"),
            "`lifetime` belongs in [token]"
        );
    }
}
