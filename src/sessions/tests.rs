//! The table of sessions, case by case: holders, users, streams, lapses, pages, restarts.

use std::num::NonZeroU64;
use std::ops::Range;
use std::time::Duration;

use super::subject::USERS_PER_SUBJECT;
use super::*;
use crate::logins::remembered::Login;
use crate::terms::outcome::LapseCause;

const RULES: Rules = Rules {
    bind_uid: true,
    max_streams_per_publisher: 0,
    max_session: Duration::ZERO,
    claimed: false,
};
const DECIDED: Basis = Basis::Decided { login: None };
const SEVEN: SessionUser = SessionUser::Uid(7);
const ZERO: SessionUser = SessionUser::Uid(0);

const EIGHT: SessionUser = SessionUser::Uid(8);
const NINE: SessionUser = SessionUser::Uid(9);
const UID_TAKEN: Result<Allowed, ClaimRefused> = Err(ClaimRefused::UidTaken);

impl Sessions {
    /// Grants a token that was decided on, for this time.
    fn give(&self, claim: SeatRequest<'_>, time: Range<u64>) {
        self.give_under(RULES, claim, time);
    }

    fn give_under(&self, rules: Rules, claim: SeatRequest<'_>, time: Range<u64>) {
        let granted = self.grant(claim, DECIDED, rules, time.start, time.end);
        granted.unwrap();
    }

    fn give_on(&self, basis: Basis, claim: SeatRequest<'_>, time: Range<u64>) {
        let granted = self.grant(claim, basis, RULES, time.start, time.end);
        granted.unwrap();
    }

    /// The role in which a subject holds a token for the channel `show`.
    fn held_by(&self, subject: &str, now: u64) -> Option<Role> {
        self.held("show", subject, None, now)
    }

    /// The numbers of subscribers and publishers.
    fn counts(&self) -> (usize, usize) {
        (self.count(Role::Subscriber), self.count(Role::Publisher))
    }
}

fn claim<'a>(subject: &'a str, user: &'a SessionUser, role: Role) -> SeatRequest<'a> {
    SeatRequest {
        channel: "show",
        subject,
        user,
        role,
    }
}

fn viewer<'a>(subject: &'a str, user: &'a SessionUser) -> SeatRequest<'a> {
    claim(subject, user, Role::Subscriber)
}

fn host<'a>(subject: &'a str, user: &'a SessionUser) -> SeatRequest<'a> {
    claim(subject, user, Role::Publisher)
}

/// Sweeps once round the table.
fn sweep(sessions: &Sessions, now: u64) -> Vec<LapsedSession> {
    (0..SWEEPS)
        .flat_map(|turn| sessions.sweep(turn, now))
        .collect()
}

fn lapse(subject: &str, user: SessionUser, role: Role, cause: LapseCause) -> LapsedSession {
    LapsedSession {
        channel: "show".to_owned(),
        subject: subject.to_owned(),
        user,
        role,
        cause,
        expired: 200,
        granted_here: true,
    }
}

/// Every session, from as many pages as it takes.
fn list(sessions: &Sessions, filter: Filter<'_>, limit: usize, now: u64) -> Vec<Held> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = sessions.page(filter, after, limit, now);
        assert!(page.sessions.len() <= limit);
        all.extend(page.sessions);
        let Some(next) = page.next else { return all };
        after = Some(sessions.cursor(&next.to_string()).unwrap());
    }
}

/// Another table with all sessions that a table writes down.
fn restarted(sessions: &Sessions, now: u64) -> Sessions {
    let after = Sessions::new(1000);
    for part in 0..Sessions::PARTS {
        for kept in sessions.write_down(part, true) {
            assert!(after.put_back(&kept, now));
        }
    }
    after.put_back_links();
    after
}

#[test]
fn a_subject_holds_what_was_granted_until_it_expires() {
    let sessions = Sessions::new(10);
    sessions.give(viewer("ann", &SEVEN), 100..200);
    assert_eq!(sessions.held_by("ann", 199), Some(Role::Subscriber));
    assert_eq!(
        sessions.held("show", "ann", Some(Role::Publisher), 199),
        None
    );
    assert_eq!(sessions.held_by("bob", 199), None);
    assert_eq!(sessions.held("other", "ann", None, 199), None);
    assert_eq!(sessions.held_by("ann", 200), None);
}

#[test]
fn a_uid_belongs_to_its_subscriber_while_their_token_lives() {
    let sessions = Sessions::new(10);
    sessions.give(viewer("ann", &SEVEN), 100..200);
    assert_eq!(sessions.check(viewer("bob", &SEVEN), RULES, 199), UID_TAKEN);
    assert_eq!(
        sessions.grant(viewer("bob", &SEVEN), DECIDED, RULES, 199, 300),
        Err(ClaimRefused::UidTaken)
    );
    assert!(sessions.check(viewer("ann", &SEVEN), RULES, 199).is_ok());
    assert!(sessions.check(viewer("bob", &SEVEN), RULES, 200).is_ok());
}

