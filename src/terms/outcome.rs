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
        /// Row 1 and 4, by scope: the address or the subject asked too often.
        RateLimitedClient => "rate_limited",
        /// Row 4: the channel or the whole service is asked too often.
        RateLimitedShared => "rate_limited",
        /// 401.
        Unauthenticated => "unauthenticated",
        /// 401.
        TokenExpired => "token_expired",
        /// 503: no key that is known verifies the login, and the key set, which may have a new one, can't be read again now.
        LoginUnverified => "unavailable",
        /// 400.
        InvalidRequest => "invalid_request",
        /// 413.
        BodyTooLarge => "body_too_large",
        /// 415.
        UnsupportedMediaType => "unsupported_media_type",
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
        /// Not a JSON Web Token, or one whose times aren't numbers.
        Malformed => "malformed",
        /// No key verifies it.
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
        /// The rules say no.
        Denied => "denied",
        /// The request is wrong.
        Client => "client",
        /// We are wrong, or out of capacity.
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
        /// Everybody.
        Global => "global",
    }

    /// Why a token wasn't renewed.
    pub enum LapseCause {
        /// Its holder asked, and was told no.
        Refused => "refused",
        /// Nobody asked.
        Silent => "silent",
    }

    /// How a source answered.
    pub enum LookupOutcome {
        /// From memory.
        Hit => "hit",
        /// From the source itself.
        Miss => "miss",
        /// The source gave no answer; an older one stood in.
        Stale => "stale",
        /// The source gave no answer, and nothing stood in.
        Error => "error",
    }
}

impl Outcome {
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
            | Self::UnsupportedMediaType => Class::Client,
            Self::RateLimitedShared | Self::Unavailable => Class::Failed,
        }
    }
}
