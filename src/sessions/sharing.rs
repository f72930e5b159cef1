//! The table as one of several that replicas keep alike: which sessions the others haven't been told of, and what the
//! others tell.
//!
//! Keeps true: merging takes two states of a session to the same third, in either order and however often: the later
//! expiry wins, and a source's no stands against every yes that isn't later. No lock is held over more than one shard.
//! Must not know: where the replicas meet, how a session is written.

use std::sync::atomic::Ordering;

use super::session::{Marks, Session};
use super::shards::SHARDS;
use super::subject::{SubjectSessions, USERS_PER_SUBJECT};
use super::{
    GRACE, Ground, Grounds, SeatRequest, SessionIdentity, Sessions, StoredSession, seconds,
};

/// The state of a session here, after another replica's was merged into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MergedState {
    /// The session is as the other replica told it.
    AsTold,
    /// The session has more in it than the other replica told: the others are to be told.
    News,
    /// `sessions.max`, or the number of users that a subject may hold, leaves no room.
    NoRoom,
}

impl StoredSession {
    /// The state that follows from two states of one session.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        let order = |session: &Self| (session.last_expiry(), session.refreshes);
        let (first, later) = if order(self) <= order(other) {
            (self, other)
        } else {
            (other, self)
        };
        let alike = order(first) == order(later);
        // After its end and some time, a session that is granted again is another one.
        if !alike && first.last_expiry().saturating_add(GRACE) <= later.first_issued {
            return later.clone();
        }
        let (before, decided) = if first.settled <= later.settled {
            (first, later)
        } else {
            (later, first)
        };
        let at_once = before.settled == decided.settled;
        Self {
            identity: later.identity.clone(),
            role: if alike {
                first.role.min(later.role)
            } else {
                later.role
            },
            first_issued: first.first_issued.min(later.first_issued),
            expires: std::array::from_fn(|role| first.expires[role].max(later.expires[role])),
            refreshes: first.refreshes.max(later.refreshes),
            refused: later.refused || alike && first.refused,
            ended: later.ended || alike && first.ended,
            // Where both say no, each may have said it of another source.
            lacks: if decided.lacks != Grounds::NONE || at_once {
                before.lacks.and(decided.lacks)
            } else {
                Grounds::NONE
            },
            login: match (at_once, alike) {
                (false, _) => decided.login,
                (true, false) => later.login,
                (true, true) => first.login.max(later.login),
            },
            settled: decided.settled,
            account_refused: false,
        }
    }
}

impl Sessions {
    /// Marks every session as one that the other replicas haven't been told of.
    pub(crate) fn share_all(&self) {
        for position in 0..SHARDS {
            let mut shard = self.table.lock_at(position);
            for session in shard.values_mut().flat_map(|held| &mut held.sessions) {
                session.marks.set(Marks::UNSHARED, true);
                self.note_marks(position, Marks::UNSHARED.0);
            }
        }
    }

    /// Sessions that the other replicas haven't been told of as they are, from a position in the table on, to which
    /// this adds. Stops at the end of a shard, when there are `most` or more, or when it has been round once.
    pub(crate) fn take_unshared(&self, from: &mut usize, most: usize) -> Vec<StoredSession> {
        let mut taken = Vec::new();
        for _ in 0..SHARDS {
            if taken.len() >= most {
                break;
            }
            let position = *from % SHARDS;
            *from = position + 1;
            let flags = &self.changed[position];
            if flags.load(Ordering::Relaxed) & Marks::UNSHARED.0 == 0 {
                continue;
            }
            let mut shard = self.table.lock_at(position);
            flags.fetch_and(!Marks::UNSHARED.0, Ordering::Relaxed);
            for held in shard.values_mut() {
                for index in 0..held.sessions.len() {
                    if held.sessions[index].marks.take(Marks::UNSHARED) {
                        taken.push(StoredSession::of(held, &held.sessions[index]));
                    }
                }
            }
        }
        taken
    }

