//! Whose answers are ours to give: by `decision.mode` and `decision.enforce_percent`, and by `decision.drain_holders`, for
//! the backend refuses broadcasters their renewal, whatever the mode.
//!
//! Keeps true: a subject is on the same side on every replica and after every restart; nobody but a publisher who holds a
//! token given here is drained.
//! Must not know: what the answer is.

use super::{Now, asked_role};
use crate::config::model::DecisionMode;
use crate::decision::request::TokenRequest;
use crate::snapshot::Snapshot;
use crate::terms::role::Role;

/// Whether the answer to this subject is ours to give. While a canary runs, callers without a subject belong to the backend.
pub(crate) fn is_enforced(snapshot: &Snapshot, subject: Option<&str>) -> bool {
    let decision = &snapshot.config.decision;
    match (decision.mode, decision.enforce_percent, subject) {
        (DecisionMode::Observe | DecisionMode::Off, ..) | (_, 0, _) => false,
        (_, 100, _) => true,
        (_, percent, Some(subject)) => {
            crc32fast::hash(subject.as_bytes()) % 100 < u32::from(percent)
        }
        (_, _, None) => false,
    }
}

/// Whether this is the renewal of a publisher's token that was given here, though answers to its holder are the backend's
/// by now. The backend would refuse it, and the stream would end.
pub(in crate::decision) fn is_to_drain(
    snapshot: &Snapshot,
    subject: &str,
    request: &TokenRequest,
    now: Now,
) -> bool {
    let role = Some(Role::Publisher);
    snapshot.config.decision.drain_holders
        && asked_role(snapshot, request) != Some(Role::Subscriber)
        && snapshot
            .sessions
            .held(&request.channel, subject, role, now.unix_seconds())
            .is_some()
}

/// How many publishers hold a token given here and go on renewing it here, though answers to them are the backend's by
/// `decision.mode` or `decision.enforce_percent`: people, not their sessions. `now` in Unix seconds.
pub(crate) fn draining_publishers(snapshot: &Snapshot, now: u64) -> usize {
    if !may_drain(snapshot) || is_enforced(snapshot, None) {
        return 0;
    }
    let backends = |subject: &str| !is_enforced(snapshot, Some(subject));
    snapshot.sessions.publishers(backends, now)
}

/// Whether there may be anybody to drain; cheap.
pub(crate) fn may_drain(snapshot: &Snapshot) -> bool {
    snapshot.config.decision.drain_holders && snapshot.sessions.count(Role::Publisher) > 0
}