#[test]
fn a_publisher_takes_a_uid_over_and_the_former_holder_holds_nothing() {
    let sessions = Sessions::new(10);
    sessions.give(viewer("ann", &SEVEN), 100..200);
    sessions.give(host("owner", &SEVEN), 110..210);
    assert_eq!(sessions.held_by("ann", 120), None);
    assert_eq!(sessions.held_by("owner", 120), Some(Role::Publisher));
    assert_eq!(sessions.check(viewer("ann", &SEVEN), RULES, 120), UID_TAKEN);
    assert_eq!(sessions.counts(), (0, 1));
}

#[test]
fn uid_zero_is_never_bound() {
    let sessions = Sessions::new(10);
    sessions.give(viewer("ann", &ZERO), 100..200);
    assert!(
        sessions
            .grant(viewer("bob", &ZERO), DECIDED, RULES, 100, 200)
            .is_ok()
    );
}

#[test]
fn unbound_uids_may_be_shared() {
    let sessions = Sessions::new(10);
    let rules = Rules {
        bind_uid: false,
        ..RULES
    };
    sessions.give_under(rules, viewer("ann", &SEVEN), 100..200);
    assert!(
        sessions
            .grant(viewer("bob", &SEVEN), DECIDED, rules, 100, 200)
            .is_ok()
    );
}

#[test]
fn the_first_refresh_with_a_uid_takes_over_the_zero_uid_session() {
    let sessions = Sessions::new(10);
    sessions.give(viewer("ann", &ZERO), 100..200);
    sessions.give(viewer("ann", &SEVEN), 150..250);
    assert_eq!(sessions.count(Role::Subscriber), 1);
    assert_eq!(sessions.check(viewer("bob", &SEVEN), RULES, 160), UID_TAKEN);
}

#[test]
fn a_subject_changes_devices_freely_but_cannot_take_every_uid() {
    let sessions = Sessions::new(100);
    for uid in 1..=20 {
        let user = SessionUser::Uid(uid);
        sessions.give(viewer("ann", &user), 100..200 + u64::from(uid));
    }
    assert_eq!(sessions.count(Role::Subscriber), USERS_PER_SUBJECT);
    assert!(
        sessions
            .check(viewer("bob", &SessionUser::Uid(1)), RULES, 150)
            .is_ok()
    );
    assert_eq!(
        sessions.check(viewer("bob", &SessionUser::Uid(20)), RULES, 150),
        UID_TAKEN
    );
}

#[test]
fn a_publisher_holds_only_so_many_channels() {
    let sessions = Sessions::new(10);
    let rules = Rules {
        max_streams_per_publisher: 1,
        ..RULES
    };
    let second = SeatRequest {
        channel: "second",
        ..host("owner", &SEVEN)
    };
    sessions.give_under(rules, host("owner", &SEVEN), 100..200);
    assert!(sessions.check(host("owner", &SEVEN), rules, 150).is_ok());
    assert_eq!(
        sessions.check(second, rules, 150),
        Err(ClaimRefused::TooManyStreams)
    );
    assert!(sessions.check(second, rules, 200).is_ok());
}

#[test]
fn a_session_has_a_full_length_across_uids() {
    let sessions = Sessions::new(10);
    let rules = Rules {
        max_session: Duration::from_mins(10),
        ..RULES
    };
    let at_most = |seconds| {
        Ok(Allowed {
            at_most: Some(Duration::from_secs(seconds)),
        })
    };
    assert_eq!(
        sessions.check(viewer("ann", &SEVEN), rules, 100),
        at_most(600)
    );
    sessions.give_under(rules, viewer("ann", &SEVEN), 100..700);
    let other = SessionUser::Uid(8);
    assert_eq!(
        sessions.check(viewer("ann", &other), rules, 500),
        at_most(200)
    );
    sessions.give_under(rules, viewer("ann", &other), 500..700);
    assert_eq!(
        sessions.check(viewer("ann", &other), rules, 650),
        Err(ClaimRefused::SessionTooLong)
    );
}

#[test]
fn a_sweep_forgets_what_has_expired_and_nothing_else() {
    let sessions = Sessions::new(10);
    sessions.give(viewer("ann", &SEVEN), 100..200);
    sessions.give(host("owner", &SessionUser::Uid(1)), 100..300);
    sweep(&sessions, 290);
    assert_eq!(sessions.counts(), (0, 1));
    assert!(sessions.check(viewer("bob", &SEVEN), RULES, 150).is_ok());
}

