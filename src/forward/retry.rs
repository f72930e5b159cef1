//! Which failed attempts may be made again: the whole policy as one pure function.
//!
//! Keeps true: a request that the backend may have seen is repeated only if repeating it changes nothing.
//! Must not know: connections, servers, errors.

use http::Method;

use crate::terms::proxy_error::AnotherAttempt;

/// How far a failed attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptProgress {
    /// No connection: refused, unreachable, too slow.
    NotConnected,
    /// Connected, and not a byte of the request was written.
    NotWritten,
    /// Bytes were written, and not a byte of a response was read.
    NoResponse,
    /// A response had begun.
    Responding,
}

/// The facts of a request that decide whether it may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The request has no body.
    pub bodyless: bool,
    /// Repeating the request changes nothing (RFC 9110 §9.2.2).
    pub idempotent: bool,
}

impl Candidate {
    /// From a request's method and whether it has a body.
    pub(crate) fn new(method: &Method, bodyless: bool) -> Self {
        Self {
            bodyless,
            idempotent: method.is_idempotent(),
        }
    }

    /// Whether repeating it does no harm after it was written and before a byte of a response came.
    pub(crate) fn is_harmless(self) -> bool {
        self.bodyless && self.idempotent
    }
}

/// Whether an attempt that came this far may be repeated, for [`crate::terms::proxy_error::ProxyError::retry`].
pub(crate) fn allowed(progress: AttemptProgress) -> AnotherAttempt {
    match progress {
        AttemptProgress::NotConnected | AttemptProgress::NotWritten => AnotherAttempt::Always,
        AttemptProgress::NoResponse => AnotherAttempt::IfHarmless,
        AttemptProgress::Responding => AnotherAttempt::Never,
    }
}

/// The attempts that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// The attempt was on a connection that had served a request before: a new one may do better.
    pub reused: bool,
    /// There is a server that the request wasn't tried on.
    pub others: bool,
    /// `upstream.try_duration` isn't over.
    pub time: bool,
}

/// Where a failed request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextAttempt {
    /// The request fails.
    Nowhere,
    /// To the same server, on a new connection.
    NewConnection,
    /// To a server that it wasn't tried on.
    OtherServer,
    /// To any server, after a pause.
    Later,
}

/// Where a failed request goes.
///
/// A request that the backend may have read is made once more at most, on a new connection, unless
/// `upstream.try_duration` runs: a backend that goes down accepts connections that it never reads from, and renewd
/// can't tell them from those that it read from.
pub(crate) fn next(retry: AnotherAttempt, candidate: Candidate, left: Left) -> NextAttempt {
    let harmless = candidate.is_harmless();
    match retry {
        AnotherAttempt::Always if left.reused => NextAttempt::NewConnection,
        AnotherAttempt::IfHarmless if harmless && left.reused => NextAttempt::NewConnection,
        // A second new connection would do no better than the one on which nothing could be written.
        AnotherAttempt::Always if left.others => NextAttempt::OtherServer,
        AnotherAttempt::Always if left.time => NextAttempt::Later,
        AnotherAttempt::IfHarmless if harmless && left.time && left.others => {
            NextAttempt::OtherServer
        }
        AnotherAttempt::IfHarmless if harmless && left.time => NextAttempt::Later,
        AnotherAttempt::Never | AnotherAttempt::IfHarmless | AnotherAttempt::Always => {
            NextAttempt::Nowhere
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases; the file's head says how to read it.
    const TABLE: &str = include_str!("retry_table.txt");

    #[test]
    fn only_what_the_backend_cannot_have_acted_on_is_repeated() {
        let mut cases = 0;
        for line in TABLE
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [progress, method, body, connection, expected @ ..] = &columns[..] else {
                panic!("{line}");
            };
            let candidate = Candidate::new(&method.parse().unwrap(), is(body, "bodyless", "body"));
            let reused = is(connection, "reused", "new");
            let left = [(true, true), (false, true), (true, false), (false, false)];
            let found = left.map(|(others, time)| {
                let left = Left {
                    reused,
                    others,
                    time,
                };
                format!(
                    "{:?}",
                    next(allowed(progress_of(progress)), candidate, left)
                )
            });
            assert_eq!(found, expected, "{line}");
            cases += 1;
        }
        assert_eq!(cases, 25);
    }

    fn is(word: &str, yes: &str, no: &str) -> bool {
        assert!(word == yes || word == no, "{word}");
        word == yes
    }

    fn progress_of(name: &str) -> AttemptProgress {
        use AttemptProgress::{NoResponse, NotConnected, NotWritten, Responding};
        let all = [NotConnected, NotWritten, NoResponse, Responding];
        let mut named = all
            .into_iter()
            .filter(|progress| format!("{progress:?}") == name);
        named.next().expect(name)
    }
}
