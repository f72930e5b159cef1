//! Which callers renewd answers: by `decision.mode` and `decision.enforce_percent`, and by `decision.drain_holders`,
//! because the backend would refuse broadcasters the renewal of a token from here.
//!
//! Keeps true: a subject is on the same side on every replica and after every restart; only publishers who hold a
//! token from here are drained.
//! Must not know: what the answer is.

use super::{Now, asked_role};
use crate::config::model::DecisionMode;
use crate::decision::request::TokenRequest;
use crate::snapshot::Snapshot;
use crate::terms::role::Role;

/// Whether renewd answers this subject. While `enforce_percent` is below 100, the backend answers callers without a
/// subject.
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

/// Whether this is the renewal of a publisher's token from here, though the backend answers its holder by now. The
/// backend would refuse the renewal, and the stream would end.
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

/// How many publishers hold a token from here and renew it here, though the backend answers them by `decision.mode`
/// or `decision.enforce_percent`. A publisher with several sessions counts once. `now` is in Unix seconds.
pub(crate) fn draining_publishers(snapshot: &Snapshot, now: u64) -> usize {
    if !may_drain(snapshot) || is_enforced(snapshot, None) {
        return 0;
    }
    let backends = |subject: &str| !is_enforced(snapshot, Some(subject));
    snapshot.sessions.publishers(backends, now)
}

/// Whether there may be publishers to drain; cheap.
pub(crate) fn may_drain(snapshot: &Snapshot) -> bool {
    snapshot.config.decision.drain_holders && snapshot.sessions.count(Role::Publisher) > 0
}
