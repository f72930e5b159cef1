//! Whether a request is for a token endpoint or for the backend.
//!
//! Keeps true: a request below an owned path is for the backend only where a reissue rule changes the tokens in its
//! response.
//! Must not know: how the request is answered.

use http::Request;

use crate::exchange::response_body::RequestBody;
use crate::http::readings::Readings;
use crate::http::target::Match;
use crate::reissue::{self, Noted};
use crate::snapshot::Snapshot;

/// Where a request with these readings belongs, and what reissuing has to keep of the readings.
pub(crate) fn of(
    snapshot: &Snapshot,
    request: &Request<RequestBody>,
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
