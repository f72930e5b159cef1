//! How token requests, lookups and sessions end: words of the domain, which metrics and audit events count under the same
//! names. Contract names: never change one.
//!
//! Must not know: who counts.

/// How a token request ended: `ok`, or the `code` of its JSON error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A token was minted.
    Ok,
    /// Row 1 and 4, by scope: the address or the subject asked too often.
    RateLimitedClient,
    /// Row 4: the channel or the whole service is asked too often.
    RateLimitedShared,
    /// 401.
    Unauthenticated,
    /// 401.
    TokenExpired,
    /// 503: no key that is known verifies the login, and the key set, which may have a new one, can't be read again now.
    LoginUnverified,
    /// 400.
    InvalidRequest,
    /// 413.
    BodyTooLarge,
    /// 415.
    UnsupportedMediaType,
    /// 403.
    AccountSuspended,
    /// 401: the account is signed in elsewhere.
    SessionReplaced,
    /// 405.
    MethodNotAllowed,
    /// 404 of the guard: a spelling nobody serves.
    NotFound,
    /// 404.
    StreamNotLive,
    /// 403.
    ViewerBanned,
    /// 403.
    NotOwner,
    /// 409.
    UidTaken,
    /// 403.
    PolicyDenied,
    /// 403.
    TooManyStreams,
    /// 403.
    SessionTooLong,
    /// 503.
    Unavailable,
}

impl Outcome {
    /// Every outcome, in order of declaration.
    pub const ALL: [Self; 21] = [
        Self::Ok,
        Self::RateLimitedClient,
        Self::RateLimitedShared,
        Self::Unauthenticated,
        Self::TokenExpired,
        Self::LoginUnverified,
        Self::InvalidRequest,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::AccountSuspended,
        Self::SessionReplaced,
        Self::MethodNotAllowed,
        Self::NotFound,
        Self::StreamNotLive,
        Self::ViewerBanned,
        Self::NotOwner,
        Self::UidTaken,
        Self::PolicyDenied,
        Self::TooManyStreams,
        Self::SessionTooLong,
        Self::Unavailable,
    ];

    /// The `code` in the JSON error and the label's value; `ok` for success.
    pub fn code(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::RateLimitedClient | Self::RateLimitedShared => "rate_limited",
            Self::Unauthenticated => "unauthenticated",
            Self::TokenExpired => "token_expired",
            Self::InvalidRequest => "invalid_request",
            Self::BodyTooLarge => "body_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::AccountSuspended => "account_suspended",
            Self::SessionReplaced => "session_replaced",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFound => "not_found",
            Self::StreamNotLive => "stream_not_live",
            Self::ViewerBanned => "viewer_banned",
            Self::NotOwner => "not_owner",
            Self::UidTaken => "uid_taken",
            Self::PolicyDenied => "policy_denied",
            Self::TooManyStreams => "too_many_streams",
            Self::SessionTooLong => "session_too_long",
            Self::LoginUnverified | Self::Unavailable => "unavailable",
        }
    }

    /// Who has to act: nobody, the caller's account, the caller's program, or the operator.
    pub fn class(self) -> Class {
        match self {
            Self::Ok => Class::Ok,
            // Rows 5 to 9: what the account and the stream say, an account's 401 included.
            Self::AccountSuspended
            | Self::SessionReplaced
            | Self::StreamNotLive
            | Self::ViewerBanned
            | Self::NotOwner
            | Self::UidTaken
            | Self::PolicyDenied
            | Self::TooManyStreams
            | Self::SessionTooLong => Class::Denied,
            Self::RateLimitedClient
            | Self::Unauthenticated
            | Self::TokenExpired
            // Forged, as a rule: it must not look like a failure of ours.
            | Self::LoginUnverified
            | Self::InvalidRequest
            | Self::BodyTooLarge
            | Self::UnsupportedMediaType
            | Self::MethodNotAllowed
            | Self::NotFound => Class::Client,
            Self::RateLimitedShared | Self::Unavailable => Class::Failed,
        }
    }
}

/// Why a login was refused with 401: `reason` of `renewd_unauthenticated_total` and of the audit event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnauthenticatedReason {
    /// The request carries no login that may be used.
    Missing,
    /// Not a JSON Web Token, or one whose times aren't numbers.
    Malformed,
    /// No key verifies it.
    Signature,
    /// `alg` is not in `auth.jwt.algorithms`.
    Algorithm,
    /// `nbf` lies ahead.
    NotYetValid,
    /// `aud` is not `auth.jwt.audience`.
    Audience,
    /// `iss` is not `auth.jwt.issuer`.
    Issuer,
    /// `auth.jwt.subject_claim` is missing or unusable.
    Subject,
    /// The accounts source knows no such account, or refuses the login.
    Account,
    /// The account is signed in with another session.
    Session,
}

impl UnauthenticatedReason {
    /// Every reason, in order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Missing,
        Self::Malformed,
        Self::Signature,
        Self::Algorithm,
        Self::NotYetValid,
        Self::Audience,
        Self::Issuer,
        Self::Subject,
        Self::Account,
        Self::Session,
    ];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Algorithm => "algorithm",
            Self::NotYetValid => "not_yet_valid",
            Self::Audience => "audience",
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::Account => "account",
            Self::Session => "session",
        }
    }
}

/// `class` of `renewd_token_requests_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Served.
    Ok,
    /// The rules say no.
    Denied,
    /// The request is wrong.
    Client,
    /// We are wrong, or out of capacity.
    Failed,
}

impl Class {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Client => "client",
            Self::Failed => "failed",
        }
    }
}

/// Which rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The JWT's subject.
    Subject,
    /// The client address, IPv6 as /64.
    Address,
    /// The channel.
    Channel,
    /// Everybody.
    Global,
}

impl Scope {
    /// Every scope, in order of declaration.
    pub(crate) const ALL: [Self; 4] = [Self::Subject, Self::Address, Self::Channel, Self::Global];

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Address => "address",
            Self::Channel => "channel",
            Self::Global => "global",
        }
    }
}

/// Why a token wasn't renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LapseCause {
    /// Its holder asked, and was told no.
    Refused,
    /// Nobody asked.
    Silent,
}

impl LapseCause {
    /// Every cause, in order of declaration.
    pub(crate) const ALL: [Self; 2] = [Self::Refused, Self::Silent];

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Silent => "silent",
        }
    }
}

/// How a source answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LookupOutcome {
    /// From memory.
    Hit,
    /// From the source itself.
    Miss,
    /// The source gave no answer; an older one stood in.
    Stale,
    /// The source gave no answer, and nothing stood in.
    Error,
}

impl LookupOutcome {
    /// Every outcome, in order of declaration.
    pub(crate) const ALL: [Self; 4] = [Self::Hit, Self::Miss, Self::Stale, Self::Error];

    /// The label's value.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Error => "error",
        }
    }
}