#[test]
fn a_full_table_still_grants_and_renews() {
    let sessions = Sessions::new(1);
    sessions.give(viewer("ann", &SEVEN), 100..200);
    assert!(
        sessions
            .grant(viewer("bob", &EIGHT), DECIDED, RULES, 100, 200)
            .is_ok()
    );
    assert_eq!(sessions.held_by("bob", 150), None);
    sessions.give(viewer("ann", &SEVEN), 150..250);
    assert_eq!(sessions.held_by("ann", 240), Some(Role::Subscriber));
}

#[test]
fn a_session_that_has_reached_its_length_is_not_begun_anew_as_soon_as_its_token_expires() {
    let sessions = Sessions::new(10);
    let rules = Rules {
        max_session: Duration::from_mins(10),
        ..RULES
    };
    sessions.give_under(rules, viewer("ann", &SEVEN), 100..700);
    // The installed clients ask half a minute before the end, at the end, and again and again.
    for now in [670, 700, 701, 760, 789] {
        let checked = sessions.check(viewer("ann", &SEVEN), rules, now);
        assert_eq!(checked, Err(ClaimRefused::SessionTooLong), "{now}");
        let granted = sessions.grant(viewer("ann", &EIGHT), DECIDED, rules, now, now + 600);
        assert_eq!(granted, Err(ClaimRefused::SessionTooLong), "{now}");
        assert_eq!(sessions.held("show", "ann", None, now).is_some(), now < 700);
    }
}

#[test]
fn what_is_over_gives_a_new_session_nothing_of_its_age_though_unswept() {
    let sessions = Sessions::new(10);
    let rules = Rules {
        max_session: Duration::from_mins(10),
        ..RULES
    };
    sessions.give_under(rules, viewer("ann", &SEVEN), 100..700);
    sessions.give_under(rules, viewer("ann", &SEVEN), 790..1390);
    assert_eq!(
        sessions.check(viewer("ann", &SEVEN), rules, 890),
        Ok(Allowed {
            at_most: Some(Duration::from_secs(500))
        })
    );
}

#[test]
fn a_holder_who_renews_a_little_late_goes_on_with_their_session() {
    let sessions = Sessions::new(10);
    for (now, first_issued, refreshes) in
        [(100, 100, 0), (289, 100, 1), (478, 100, 2), (668, 668, 0)]
    {
        let claim = viewer("ann", &SEVEN);
        sessions.give(claim, now..now + 100);
        let page = sessions.page(Filter::default(), None, 10, now);
        let held = &page.sessions[0];
        assert_eq!(
            (held.first_issued, held.refreshes),
            (first_issued, refreshes),
            "{now}"
        );
    }
}

/// Whether a renewal may rest on this source's last answer.
fn rests(sessions: &Sessions, role: Option<Role>, ground: Ground, who: Resting) -> Option<Role> {
    sessions.stands("show", "ann", role, (ground, who), 150)
}

fn login(number: u64) -> Option<Login> {
    NonZeroU64::new(number).map(Login)
}

#[test]
fn what_a_source_says_against_a_holder_counts_until_the_next_decision_in_their_favour() {
    let sessions = Sessions::new(10);
    let (one, two) = (SessionUser::Uid(1), SessionUser::Uid(2));
    let stands = |table: &Sessions, role| rests(table, role, Ground::Stream, Resting::Anyone);
    sessions.give(viewer("ann", &one), 100..200);
    sessions.give(host("ann", &two), 100..200);
    sessions.give(viewer("bob", &SEVEN), 100..200);
    assert_eq!(stands(&sessions, None), Some(Role::Publisher));
    // Ann is no host any more, but still a viewer.
    sessions.denied("show", "ann", Ground::Stream, Some(Role::Publisher), 150);
    assert_eq!(stands(&sessions, Some(Role::Publisher)), None);
    assert_eq!(stands(&sessions, None), Some(Role::Subscriber));
    sessions.denied("show", "ann", Ground::Stream, None, 150);
    assert_eq!(stands(&sessions, None), None);
    // Ann's tokens live on, through a restart too, and the refusal concerns no other source and no other subject.
    let after = restarted(&sessions, 150);
    for table in [&sessions, &after] {
        assert_eq!(stands(table, None), None);
        assert!(table.is_refused("show", "ann", Role::Publisher, Ground::Stream, 150));
        assert!(!table.is_refused("show", "ann", Role::Publisher, Ground::Hook, 150));
        assert_eq!(table.held_by("ann", 150), Some(Role::Publisher));
        for ground in [Ground::Account, Ground::Hook] {
            let rests = rests(table, None, ground, Resting::Anyone);
            assert_eq!(rests, Some(Role::Publisher), "{ground:?}");
        }
        let grounds = (Ground::Stream, Resting::Anyone);
        assert_eq!(
            table.stands("show", "bob", None, grounds, 150),
            Some(Role::Subscriber)
        );
    }
    sessions.give(viewer("ann", &one), 150..250);
    assert_eq!(stands(&sessions, None), Some(Role::Subscriber));
}