    /// Takes what another replica says of a session.
    pub(crate) fn merge(&self, told: &StoredSession, now: u64) -> MergedState {
        let now = seconds(now);
        let SessionIdentity {
            channel, subject, ..
        } = &told.identity;
        let Merged {
            state,
            session,
            login_is_new,
            newly_lacks,
            dropped,
        } = self.change(channel, subject, |held| {
            let has_room = !self.is_full();
            held.merge(told, has_room, now)
        });
        if let Some(gone) = dropped {
            self.unlink(channel, subject, &gone.user, gone.published());
            let identity = || SessionIdentity::new(channel, subject, &gone.user);
            self.forgotten.add(gone.last_expiry(), identity);
        }
        if let Some(session) = session {
            self.link(told, &session, now);
        }
        if let (true, Some(login)) = (login_is_new, told.login) {
            self.lists.settle(subject, login);
        }
        if newly_lacks {
            self.lists.refuse(channel, subject);
        }
        state
    }

    /// Another replica took a session away that would have expired at `until`. Gives whether it stays, because it was
    /// granted again since: the others are to be told.
    pub(crate) fn strike(&self, identity: &SessionIdentity, until: u32) -> bool {
        let SessionIdentity {
            channel,
            subject,
            user,
        } = identity;
        let gone = self.change(channel, subject, |held| {
            let index = held.position(user)?;
            let session = &mut held.sessions[index];
            if session.last_expiry() > until {
                session.marks.set(Marks::UNSHARED, true);
                return Some(None);
            }
            Some(held.remove(user))
        });
        match gone {
            Some(Some(gone)) => {
                self.unlink(channel, subject, user, gone.published());
                self.struck_elsewhere(until, identity);
                false
            }
            Some(None) => true,
            None => false,
        }
    }

    /// Lets what leads to a session lead to this one. Where two subjects hold one user, because their replicas didn't
    /// know of each other, a publisher takes it as ever, and else whose token lives longest keeps it.
    fn link(&self, told: &StoredSession, session: &Session, now: u32) {
        let SessionIdentity {
            channel,
            subject,
            user,
        } = &told.identity;
        let key = self.key(channel, subject);
        if session.published() {
            let publisher = self.publisher(subject);
            self.publishing.lock(publisher).add(publisher, key);
        }
        let Some(bound_user) = self.user(channel, user) else {
            return;
        };
        let mut bound = self.bound.lock(bound_user);
        let holder = bound.of(bound_user).next().copied();
        let holder = holder.filter(|holder| *holder != key);
        let ahead = holder.and_then(|holder| self.outranks(holder, told, session, now));
        let loser = if let Some(Ahead { publishes }) = ahead {
            publishes.then_some(key)
        } else {
            bound.replace(bound_user, key);
            holder.filter(|_| session.publishes(now))
        };
        let claim = SeatRequest {
            channel,
            subject,
            user,
            role: session.role,
        };
        let taken = loser.and_then(|loser| self.take_from(loser, claim));
        drop(bound);
        if let Some((subject, gone)) = taken {
            self.unlink(channel, &subject, user, gone.published());
            let identity = || SessionIdentity::new(channel, &subject, user);
            self.forgotten.add(gone.last_expiry(), identity);
        }
    }

    /// The live session of a holder that stands before this one, if it does.
    fn outranks(
        &self,
        holder: u64,
        told: &StoredSession,
        session: &Session,
        now: u32,
    ) -> Option<Ahead> {
        let rank = |session: &Session| (session.publishes(now), session.last_expiry());
        let own = (rank(session), told.identity.subject.clone());
        let shard = self.table.lock(holder);
        let mut of_channel = shard
            .of(holder)
            .filter(|held| held.channel.is(&told.identity.channel));
        of_channel.find_map(|held| {
            let mut sessions = held.sessions.iter();
            let other = sessions.find(|other| other.user == session.user && other.is_live(now))?;
            let publishes = other.publishes(now);
            ((rank(other), held.subject.text()) > own).then_some(Ahead { publishes })
        })
    }
}

/// A session that stands before another one of the same user.
struct Ahead {
    publishes: bool,
}

