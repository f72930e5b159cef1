//! Every key of the configuration.
//!
//! Keeps true: a key is read, or refused by name; none is accepted and ignored. The known keys are those that
//! validation asks for.
//! Must not know: what a key means.

use std::sync::LazyLock;

pub use super::raw::BuiltKey;
use super::raw::KnownKeys;
use super::validate;

static KNOWN: LazyLock<KnownKeys> =
    LazyLock::new(|| KnownKeys::asked_for(validate::ask_for_everything));

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