#[test]
fn a_token_that_is_handed_on_clears_nothing_and_is_the_first_one_only_of_what_was_said() {
    let elsewhere = Basis::HandedOn {
        login: None,
        vouched: false,
        lacks: Grounds::of(Ground::Account),
    };
    let vouched = Basis::HandedOn {
        login: login(2),
        vouched: true,
        lacks: Grounds::NONE,
    };
    for (user, basis) in [(&SEVEN, vouched), (&ZERO, vouched), (&EIGHT, elsewhere)] {
        let sessions = Sessions::new(10);
        let stands = |ground| rests(&sessions, None, ground, Resting::Anyone).is_some();
        // The first token, and a reissued one that takes the uid-0 session over or stands beside it.
        sessions.give(host("ann", &ZERO), 100..200);
        sessions.denied("show", "ann", Ground::Stream, None, 120);
        sessions.give_on(basis, host("ann", user), 130..230);
        assert!(!stands(Ground::Stream), "{user:?}");
        assert!(stands(Ground::Account) && stands(Ground::Hook), "{user:?}");
        // The session remembers a refusal by another source too.
        sessions.denied("show", "ann", Ground::Hook, None, 140);
        sessions.give_on(vouched, host("ann", &NINE), 145..245);
        assert!(!stands(Ground::Stream) && !stands(Ground::Hook), "{user:?}");
        sessions.give(host("ann", user), 150..250);
        assert!(stands(Ground::Stream) && stands(Ground::Hook), "{user:?}");
    }
    let sessions = Sessions::new(10);
    sessions.give_on(elsewhere, host("ann", &SEVEN), 100..200);
    assert_eq!(
        rests(&sessions, None, Ground::Account, Resting::Anyone),
        None
    );
    let stream = rests(&sessions, None, Ground::Stream, Resting::Anyone);
    assert_eq!(stream, Some(Role::Publisher));
}

#[test]
fn only_the_session_of_the_latest_grant_rests_whichever_uid_it_was_for() {
    let sessions = Sessions::new(10);
    let rests = |table: &Sessions, who| rests(table, None, Ground::Account, who).is_some();
    let (old, new) = (Resting::Session(login(1)), Resting::Session(login(2)));
    let nameless = Resting::Session(None);
    let grant = |user: &SessionUser, login| {
        let basis = Basis::Decided { login };
        sessions.give_on(basis, host("ann", user), 100..200);
    };
    // The login of the first grant isn't known.
    grant(&ZERO, None);
    assert!(rests(&sessions, old) && rests(&sessions, new) && rests(&sessions, nameless));
    grant(&SEVEN, login(1));
    assert!(rests(&sessions, old) && !rests(&sessions, new) && !rests(&sessions, nameless));
    // A grant to another phone is the latest for both sessions.
    grant(&EIGHT, login(2));
    for table in [&sessions, &restarted(&sessions, 150)] {
        assert!(!rests(table, old) && rests(table, new) && !rests(table, nameless));
        assert!(rests(table, Resting::Anyone));
    }
    // A token that was handed on to no login leaves it so; one that was handed on to a login that counts is the latest.
    let handed_on = |user: &SessionUser, login| {
        let basis = Basis::HandedOn {
            login,
            vouched: true,
            lacks: Grounds::NONE,
        };
        sessions.give_on(basis, host("ann", user), 100..200);
    };
    handed_on(&NINE, None);
    assert!(!rests(&sessions, old) && rests(&sessions, new));
    handed_on(&SEVEN, login(1));
    assert!(rests(&sessions, old) && !rests(&sessions, new));
    sessions.forget_logins();
    assert!(rests(&sessions, old) && rests(&sessions, new));
}

#[test]
fn an_unvouched_login_is_the_latest_only_where_nothing_was_held() {
    let unvouched = |sessions: &Sessions, user: &SessionUser, login| {
        let basis = Basis::HandedOn {
            login,
            vouched: false,
            lacks: Grounds::NONE,
        };
        sessions.give_on(basis, host("ann", user), 100..200);
    };
    let rests = |table: &Sessions, number| {
        let who = Resting::Session(login(number));
        rests(table, None, Ground::Account, who).is_some()
    };
    for user in [&SEVEN, &ZERO, &EIGHT] {
        let sessions = Sessions::new(10);
        let basis = Basis::Decided { login: login(2) };
        sessions.give_on(basis, host("ann", &SEVEN), 100..200);
        unvouched(&sessions, user, login(1));
        for table in [&sessions, &restarted(&sessions, 150)] {
            assert!(!rests(table, 1) && rests(table, 2), "{user:?}");
        }
    }
    // Both phones may rest on a session of no login: neither takes it from the other.
    let sessions = Sessions::new(10);
    let basis = Basis::Decided { login: None };
    sessions.give_on(basis, host("ann", &SEVEN), 100..200);
    unvouched(&sessions, &EIGHT, login(1));
    assert!(rests(&sessions, 1) && rests(&sessions, 2));
    // Where the subject held nothing, the session is of the login that asked.
    let sessions = Sessions::new(10);
    unvouched(&sessions, &SEVEN, login(1));
    assert!(rests(&sessions, 1) && !rests(&sessions, 2));
}

