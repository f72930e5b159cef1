//! How token requests, lookups and sessions end. Metrics and audit events count under the same names, which are the
//! contract's: never change one.
//!
//! Must not know: what counts them.

use super::labels::labels;

labels! {
    /// How a token request ended: `ok`, or the `code` of its JSON error.
    pub enum Outcome {
        /// A token was minted.
        Ok => "ok",
        /// 429 for the limit of an address (row 1) or of a subject (row 4).
        RateLimitedClient => "rate_limited",
        /// 429 for the limit of a channel or of the whole service (row 4).
        RateLimitedShared => "rate_limited",
        /// 401.
        Unauthenticated => "unauthenticated",
        /// 401.
        TokenExpired => "token_expired",
        /// 503: no known key verifies the login, and the key set, which may hold a new key, can't be read again now.
        LoginUnverified => "unavailable",
        /// 400.
        InvalidRequest => "invalid_request",
        /// 413.
        BodyTooLarge => "body_too_large",
        /// 415.
        UnsupportedMediaType => "unsupported_media_type",
        /// 403: an operator has revoked the subject, the channel or the user (row 5).
        Revoked => "revoked",
        /// 403.
        AccountSuspended => "account_suspended",
        /// 401: the account is signed in elsewhere.
        SessionReplaced => "session_replaced",
        /// 404.
        StreamNotLive => "stream_not_live",
        /// 403.
        ViewerBanned => "viewer_banned",
        /// 403.
        NotOwner => "not_owner",
        /// 409.
        UidTaken => "uid_taken",
        /// 403.
        PolicyDenied => "policy_denied",
        /// 403.
        TooManyStreams => "too_many_streams",
        /// 403.
        SessionTooLong => "session_too_long",
        /// 503.
        Unavailable => "unavailable",
    }

    /// Why a login was refused with 401: `reason` of `renewd_unauthenticated_total` and of the audit event.
    pub enum UnauthenticatedReason {
        /// The request carries no login that may be used.
        Missing => "missing",
        /// The login is no JSON Web Token, or its times aren't numbers.
        Malformed => "malformed",
        /// No key verifies the signature.
        Signature => "signature",
        /// `alg` is not in `auth.jwt.algorithms`.
        Algorithm => "algorithm",
        /// `nbf` lies ahead.
        NotYetValid => "not_yet_valid",
        /// `aud` is not `auth.jwt.audience`.
        Audience => "audience",
        /// `iss` is not `auth.jwt.issuer`.
        Issuer => "issuer",
        /// `auth.jwt.subject_claim` is missing or unusable.
        Subject => "subject",
        /// The accounts source knows no such account, or refuses the login.
        Account => "account",
        /// The account is signed in with another session.
        Session => "session",
    }

    /// `class` of `renewd_token_requests_total`.
    pub enum Class {
        /// Served.
        Ok => "ok",
        /// The rules refuse it.
        Denied => "denied",
        /// The request is wrong.
        Client => "client",
        /// The service has failed, or is out of capacity.
        Failed => "failed",
    }

    /// Which rate limit.
    pub enum Scope {
        /// The JWT's subject.
        Subject => "subject",
        /// The client address, IPv6 as /64.
        Address => "address",
        /// The channel.
        Channel => "channel",
        /// All requests together.
        Global => "global",
    }

    /// Why a token wasn't renewed.
    pub enum LapseCause {
        /// The holder asked for another and was refused.
        Refused => "refused",
        /// The holder didn't ask for another.
        Silent => "silent",
    }

    /// How a source answered.
    pub enum LookupOutcome {
        /// The answer came from memory.
        Hit => "hit",
        /// The answer came from the source.
        Miss => "miss",
        /// The source gave no answer; an older answer was used.
        Stale => "stale",
        /// The source gave no answer, and there was no older one.
        Error => "error",
    }
}

impl Outcome {
    /// The class of the outcome, which tells what has to change: nothing, the account or its stream, the client
    /// program, or the service.
    pub fn class(self) -> Class {
        match self {
            Self::Ok => Class::Ok,
            // Rows 5 to 9 of the decision: what the account and the stream say. An account's 401 belongs here too.
            Self::Revoked
            | Self::AccountSuspended
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
            // Most such logins are forged, so they must not count as a failure of the service.
            | Self::LoginUnverified
            | Self::InvalidRequest
            | Self::BodyTooLarge
            | Self::UnsupportedMediaType => Class::Client,
            Self::RateLimitedShared | Self::Unavailable => Class::Failed,
        }
    }
}
