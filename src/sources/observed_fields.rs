//! Which of the configured fields a source's documents have had. A mistyped field looks like one that no document
//! sets, and would silently ban, deny or admit no caller.
//!
//! Keeps true: a missing field refuses no caller, because many apps write it only where it applies; a source logs at
//! most once an hour which fields it has never seen; what was seen is remembered over restarts.
//! Must not know: how a document is read.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::proven::Proof;
use crate::terms::clock::Clock;

/// How many documents must lack a field before the operator is told: among a few accounts none may be suspended.
const ENOUGH: u32 = 20;

/// The time from one warning to the next.
const AGAIN: Duration = Duration::from_hours(1);

/// One configured field.
#[derive(Debug)]
struct Field {
    /// The configuration key that names the field.
    key: &'static str,
    path: String,
    seen: Proof,
}

/// The fields of one source.
#[derive(Debug)]
pub(crate) struct Fields {
    source: &'static str,
    /// Where the documents are, for the log.
    place: String,
    watched: Vec<Field>,
    /// How many documents lacked a field that was never seen.
    lacking: AtomicU32,
    warned: Mutex<Option<Duration>>,
    clock: Clock,
}

impl Fields {
    /// A list without fields yet, for the documents at `place`.
    pub(crate) fn new(source: &'static str, place: String, clock: Clock) -> Self {
        Self {
            source,
            place,
            watched: Vec::new(),
            lacking: AtomicU32::new(0),
            warned: Mutex::default(),
            clock,
        }
    }

    /// Adds a field: the configuration key that names it, its path, and the proof that a document has had it.
    pub(crate) fn add(&mut self, key: &'static str, path: &str, seen: Proof) {
        self.watched.push(Field {
            key,
            path: path.to_owned(),
            seen,
        });
    }

    /// Takes note of a document. `has` says whether it has a field, and `None` where that can't be told.
    pub(crate) fn read(&self, has: impl Fn(&str) -> Option<bool>) {
        let mut lacks = false;
        for field in self.watched.iter().filter(|field| !field.seen.is_given()) {
            match has(&field.path) {
                Some(true) => field.seen.give(),
                Some(false) => lacks |= !field.seen.holds(),
                None => {}
            }
        }
        if lacks {
            let lacking = self.lacking.load(Ordering::Relaxed);
            self.lacking
                .store(lacking.saturating_add(1), Ordering::Relaxed);
            self.warn();
        }
    }

    /// Which fields no document has ever had, once enough documents lacked them.
    pub(crate) fn doubt(&self) -> Option<String> {
        if self.lacking.load(Ordering::Relaxed) < ENOUGH {
            return None;
        }
        let unseen: Vec<String> = self
            .watched
            .iter()
            .filter(|field| !field.seen.holds())
            .map(|field| format!("{} ({})", field.path, field.key))
            .collect();
        (!unseen.is_empty()).then(|| {
            format!(
                "no document of {} has ever had {}: either the backend writes it only where it applies, or the name is \
                 mistyped and the field has no effect",
                self.place,
                unseen.join(" nor ")
            )
        })
    }

    fn warn(&self) {
        let now = self.clock.elapsed();
        let mut warned = self.warned.lock();
        if warned.is_some_and(|at| now.saturating_sub(at) < AGAIN) {
            return;
        }
        if let Some(doubt) = self.doubt() {
            *warned = Some(now);
            tracing::warn!(source = self.source, "{doubt}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sources::proven::Proven;

    #[test]
    fn a_field_that_no_document_ever_had_is_told_after_enough_of_them_and_once_seen_never_again() {
        let proven = Arc::new(Proven::default());
        let mut fields = Fields::new(
            "accounts",
            "live.astrologers".to_owned(),
            Clock::manual(1_800_000_000),
        );
        for field in ["isSuspended", "isClosed"] {
            fields.add("accounts.deny_when", field, proven.proof(&["field", field]));
        }
        for _ in 1..ENOUGH {
            fields.read(|field| Some(field == "isClosed"));
            assert_eq!(fields.doubt(), None);
        }
        // An empty list says nothing of what its elements have.
        fields.read(|_| None);
        assert_eq!(fields.doubt(), None);
        fields.read(|_| Some(false));
        let doubt = fields.doubt().expect("a doubt");
        assert!(
            doubt.contains("live.astrologers") && doubt.contains("isSuspended"),
            "{doubt}"
        );
        assert!(!doubt.contains("isClosed"), "{doubt}");
        fields.read(|_| Some(true));
        assert_eq!(fields.doubt(), None);
    }
}
