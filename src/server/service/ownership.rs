//! Whose a request is: a token endpoint's, or the backend's.
//!
//! Keeps true: what lies below an owned path is the backend's only where a reissue rule cuts the tokens in its answer.
//! Must not know: what becomes of the request.

use http::Request;

use crate::http::readings::Readings;
use crate::http::target::Match;
use crate::reissue::{self, Noted};
use crate::snapshot::Snapshot;

/// Whose a request with these readings is, and what is to be kept with it of them.
pub(crate) fn of<B>(
    snapshot: &Snapshot,
    request: &Request<B>,
    readings: &Readings<'_>,
) -> (Match, Option<Noted>) {
    let found = match snapshot.owned.classify(request.uri(), readings) {
        Match::Below { plainly: true } if reissue::cuts(snapshot, request, readings) => {
            Match::Foreign
        }
        found => found,
    };
    (found, reissue::noted(snapshot, request, readings))
}
