//! The sessions of one subject in one channel.
//!
//! Keeps true: a subject has at most [`USERS_PER_SUBJECT`] sessions in a channel.
//! Must not know: other subjects, locks, which user is bound to whom.

use std::time::Duration;

use super::packed::Packed;
use super::session::{Marks, Session};
use super::{Allowed, Basis, ClaimRefused, Ground, Grounds, SeatRequest, SessionUser};
use crate::logins::remembered::Login;
use crate::terms::role::Role;

/// Users (uids, accounts) one subject may hold in one channel. A person has a few devices; without a bound one login
/// could take every uid of a channel and lock its viewers out.
pub(super) const USERS_PER_SUBJECT: usize = 8;

/// The shortest token worth having; less than that is not left of a session.
const SHORTEST: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Debug)]
pub(super) struct SubjectSessions {
    pub(super) channel: Packed,
    pub(super) subject: Packed,
    pub(super) sessions: Vec<Session>,
}

/// The sessions that recording a grant renamed or ended.
#[derive(Debug, Default)]
pub(super) struct Displaced {
    /// A uid-0 session, which expires then, goes by its real uid from now on.
    pub(super) renamed: Option<u32>,
    /// The session that had to go because its subject has too many.
    pub(super) dropped: Option<Session>,
}

/// Whether a session that began at `first_issued` may go on, and how long.
pub(super) fn length_left(
    first_issued: Option<u32>,
    max_session: Duration,
    now: u32,
) -> Result<Allowed, ClaimRefused> {
    if max_session.is_zero() {
        return Ok(Allowed { at_most: None });
    }
    let lasted = now.saturating_sub(first_issued.unwrap_or(now));
    let left = max_session.saturating_sub(Duration::from_secs(lasted.into()));
    if left < SHORTEST {
        return Err(ClaimRefused::SessionTooLong);
    }
    Ok(Allowed {
        at_most: Some(left),
    })
}

impl SubjectSessions {
    pub(super) fn new(channel: &str, subject: &str) -> Self {
        Self {
            channel: Packed::new(channel),
            subject: Packed::new(subject),
            sessions: Vec::new(),
        }
    }

    pub(super) fn is(&self, channel: &str, subject: &str) -> bool {
        self.channel.is(channel) && self.subject.is(subject)
    }

    /// Sessions, and live ones of each role, in the order of [`Role::ALL`].
    pub(super) fn tally(&self) -> (usize, [usize; 2]) {
        let live = Role::ALL.map(|role| {
            let of_role = |session: &&Session| session.counted && session.role == role;
            self.sessions.iter().filter(of_role).count()
        });
        (self.sessions.len(), live)
    }

    pub(super) fn position(&self, user: &SessionUser) -> Option<usize> {
        self.sessions
            .iter()
            .position(|session| session.user == *user)
    }

    /// The session that a grant for this user renews. Clients join with uid 0 and renew with the uid that the SDK
    /// assigned: that is the uid-0 session under its real name.
    fn renewed(&self, user: &SessionUser) -> Option<usize> {
        self.position(user).or_else(|| match user {
            SessionUser::Uid(_) => self.position(&SessionUser::Uid(0)),
            SessionUser::Account(_) => None,
        })
    }

    /// Whether recording a claim to this user changes a session rather than adding one.
    pub(super) fn knows(&self, user: &SessionUser) -> bool {
        self.renewed(user).is_some()
    }

    /// When the oldest of the sessions that aren't over began.
    pub(super) fn first_issued(&self, now: u32) -> Option<u32> {
        let sessions = self.sessions.iter();
        sessions
            .filter(|session| !session.is_over(now))
            .map(|session| session.first_issued)
            .min()
    }

    /// Records a claim that passed.
    pub(super) fn record(
        &mut self,
        claim: SeatRequest<'_>,
        basis: Basis,
        now: u32,
        expires: u32,
    ) -> Displaced {
        let first_issued = self.first_issued(now).unwrap_or(now);
        let login = self.settle(basis, now);
        if let Some(known) = self.renewed(claim.user) {
            let session = &mut self.sessions[known];
            let renamed = (session.user != *claim.user).then(|| session.last_expiry());
            session.renew(claim, first_issued, now, expires);
            if let Basis::Decided { .. } | Basis::Rested { .. } = basis {
                session.lacks = Grounds::NONE;
                session.login = login;
            }
            if let Basis::Decided { .. } = basis {
                session.settled = now;
            }
            return Displaced {
                renamed,
                dropped: None,
            };
        }
        let lacks = match basis {
            Basis::Decided { .. } | Basis::Rested { .. } => Grounds::NONE,
            Basis::HandedOn { lacks, .. } => {
                let others = self.sessions.iter().map(|session| session.lacks);
                others.fold(lacks, Grounds::and)
            }
        };
        let dropped = self.make_room();
        let mut session = Session {
            user: claim.user.clone(),
            login,
            first_issued,
            expires: [0; 2],
            refreshes: 0,
            role: claim.role,
            refused: false,
            ended: false,
            lacks,
            counted: true,
            settled: now,
            marks: Marks::CHANGED,
        };
        session.expires[claim.role.index()] = expires;
        self.push(session);
        Displaced {
            renamed: None,
            dropped,
        }
    }