/// The consequences of what another replica said.
struct Merged {
    state: MergedState,
    /// The session as it is now, if it is here.
    session: Option<Session>,
    login_is_new: bool,
    /// A source that lists rest on has said no.
    newly_lacks: bool,
    /// The session that had to go because its subject has too many.
    dropped: Option<Session>,
}

impl SubjectSessions {
    fn merge(&mut self, told: &StoredSession, has_room: bool, now: u32) -> Merged {
        let mut merged = Merged {
            state: MergedState::AsTold,
            session: None,
            login_is_new: told.login.is_some(),
            newly_lacks: lists_lack(told.lacks),
            dropped: None,
        };
        let Some(index) = self.position(&told.identity.user) else {
            let end = (told.last_expiry(), &told.identity.user);
            let is_least = self.sessions.len() >= USERS_PER_SUBJECT
                && self.sessions.iter().all(|session| session.end() > end);
            if !has_room || is_least {
                merged.state = MergedState::NoRoom;
                return merged;
            }
            merged.dropped = self.make_room();
            let mut session = told.session(now);
            session.marks = Marks(Marks::UNWRITTEN.0 | Marks::ELSEWHERE.0);
            merged.session = Some(session.clone());
            self.push(session);
            return merged;
        };
        let here = StoredSession::of(self, &self.sessions[index]);
        let both = here.merged(told);
        let session = &mut self.sessions[index];
        let is_news = both != *told;
        if both == here {
            (merged.login_is_new, merged.newly_lacks) = (false, false);
        } else {
            merged.login_is_new &= both.login != here.login;
            merged.newly_lacks &= lists_lack(both.lacks) && !lists_lack(here.lacks);
            let mut marks = session.marks;
            marks.set(Marks::UNWRITTEN, true);
            if both.last_expiry() > here.last_expiry() {
                marks.set(Marks::ELSEWHERE, true);
            }
            *session = both.session(now);
            session.marks = marks;
        }
        session.marks.set(Marks::UNSHARED, is_news);
        if is_news {
            merged.state = MergedState::News;
        }
        merged.session = Some(session.clone());
        merged
    }
}