#[test]
fn only_what_a_grant_changes_of_other_sessions_is_written_down_again() {
    let sessions = Sessions::new(10);
    let changed = || -> usize {
        let parts = 0..Sessions::PARTS;
        parts
            .map(|part| sessions.write_down(part, false).len())
            .sum()
    };
    let grant = |user: &SessionUser, login| {
        let basis = Basis::Decided { login };
        sessions.give_on(basis, viewer("ann", user), 100..200);
    };
    grant(&SEVEN, login(1));
    grant(&EIGHT, login(1));
    assert_eq!(changed(), 2);
    grant(&SEVEN, login(1));
    assert_eq!(changed(), 1);
    grant(&SEVEN, login(2));
    assert_eq!(changed(), 2);
}

#[test]
fn an_account_is_not_the_zero_uid_under_another_name() {
    let sessions = Sessions::new(10);
    let account = SessionUser::Account("ann".into());
    sessions.give(viewer("ann", &ZERO), 100..200);
    sessions.give(viewer("ann", &account), 100..200);
    assert_eq!(sessions.count(Role::Subscriber), 2);
}

#[test]
fn the_newest_of_too_many_users_is_kept_however_short() {
    let sessions = Sessions::new(100);
    for uid in 1..=20 {
        let user = SessionUser::Uid(uid);
        sessions.give(viewer("ann", &user), 100..300 - u64::from(uid));
        assert_eq!(sessions.check(viewer("bob", &user), RULES, 150), UID_TAKEN);
    }
}

#[test]
fn a_dropped_session_frees_no_uid_of_another_subject() {
    let sessions = Sessions::new(100);
    let unbound = Rules {
        bind_uid: false,
        ..RULES
    };
    sessions.give(viewer("bob", &SEVEN), 100..300);
    sessions.give_under(unbound, viewer("ann", &SEVEN), 100..101);
    for uid in 11..=20 {
        let user = SessionUser::Uid(uid);
        sessions.give(viewer("ann", &user), 100..300);
    }
    assert_eq!(sessions.check(viewer("eve", &SEVEN), RULES, 150), UID_TAKEN);
}

#[test]
fn two_workers_cannot_give_a_publisher_two_streams_at_once() {
    let rules = Rules {
        max_streams_per_publisher: 1,
        ..RULES
    };
    for _ in 0..200 {
        let sessions = Sessions::new(10);
        let granted = std::thread::scope(|scope| {
            let ask = |channel| {
                let claim = SeatRequest {
                    channel,
                    ..host("owner", &SEVEN)
                };
                let sessions = &sessions;
                scope.spawn(move || sessions.grant(claim, DECIDED, rules, 100, 200).is_ok())
            };
            let asked = [ask("first"), ask("second")];
            asked.map(|asked| usize::from(asked.join().unwrap()))
        });
        assert_eq!(granted.iter().sum::<usize>(), 1);
    }
}

#[test]
fn a_stream_that_ended_counts_no_more() {
    let sessions = Sessions::new(10);
    let rules = Rules {
        max_streams_per_publisher: 1,
        ..RULES
    };
    let second = SeatRequest {
        channel: "second",
        ..host("owner", &SEVEN)
    };
    sessions.give_under(rules, host("owner", &SEVEN), 100..200);
    assert_eq!(
        sessions.publishing_elsewhere(second, 150),
        ["show".into()] as [Box<str>; 1]
    );
    sessions.ended("owner", "show");
    assert!(sessions.grant(second, DECIDED, rules, 150, 250).is_ok());
}

