//! Tables of counters, indexed by label enums.
//!
//! Keeps true: recording costs two or three array steps; every series exists at 0 from the start.
//! Must not know: what is recorded when.

use metrics::Counter;

use super::families::{Family, TOKEN_LAPSES, TOKEN_REQUESTS};
use super::registrar::Registrar;
use crate::agora::TokenFormat;
use crate::telemetry::labels::{Endpoint, Handler};
use crate::telemetry::traffic_labels::{MethodLabel, StatusClass};
use crate::terms::outcome::{LapseCause, Outcome};
use crate::terms::role::Role;

/// `role`: the two of [`Role`], and `unknown` for requests refused before their role was known.
const ROLES: [&str; 3] = ["publisher", "subscriber", "unknown"];
/// The position of `unknown` in [`ROLES`].
pub(crate) const ROLE_UNKNOWN: usize = 2;

const FORMATS: [TokenFormat; 2] = [TokenFormat::V007, TokenFormat::V006];

/// By endpoint, role ([`ROLES`]) and outcome.
pub(crate) type TokenRequests = [[[Counter; Outcome::ALL.len()]; ROLES.len()]; Endpoint::ALL.len()];

/// By endpoint, role and format.
pub(crate) type TokensIssued = [[[Counter; FORMATS.len()]; Role::ALL.len()]; Endpoint::ALL.len()];

/// All at 0, since alerts divide by them.
pub(crate) fn token_requests(registrar: &Registrar) -> TokenRequests {
    Endpoint::ALL.map(|endpoint| {
        ROLES.map(|role| {
            Outcome::ALL.map(|outcome| {
                registrar.counter(
                    &TOKEN_REQUESTS,
                    &[
                        ("endpoint", endpoint.as_str()),
                        ("role", role),
                        ("outcome", outcome.as_str()),
                        ("class", outcome.class().as_str()),
                    ],
                )
            })
        })
    })
}

/// All at 0.
pub(crate) fn tokens_issued(registrar: &Registrar, family: &Family) -> TokensIssued {
    Endpoint::ALL.map(|endpoint| {
        Role::ALL.map(|role| {
            FORMATS.map(|format| {
                registrar.counter(
                    family,
                    &[
                        ("endpoint", endpoint.as_str()),
                        ("role", role.as_str()),
                        ("format", format.as_str()),
                    ],
                )
            })
        })
    })
}

/// By role and cause, all at 0.
pub(crate) fn token_lapses(
    registrar: &Registrar,
) -> [[Counter; LapseCause::ALL.len()]; Role::ALL.len()] {
    Role::ALL.map(|role| {
        LapseCause::ALL.map(|cause| {
            let labels = [("role", role.as_str()), ("cause", cause.as_str())];
            registrar.counter(&TOKEN_LAPSES, &labels)
        })
    })
}

/// The labels of one kind of HTTP request.
pub(crate) fn http_labels(
    handler: Handler,
    method: MethodLabel,
    class: StatusClass,
) -> [(&'static str, &'static str); 3] {
    [
        ("handler", handler.as_str()),
        ("method", method.as_str()),
        ("code", class.as_str()),
    ]
}