fn lists_lack(lacks: Grounds) -> bool {
    lacks.contains(Ground::Stream) || lacks.contains(Ground::Hook)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::logins::remembered::Login;
    use crate::sessions::{Basis, ClaimRefused, Rules, SessionUser};
    use crate::terms::role::Role;

    const RULES: Rules = Rules {
        bind_uid: true,
        max_streams_per_publisher: 1,
        max_session: Duration::ZERO,
        claimed: false,
    };

    const SEVEN: SessionUser = SessionUser::Uid(7);

    fn seat(channel: &'static str, subject: &'static str, role: Role) -> SeatRequest<'static> {
        SeatRequest {
            channel,
            subject,
            user: &SEVEN,
            role,
        }
    }

    fn login(number: u64) -> Option<Login> {
        NonZeroU64::new(number).map(Login)
    }

    fn grant(sessions: &Sessions, seat: SeatRequest<'_>, time: std::ops::Range<u64>) {
        let basis = Basis::Decided { login: login(1) };
        let granted = sessions.grant(seat, basis, RULES, time.start, time.end);
        granted.unwrap();
    }

    /// Tells one table all that another has changed, and what it took away.
    fn tell(from: &Sessions, to: &Sessions, now: u64) -> Vec<MergedState> {
        for struck in from.take_struck() {
            to.strike(&struck.identity, struck.until);
        }
        let told = from.take_unshared(&mut 0, usize::MAX);
        told.iter().map(|told| to.merge(told, now)).collect()
    }

    fn states() -> impl Strategy<Value = StoredSession> {
        let small = || 0..4_u32;
        let marks = any::<(bool, bool, bool)>();
        (
            small(),
            [small(), small()],
            0..3_u16,
            marks,
            0..8_u8,
            0..3_u64,
            small(),
        )
            .prop_map(
                |(
                    first,
                    expires,
                    refreshes,
                    (publisher, refused, ended),
                    lacks,
                    number,
                    settled,
                )| {
                    StoredSession {
                        identity: SessionIdentity {
                            channel: "show".to_owned(),
                            subject: "ann".to_owned(),
                            user: SEVEN,
                        },
                        role: if publisher {
                            Role::Publisher
                        } else {
                            Role::Subscriber
                        },
                        first_issued: 100 + first,
                        expires: expires.map(|expires| 200 + expires * 100),
                        refreshes,
                        refused,
                        ended,
                        lacks: Grounds::from_bits(lacks),
                        login: login(number),
                        settled: 100 + settled,
                        account_refused: false,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn merging_has_no_order_and_no_count(one in states(), other in states()) {
            let both = one.merged(&other);
            prop_assert_eq!(&both, &other.merged(&one));
            prop_assert_eq!(&one.merged(&one), &one);
            prop_assert_eq!(&both.merged(&one), &both);
            prop_assert_eq!(&both.merged(&other), &both);
            prop_assert_eq!(both.last_expiry(), one.last_expiry().max(other.last_expiry()));
            // A no stands unless a later yes is known.
            for (no, yes) in [(&one, &other), (&other, &one)] {
                if no.lacks != Grounds::NONE && no.settled >= yes.settled {
                    prop_assert_eq!(both.lacks.and(no.lacks), both.lacks);
                }
                if no.settled < yes.settled && yes.lacks == Grounds::NONE {
                    prop_assert_eq!(both.lacks, Grounds::NONE);
                }
            }
        }
    }

    #[test]
    fn a_holder_here_is_a_holder_there_with_user_and_stream() {
        let (here, there) = (Sessions::new(10), Sessions::new(10));
        here.share();
        grant(&here, seat("show", "ann", Role::Publisher), 100..200);
        assert_eq!(tell(&here, &there, 100), [MergedState::AsTold]);
        assert!(tell(&here, &there, 100).is_empty());
        assert!(tell(&there, &here, 100).is_empty());
        assert_eq!(there.held("show", "ann", None, 150), Some(Role::Publisher));
        assert_eq!(there.count(Role::Publisher), 1);
        let other = seat("show", "bob", Role::Subscriber);
        assert_eq!(there.check(other, RULES, 150), Err(ClaimRefused::UidTaken));
        let second = seat("another", "ann", Role::Publisher);
        assert_eq!(
            there.check(second, RULES, 150),
            Err(ClaimRefused::TooManyStreams)
        );
        // The end of a stream is told too.
        here.ended("ann", "show");
        tell(&here, &there, 150);
        assert!(there.check(second, RULES, 150).is_ok());
        // A lapse is counted where the last token was granted, while nobody else can be asked.
        let lapsed = |sessions: &Sessions| -> Vec<bool> {
            let sweeps = (0..crate::sessions::SWEEPS).flat_map(|turn| sessions.sweep(turn, 400));
            sweeps.map(|lapse| lapse.granted_here).collect()
        };
        grant(&there, seat("show", "ann", Role::Publisher), 160..260);
        tell(&there, &here, 160);
        assert_eq!((lapsed(&here), lapsed(&there)), (vec![false], vec![true]));
    }

    #[test]
    fn what_was_taken_away_here_goes_there_unless_it_was_granted_again() {
        let (here, there) = (Sessions::new(10), Sessions::new(10));
        here.share();
        grant(&here, seat("show", "ann", Role::Subscriber), 100..200);
        tell(&here, &there, 100);
        grant(&here, seat("show", "owner", Role::Publisher), 110..210);
        tell(&here, &there, 110);
        for sessions in [&here, &there] {
            assert_eq!(sessions.held("show", "ann", None, 150), None);
            assert_eq!(
                sessions.held("show", "owner", None, 150),
                Some(Role::Publisher)
            );
        }
        let ann = SessionIdentity::new("show", "ann", &SEVEN);
        assert!(!there.strike(&ann, 200));
        grant(&there, seat("show", "owner", Role::Publisher), 120..220);
        let owner = SessionIdentity::new("show", "owner", &SEVEN);
        assert!(there.strike(&owner, 210));
        assert_eq!(
            there.held("show", "owner", None, 150),
            Some(Role::Publisher)
        );
        assert!(!there.strike(&owner, 220));
        assert_eq!(there.held("show", "owner", None, 150), None);
    }

    #[test]
    fn who_holds_a_user_that_two_were_given_is_the_same_on_both() {
        for (role, held) in [
            // A publisher takes a viewer's user, whatever lasts longer.
            (Role::Publisher, [false, true]),
            (Role::Subscriber, [true, true]),
        ] {
            let (here, there) = (Sessions::new(10), Sessions::new(10));
            here.share();
            there.share();
            grant(&here, seat("show", "ann", Role::Subscriber), 100..300);
            grant(&there, seat("show", "bob", role), 110..200);
            tell(&here, &there, 120);
            for (from, to) in [(&there, &here), (&here, &there), (&there, &here)] {
                tell(from, to, 120);
            }
            for sessions in [&here, &there] {
                let found = ["ann", "bob"]
                    .map(|subject| sessions.held("show", subject, None, 150).is_some());
                assert_eq!(found, held);
                let refused = ["ann", "bob"].map(|subject| {
                    let seat = seat("show", subject, Role::Subscriber);
                    sessions.check(seat, RULES, 150).is_err()
                });
                let publishes = role == Role::Publisher;
                assert_eq!(refused, [publishes, !publishes]);
            }
        }
    }

    #[test]
    fn a_no_there_stands_here_until_a_later_yes() {
        let (here, there) = (Sessions::new(10), Sessions::new(10));
        grant(&here, seat("show", "ann", Role::Subscriber), 100..200);
        tell(&here, &there, 100);
        let refused = |sessions: &Sessions, now| {
            sessions.is_refused("show", "ann", Role::Subscriber, Ground::Stream, now)
        };
        there.denied("show", "ann", Ground::Stream, None, 120);
        // A yes that was given before, and not told until now.
        grant(&here, seat("show", "ann", Role::Subscriber), 110..210);
        assert_eq!(tell(&there, &here, 120), [MergedState::News]);
        assert_eq!(tell(&here, &there, 120), [MergedState::AsTold]);
        for sessions in [&here, &there] {
            assert!(refused(sessions, 205));
        }
        grant(&here, seat("show", "ann", Role::Subscriber), 130..230);
        tell(&here, &there, 130);
        assert!(!refused(&here, 140) && !refused(&there, 140));
    }

    #[test]
    fn there_is_room_for_what_the_bounds_allow() {
        let (here, there) = (Sessions::new(100), Sessions::new(9));
        let users: Vec<_> = (1..=20).map(SessionUser::Uid).collect();
        for (number, user) in (0..).zip(&users) {
            let subject = if number < 10 { "ann" } else { "bob" };
            let claim = SeatRequest {
                user,
                ..seat("show", subject, Role::Subscriber)
            };
            grant(&here, claim, 100 + number..200 + number);
        }
        let mut told = here.take_unshared(&mut 0, usize::MAX);
        assert_eq!(told.len(), 16);
        told.sort_by_key(StoredSession::last_expiry);
        let full = told.iter().map(|told| there.merge(told, 120));
        let full = full.filter(|state| *state == MergedState::NoRoom).count();
        assert_eq!(full, 16 - 9);
        // An older one doesn't take the place of a subject's eight.
        let mut older = told[0].clone();
        older.identity.user = SessionUser::Uid(99);
        let roomy = Sessions::new(100);
        for told in &told {
            roomy.merge(told, 120);
        }
        older.expires = [150, 0];
        assert_eq!(roomy.merge(&older, 120), MergedState::NoRoom);
        older.expires = [250, 0];
        assert_eq!(roomy.merge(&older, 120), MergedState::AsTold);
        assert_eq!(
            roomy.count(Role::Subscriber) + roomy.count(Role::Publisher),
            16
        );
        assert!(roomy.take_unshared(&mut 0, usize::MAX).is_empty());
        roomy.share_all();
        let mut from = 0;
        let first = roomy.take_unshared(&mut from, 1);
        assert!(!first.is_empty());
        let rest = roomy.take_unshared(&mut from, usize::MAX);
        assert_eq!(first.len() + rest.len(), 16);
    }
}