#[test]
fn renewals_are_counted_from_the_first_token_on() {
    let sessions = Sessions::new(10);
    let shown = || {
        let listed = list(&sessions, Filter::default(), 10, 150);
        listed
            .into_iter()
            .map(|held| {
                (
                    held.user,
                    held.role,
                    held.first_issued,
                    held.expires,
                    held.refreshes,
                )
            })
            .collect::<Vec<_>>()
    };
    sessions.give(viewer("ann", &ZERO), 100..200);
    assert_eq!(shown(), [(ZERO, Role::Subscriber, 100, 200, 0)]);
    // The SDK has assigned uid 7: the same session under its real name.
    sessions.give(viewer("ann", &SEVEN), 120..220);
    assert_eq!(shown(), [(SEVEN, Role::Subscriber, 100, 220, 1)]);
    sessions.give(host("ann", &SEVEN), 130..230);
    assert_eq!(shown(), [(SEVEN, Role::Publisher, 100, 230, 2)]);
    assert_eq!(sessions.count(Role::Subscriber), 0);
    assert_eq!(sessions.count(Role::Publisher), 1);
}

#[test]
fn a_token_that_is_not_renewed_lapses_ninety_seconds_after_its_expiry_and_once() {
    let sessions = Sessions::new(10);
    sessions.give(viewer("ann", &SEVEN), 100..200);
    assert_eq!(sweep(&sessions, 199), []);
    assert_eq!(sessions.count(Role::Subscriber), 1);
    assert_eq!(sweep(&sessions, 289), []);
    assert_eq!(sessions.count(Role::Subscriber), 0, "it counts no longer");
    assert_eq!(
        sweep(&sessions, 290),
        [lapse("ann", SEVEN, Role::Subscriber, LapseCause::Silent)]
    );
    assert_eq!(sweep(&sessions, 291), []);
}

#[test]
fn a_holder_who_is_back_within_ninety_seconds_has_not_lapsed() {
    let sessions = Sessions::new(10);
    sessions.give(viewer("ann", &SEVEN), 100..200);
    sweep(&sessions, 250);
    sessions.give(viewer("ann", &SEVEN), 280..380);
    assert_eq!(sweep(&sessions, 300), []);
    assert_eq!(sessions.count(Role::Subscriber), 1);
    let held = list(&sessions, Filter::default(), 10, 300);
    assert_eq!((held[0].first_issued, held[0].refreshes), (100, 1));
}

#[test]
fn a_refusal_since_the_last_grant_is_why_it_lapsed() {
    let sessions = Sessions::new(10);
    for subject in ["ann", "bob", "eve"] {
        sessions.give(host(subject, &ZERO), 100..150);
    }
    sessions.refused(host("ann", &ZERO));
    sessions.refused(host("bob", &ZERO));
    // The renewal has the uid that the SDK assigned, and is of the uid-0 session.
    sessions.refused(host("eve", &SEVEN));
    // A stranger holds nothing.
    sessions.refused(host("stranger", &ZERO));
    sessions.give(host("ann", &ZERO), 110..200);
    sessions.give(host("bob", &ZERO), 110..200);
    sessions.refused(host("bob", &ZERO));
    sessions.refused(host("eve", &ZERO));
    let mut lapsed = sweep(&sessions, 290);
    lapsed.sort_by(|a, b| a.subject.cmp(&b.subject));
    let eve = lapsed.pop().unwrap();
    assert_eq!((eve.expired, eve.cause), (150, LapseCause::Refused));
    assert_eq!(
        lapsed,
        [
            lapse("ann", ZERO, Role::Publisher, LapseCause::Silent),
            lapse("bob", ZERO, Role::Publisher, LapseCause::Refused),
        ]
    );
}

#[test]
fn what_ended_was_taken_over_or_goes_on_under_another_uid_does_not_lapse() {
    let sessions = Sessions::new(100);
    let grant = |claim, expires| sessions.give(claim, 100..expires);
    grant(host("over", &SessionUser::Uid(1)), 200);
    sessions.ended("over", "show");
    grant(viewer("robbed", &SEVEN), 200);
    grant(host("owner", &SEVEN), 1000);
    grant(viewer("moved", &SessionUser::Uid(20)), 200);
    grant(viewer("moved", &SessionUser::Uid(21)), 1000);
    // A session in another role doesn't continue this one.
    grant(host("stepped-down", &SessionUser::Uid(30)), 200);
    grant(viewer("stepped-down", &SessionUser::Uid(31)), 1000);
    assert_eq!(
        sweep(&sessions, 290),
        [lapse(
            "stepped-down",
            SessionUser::Uid(30),
            Role::Publisher,
            LapseCause::Silent
        )]
    );
}

#[test]
fn a_renewed_stream_is_no_longer_over() {
    let sessions = Sessions::new(10);
    sessions.give(host("owner", &SEVEN), 100..150);
    sessions.ended("owner", "show");
    sessions.give(host("owner", &SEVEN), 120..200);
    assert_eq!(
        sweep(&sessions, 290),
        [lapse("owner", SEVEN, Role::Publisher, LapseCause::Silent)]
    );
}

