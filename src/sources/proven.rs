//! The proofs that sources have given of their configuration: that accounts are found where it says, that a login's
//! session is the account's. A source that has never found anything may look in the wrong place, and its "there is
//! none" is no answer.
//!
//! Keeps true: a proof is remembered over reloads and restarts, for exactly the configuration under which it was
//! given, and holds no secret of it.
//! Must not know: which sources there are, where proofs are written down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// How many proofs are remembered: more configurations than an operator goes back to.
const MOST: usize = 256;

/// A configuration, as 128 bits of a hash.
type ConfigDigest = u128;

/// A digest's hexadecimal digits.
const DIGITS: usize = 32;

/// All proofs that were given.
#[derive(Debug, Default)]
pub struct Proven(Mutex<ProvenState>);

#[derive(Debug, Default)]
struct ProvenState {
    /// The proofs, the oldest first.
    shown: Vec<ConfigDigest>,
    /// Whether a proof isn't written down yet.
    changed: bool,
}

/// One fact to be proven, under one configuration.
#[derive(Debug)]
pub struct Proof {
    proven: Arc<Proven>,
    digest: ConfigDigest,
    /// Whether this object gave the proof: the list needn't be searched then.
    given: AtomicBool,
    doubted_since: Mutex<Option<Duration>>,
}

// === impl Proven ===

impl Proven {
    /// A fact to be proven: its name, and each part of the configuration under which it is proven.
    pub(crate) fn proof(self: &Arc<Self>, parts: &[&str]) -> Proof {
        let mut hash = Sha256::new();
        for part in parts {
            // The length keeps two different lists from reading alike.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let hash = hash.finalize();
        Proof {
            proven: Arc::clone(self),
            digest: u128::from_be_bytes(hash.first_chunk().copied().unwrap_or_default()),
            given: AtomicBool::new(false),
            doubted_since: Mutex::default(),
        }
    }

    /// Restores what an earlier process wrote down. Other lines are skipped.
    pub(crate) fn put_back(&self, text: &str) {
        let mut state = self.0.lock();
        for line in text.lines().filter(|line| line.len() == DIGITS) {
            if let Ok(digest) = ConfigDigest::from_str_radix(line, 16) {
                state.add(digest);
            }
        }
    }

    /// All proofs, to be written down; `None` where nothing has changed since the last call.
    pub(crate) fn take_changed(&self) -> Option<String> {
        let mut state = self.0.lock();
        if !std::mem::take(&mut state.changed) {
            return None;
        }
        let lines = state.shown.iter().map(|digest| format!("{digest:032x}\n"));
        Some(lines.collect())
    }

    /// Called when what was taken could not be written down.
    pub(crate) fn not_kept(&self) {
        self.0.lock().changed = true;
    }
}

impl ProvenState {
    /// Adds a proof. Whether that is news.
    fn add(&mut self, digest: ConfigDigest) -> bool {
        let news = !self.shown.contains(&digest);
        if news {
            if self.shown.len() >= MOST {
                self.shown.remove(0);
            }
            self.shown.push(digest);
        }
        news
    }
}

// === impl Proof ===

impl Proof {
    /// The source has given the proof.
    pub(crate) fn give(&self) {
        if !self.given.load(Ordering::Relaxed) {
            self.given.store(true, Ordering::Relaxed);
            let mut state = self.proven.0.lock();
            state.changed |= state.add(self.digest);
        }
    }

    /// Whether the proof was ever given.
    pub(crate) fn holds(&self) -> bool {
        self.given.load(Ordering::Relaxed) || self.proven.0.lock().shown.contains(&self.digest)
    }

    /// Whether this object gave the proof: cheaper to ask than [`Proof::holds`].
    pub(crate) fn is_given(&self) -> bool {
        self.given.load(Ordering::Relaxed)
    }

    /// Whether the proof was needed, and never given.
    pub(crate) fn is_missed(&self) -> bool {
        self.doubted_since.lock().is_some() && !self.holds()
    }

    /// Since when the proof has been needed, and whether `now` is the first time.
    pub(crate) fn missed(&self, now: Duration) -> (Duration, bool) {
        let mut since = self.doubted_since.lock();
        let first = since.is_none();
        (*since.get_or_insert(now), first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_holds_for_its_configuration_alone_and_outlives_the_process() {
        let proven = Arc::new(Proven::default());
        let parts = ["accounts", "db.example:27017", "live", "astrologers"];
        let proof = proven.proof(&parts);
        assert!(!proof.holds());
        assert_eq!(proven.take_changed(), None);
        proof.give();
        assert!(
            proof.holds() && proven.proof(&parts).holds(),
            "after a reload"
        );
        for other in [
            ["accounts", "db.example:27017", "liv", "eastrologers"],
            ["accounts", "db.example:27018", "live", "astrologers"],
            ["streams", "db.example:27017", "live", "astrologers"],
        ] {
            assert!(!proven.proof(&other).holds(), "{other:?}");
        }
        let text = proven.take_changed().unwrap();
        assert!(!text.contains("astrologers"), "{text}");
        assert_eq!(proven.take_changed(), None);
        proof.give();
        assert_eq!(proven.take_changed(), None, "no news");
        proven.not_kept();
        assert_eq!(proven.take_changed().as_deref(), Some(text.as_str()));

        let next = Arc::new(Proven::default());
        let proof = next.proof(&parts);
        next.put_back(&format!("not a line of ours\n{text}{}\n", "é".repeat(16)));
        assert!(proof.holds(), "a source is made before the file is read");
        assert_eq!(next.take_changed(), None);
    }

    #[test]
    fn the_latest_configurations_are_remembered() {
        let proven = Arc::new(Proven::default());
        let proof = |number: usize| proven.proof(&[&number.to_string()]);
        for number in 0..=MOST {
            proof(number).give();
        }
        assert!(!proof(0).holds() && proof(1).holds() && proof(MOST).holds());
        assert_eq!(proven.take_changed().unwrap().lines().count(), MOST);
    }

    #[test]
    fn what_is_missing_is_missed_since_the_first_time() {
        let proof = Arc::new(Proven::default()).proof(&[]);
        let at = Duration::from_secs;
        assert_eq!(proof.missed(at(5)), (at(5), true));
        assert_eq!(proof.missed(at(9)), (at(5), false));
    }
}