    /// Makes the login of a grant the latest of all the sessions here: another login of the subject may be that of a
    /// device that was stolen. A login that no source vouched for may be one too, so it becomes the latest only where
    /// the subject held nothing. Gives the login that the granted session is of.
    fn settle(&mut self, basis: Basis, now: u32) -> Option<Login> {
        let (Basis::Decided { login } | Basis::Rested { login } | Basis::HandedOn { login, .. }) =
            basis;
        let stays = match basis {
            Basis::Decided { .. } | Basis::Rested { .. } => false,
            Basis::HandedOn { vouched, .. } => {
                login.is_none() || (!vouched && !self.sessions.is_empty())
            }
        };
        if stays {
            return self.sessions.iter().find_map(|session| session.login);
        }
        let login = login?;
        let rests = matches!(basis, Basis::Rested { .. });
        for session in &mut self.sessions {
            if session.login != Some(login) {
                session.login = Some(login);
                session.note(true);
                if !rests {
                    session.settled = now;
                }
            }
        }
        Some(login)
    }

    /// Takes the session out that ends soonest, if there are as many as there may be.
    pub(super) fn make_room(&mut self) -> Option<Session> {
        if self.sessions.len() < USERS_PER_SUBJECT {
            return None;
        }
        let sessions = self.sessions.iter().enumerate();
        let (soonest, _) = sessions.min_by(|(_, one), (_, other)| one.end().cmp(&other.end()))?;
        Some(self.sessions.swap_remove(soonest))
    }

    /// Adds a session without room for others: nearly every subject has one.
    pub(super) fn push(&mut self, session: Session) {
        self.sessions.reserve_exact(1);
        self.sessions.push(session);
    }

    /// Takes a user's session out.
    pub(super) fn remove(&mut self, user: &SessionUser) -> Option<Session> {
        let index = self.position(user)?;
        Some(self.sessions.swap_remove(index))
    }

    /// A renewal was refused: of this user's session, or, where there is none, of every session here.
    pub(super) fn refuse(&mut self, user: &SessionUser) {
        let refused = match self.renewed(user) {
            Some(index) => &mut self.sessions[index..=index],
            None => &mut self.sessions,
        };
        for session in refused {
            session.note(!session.refused);
            session.refused = true;
        }
    }

    /// A source said no to the subject, in this role or in any.
    pub(super) fn deny(&mut self, ground: Ground, role: Option<Role>, now: u32) {
        for session in &mut self.sessions {
            if role.is_none_or(|role| session.expires[role.index()] > now) {
                session.note(!session.lacks.contains(ground));
                session.lacks = session.lacks.and(Grounds::of(ground));
                session.settled = now;
            }
        }
    }

    /// The subject's stream in the channel is over.
    pub(super) fn end(&mut self) {
        for session in &mut self.sessions {
            session.note(!session.ended);
            session.ended = true;
        }
    }

    /// Counts no more what has expired, and takes out each session that was not renewed for [`super::GRACE`] after
    /// that. The mark says whether its end is a lapse where its stream is live: it is none where the stream has
    /// ended, or where the subject goes on in the same role under another user, on another device.
    pub(super) fn sweep(&mut self, now: u32) -> impl Iterator<Item = (Session, bool)> {
        let mut goes_on = [false; 2];
        for session in &mut self.sessions {
            session.counted &= session.is_live(now);
            for (goes_on, expires) in goes_on.iter_mut().zip(session.expires) {
                *goes_on |= expires > now;
            }
        }
        let over = self
            .sessions
            .extract_if(.., move |session| session.is_over(now));
        over.map(move |session| {
            let lapsed = !session.ended && !goes_on[session.role.index()];
            (session, lapsed)
        })
    }
}