#[test]
fn what_is_swept_leaves_nothing_behind() {
    let sessions = Sessions::new(100_000);
    let subjects: Vec<String> = (0..2000).map(|number| format!("viewer-{number}")).collect();
    for (uid, subject) in (1..).zip(&subjects) {
        let user = SessionUser::Uid(uid);
        sessions.give(viewer(subject, &user), 100..200);
        sessions.give(host(subject, &user), 100..200);
    }
    assert_eq!(sessions.count(Role::Publisher), 2000);
    assert_eq!(sweep(&sessions, 290).len(), 2000);
    assert_eq!(sessions.counts.total.load(Ordering::Relaxed), 0);
    for (uid, subject) in (1..).zip(&subjects) {
        let user = sessions.user("show", &SessionUser::Uid(uid)).unwrap();
        assert_eq!(sessions.bound.lock(user).of(user).count(), 0);
        let publisher = sessions.publisher(subject);
        let links = sessions.publishing.lock(publisher);
        assert_eq!(links.of(publisher).count(), 0);
    }
}

#[test]
fn a_publisher_with_several_uids_and_channels_is_one_person() {
    let sessions = Sessions::new(100);
    let (seven, eight) = (SessionUser::Uid(7), SessionUser::Uid(8));
    let other = SeatRequest {
        channel: "other",
        ..host("ann", &seven)
    };
    for claim in [
        host("ann", &seven),
        host("ann", &eight),
        other,
        host("bob", &ZERO),
        viewer("cleo", &NINE),
    ] {
        sessions.give(claim, 100..200);
    }
    assert_eq!(sessions.publishers(|_| true, 150), 2);
    assert_eq!(sessions.publishers(|subject| subject == "ann", 150), 1);
    assert_eq!(sessions.publishers(|_| true, 250), 0, "nothing is held");
}

#[test]
fn pages_hold_every_session_once_whatever_comes_and_goes_between_them() {
    let sessions = Sessions::new(10_000);
    let grant = |number: u32, until| {
        let subject = format!("viewer-{number}");
        let user = SessionUser::Uid(number);
        sessions.give(viewer(&subject, &user), 100..until);
    };
    for number in 0..500 {
        grant(number, 1000);
    }
    let mut seen = Vec::new();
    let mut after = None;
    for turn in 0_u32.. {
        let page = sessions.page(Filter::default(), after, 7, 150);
        seen.extend(page.sessions.into_iter().map(|held| held.subject));
        let Some(next) = page.next else { break };
        after = Some(next);
        // Others come, and some of them leave soon.
        grant(1000 + turn, 1000);
        grant(2000 + turn, 160);
        sweep(&sessions, 150);
    }
    let mut constant: Vec<_> = seen
        .iter()
        .filter_map(|subject| subject.strip_prefix("viewer-")?.parse::<u32>().ok())
        .filter(|number| *number < 500)
        .collect();
    constant.sort_unstable();
    assert_eq!(constant, (0..500).collect::<Vec<_>>());
    let all = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), all, "no subject is listed twice");
}

#[test]
fn a_list_is_filtered_by_channel_and_subject_and_shows_what_lives() {
    let sessions = Sessions::new(1000);
    let devices: Vec<SessionUser> = (1..=5).map(SessionUser::Uid).collect();
    for channel in ["first", "second"] {
        for subject in ["ann", "bob"] {
            for user in &devices {
                let claim = SeatRequest {
                    channel,
                    ..viewer(subject, user)
                };
                let unbound = Rules {
                    bind_uid: false,
                    ..RULES
                };
                sessions.give_under(unbound, claim, 100..200);
            }
        }
    }
    let count = |channel, subject| {
        let filter = Filter { channel, subject };
        list(&sessions, filter, 2, 150).len()
    };
    assert_eq!(count(None, None), 20);
    assert_eq!(count(Some("first"), None), 10);
    assert_eq!(count(None, Some("bob")), 10);
    assert_eq!(count(Some("second"), Some("ann")), 5);
    assert_eq!(count(Some("third"), None), 0);
    assert_eq!(list(&sessions, Filter::default(), 100, 200), []);
}

#[test]
fn a_cursor_is_taken_by_the_table_that_gave_it_alone() {
    let sessions = Sessions::new(10);
    for uid in 1..=2 {
        sessions.give(viewer("ann", &SessionUser::Uid(uid)), 100..200);
    }
    let next = sessions.page(Filter::default(), None, 1, 150).next.unwrap();
    assert_eq!(sessions.cursor(&next.to_string()), Some(next));
    assert_eq!(Sessions::new(10).cursor(&next.to_string()), None);
    for text in [
        "",
        "0",
        "+00000000000000000000000000000000000",
        &"é".repeat(18),
    ] {
        assert_eq!(sessions.cursor(text), None, "{text:?}");
    }
}

#[test]
fn a_restart_changes_no_session_and_no_holder() {
    let sessions = Sessions::new(100);
    let limited = Rules {
        max_streams_per_publisher: 1,
        max_session: Duration::from_mins(10),
        ..RULES
    };
    let account = SessionUser::Account("ann's phone".into());
    let elsewhere = SeatRequest {
        channel: "elsewhere",
        ..host("owner", &SessionUser::Uid(50))
    };
    sessions.give_under(limited, viewer("ann", &account), 100..300);
    sessions.give_under(limited, viewer("ann", &account), 150..350);
    sessions.give_under(limited, viewer("robbed", &SEVEN), 100..300);
    sessions.give_under(limited, host("owner", &SEVEN), 100..300);
    sessions.give_under(limited, viewer("gone", &NINE), 100..150);
    sessions.refused(viewer("gone", &NINE));

    let after = restarted(&sessions, 200);
    let both = |question: &dyn Fn(&Sessions)| {
        question(&sessions);
        question(&after);
    };
    both(&|table| assert_eq!(table.held_by("ann", 200), Some(Role::Subscriber)));
    both(&|table| assert_eq!(table.held_by("robbed", 200), None));
    both(&|table| {
        let refused = UID_TAKEN;
        assert_eq!(table.check(viewer("bob", &account), limited, 200), refused);
        assert_eq!(table.check(viewer("robbed", &SEVEN), limited, 200), refused);
        assert_eq!(
            table.check(elsewhere, limited, 200),
            Err(ClaimRefused::TooManyStreams)
        );
        assert_eq!(
            table.check(viewer("ann", &account), limited, 340),
            Ok(Allowed {
                at_most: Some(Duration::from_mins(6))
            })
        );
        table.ended("owner", "show");
        assert!(table.check(elsewhere, limited, 200).is_ok());
        let lapsed = sweep(table, 240);
        assert_eq!(lapsed.len(), 1);
        assert_eq!(lapsed[0].cause, LapseCause::Refused);
    });
    let listed = |table| {
        let mut listed = list(table, Filter::default(), 10, 240);
        listed.sort_by(|a, b| a.subject.cmp(&b.subject));
        listed
    };
    assert_eq!(listed(&sessions), listed(&after));
    assert_eq!(after.count(Role::Subscriber), 1);
    assert_eq!(after.count(Role::Publisher), 1);
}

#[test]
fn only_changes_are_written_down_and_what_was_taken_away_is_named() {
    let sessions = Sessions::new(100);
    sessions.keep();
    let written = |whole| -> Vec<String> {
        let parts = (0..Sessions::PARTS).flat_map(|part| sessions.write_down(part, whole));
        let mut subjects: Vec<_> = parts.map(|kept| kept.identity.subject).collect();
        subjects.sort_unstable();
        subjects
    };
    sessions.give(viewer("ann", &ZERO), 100..200);
    sessions.give(viewer("bob", &SEVEN), 100..200);
    assert_eq!(written(false), ["ann", "bob"]);
    assert_eq!(written(false), [""; 0]);
    assert_eq!(sessions.take_forgotten(), Some(Vec::new()));
    sessions.give(viewer("ann", &EIGHT), 110..210);
    sessions.give(host("owner", &SEVEN), 110..210);
    assert_eq!(
        sessions.take_forgotten(),
        Some(vec![
            SessionIdentity::new("show", "ann", &ZERO),
            SessionIdentity::new("show", "bob", &SEVEN)
        ])
    );
    assert_eq!(written(false), ["ann", "owner"]);
    sessions.refused(viewer("ann", &EIGHT));
    sessions.refused(viewer("ann", &EIGHT));
    assert_eq!(written(false), ["ann"]);
    assert_eq!(written(true), ["ann", "owner"]);
    assert_eq!(written(false), [""; 0]);
}

#[test]
fn what_is_struck_out_is_not_put_back_and_a_full_table_takes_no_more() {
    let sessions = Sessions::new(100);
    for (uid, subject) in (1..).zip(["ann", "bob", "eve"]) {
        sessions.give(viewer(subject, &SessionUser::Uid(uid)), 100..200);
    }
    let kept: Vec<_> = (0..Sessions::PARTS)
        .flat_map(|part| sessions.write_down(part, true))
        .collect();
    let after = Sessions::new(2);
    let room: Vec<_> = kept.iter().map(|kept| after.put_back(kept, 150)).collect();
    assert_eq!(room, [true, true, false]);
    assert!(after.put_back(&kept[0], 150), "it has its place");
    after.strike_out(&kept[0].identity);
    let held = |kept: &StoredSession| after.held("show", &kept.identity.subject, None, 150);
    assert_eq!(held(&kept[0]), None);
    assert_eq!(held(&kept[1]), Some(Role::Subscriber));
    assert_eq!(after.count(Role::Subscriber), 1);
}
