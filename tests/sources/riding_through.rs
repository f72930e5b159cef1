//! An outage of all sources of decisions, on a clock that the test moves: the holder of a token goes on, no other
//! caller gets in, and the time of grace runs from the first lookup that failed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use crate::support;

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::support::environment::FixedEnvironment;
use crate::support::renewd::{APP_CERTIFICATE, APP_ID, JWT_SECRET};
use crate::support::scripted::Scripted;
use crate::support::timed::{CHANNEL, OWNER, START, Timed, expiry};
use renewd::config;
use serde_json::{Value, json};

/// `token.lifetime`, in seconds.
const LIFETIME: u64 = 3600;

const HOUR: u64 = 3600;
const DAY: u64 = 86_400;

fn fail(source: &Scripted, way: u64) {
    match way % 3 {
        0 => source.close(),
        1 => source.answer(500, "{}"),
        _ => source.bytes("rubbish\r\n\r\n"),
    }
}

/// Streams, accounts and the hook, and the service that asks them.
struct Outage {
    sources: [Scripted; 3],
    timed: Timed,
}

impl Outage {
    fn new() -> Self {
        Self::with("", "")
    }

    /// The outage of a service with these lines in `[auth.jwt]` and `[authorize]`.
    fn with(jwt: &str, authorize: &str) -> Self {
        let sources = [Scripted::start(), Scripted::start(), Scripted::start()];
        let [streams, accounts, hook] = &sources;
        let text = format!(
            "[upstream]\nservers = [\"http://127.0.0.1:3001\"]\n\n[agora]\napp_id = \"{APP_ID}\"\n\
             app_certificate = \"{APP_CERTIFICATE}\"\n\n[auth.jwt]\nsecret = \"{JWT_SECRET}\"\n{jwt}\n\n\
             [accounts]\nsource = \"http\"\nurl = \"{}\"\n\n[streams]\nsource = \"http\"\nurl = \"{}\"\n\n\
             [authorize]\nurl = \"{}\"\ntimeout = \"5s\"\n{authorize}\n\n[rate_limit]\nsubject = \"off\"\n",
            accounts.url("/account"),
            streams.url("/{channel}"),
            hook.url("/authorize"),
        );
        let origin = Path::new("/etc/renewd/config.toml");
        let loaded = config::load(&text, origin, &FixedEnvironment::default());
        let config = loaded.unwrap_or_else(|errors| panic!("{errors}")).config;
        let outage = Self {
            timed: Timed::new(config),
            sources,
        };
        outage.up();
        outage
    }

    fn up(&self) {
        let [streams, accounts, hook] = &self.sources;
        streams.answer(200, &json!({"live": true, "owner": OWNER}).to_string());
        accounts.answer(200, "{}");
        hook.answer(200, "{}");
    }

    /// Takes every source down in one of several ways.
    fn down(&self, way: u64) {
        for source in &self.sources {
            fail(source, way);
        }
    }

    fn minute(&self, minute: u64) {
        self.timed.at(START + minute * 60);
    }

    fn asks(&self, who: &str, uid: u32) -> (u16, Value) {
        self.asks_with(json!({}), who, uid)
    }

    /// Asks with a login that has these claims too.
    fn asks_with(&self, claims: Value, who: &str, uid: u32) -> (u16, Value) {
        self.asks_for(CHANNEL, claims, who, uid)
    }

    fn asks_for(&self, channel: &str, claims: Value, who: &str, uid: u32) -> (u16, Value) {
        let login = self.timed.login(who, claims);
        let role = if who == OWNER {
            "publisher"
        } else {
            "subscriber"
        };
        let body = json!({"channelName": channel, "uid": uid, "role": role});
        self.timed.ask(&login, &body)
    }

    fn goes_on(&self, who: &str, uid: u32) {
        let (status, answer) = self.asks(who, uid);
        let now = self.timed.now();
        assert_eq!(status, 200, "{who} at {now}: {answer}");
        let token = &answer["data"]["token"];
        assert_eq!(expiry(token), now + LIFETIME, "{who} at {now}");
    }

    fn is_turned_away(&self, who: &str, uid: u32) {
        let (status, answer) = self.asks(who, uid);
        let now = self.timed.now();
        assert_eq!(status, 503, "{who} at {now}: {answer}");
        assert_eq!(answer["code"], "unavailable");
    }

    /// Holds that renewd grants again by itself once the sources answer.
    fn recovers(&self) {
        for turn in 0..1500 {
            if self.asks("late", 99).0 == 200 {
                return;
            }
            if turn % 50 == 0 {
                self.timed.at(self.timed.now() + 1);
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        panic!("it doesn't recover");
    }
}

#[test]
fn half_an_hour_without_any_source() {
    let outage = Outage::new();
    let viewers: Vec<String> = (0..20).map(|number| format!("viewer{number}")).collect();
    let uids = 10_u32..;
    outage.goes_on(OWNER, 1);
    for (viewer, uid) in viewers.iter().zip(uids.clone()) {
        outage.goes_on(viewer, uid);
    }
    // The last answers are old by the time the sources fail.
    for minute in 20..=50 {
        outage.minute(minute);
        outage.down(minute);
        outage.goes_on(OWNER, 1);
        outage.is_turned_away("stranger", 500);
        // Some of the viewers renew each minute, all of them more than once.
        for (viewer, uid) in viewers.iter().zip(uids.clone()) {
            if u64::from(uid) % 10 == minute % 10 {
                outage.goes_on(viewer, uid);
            }
        }
        outage.is_turned_away("stranger", 500);
    }
    outage.up();
    outage.recovers();
    outage.timed.pass(Duration::from_millis(100));
    outage.goes_on("stranger", 500);
    for (viewer, uid) in viewers.iter().zip(uids) {
        outage.goes_on(viewer, uid);
    }
    // The sources' answers count again.
    outage.minute(52);
    outage.sources[0].answer(404, "");
    assert_eq!(outage.asks(OWNER, 1).0, 404);
}

#[test]
fn the_time_runs_from_the_first_failure_and_not_from_the_last_answer() {
    let outage = Outage::new();
    outage.goes_on(OWNER, 1);
    // There was no request in between, so that the outage shows at minute 59.
    outage.down(0);
    outage.minute(59);
    outage.goes_on(OWNER, 1);
    outage.minute(59 + 58);
    outage.goes_on(OWNER, 1);
    outage.is_turned_away("stranger", 500);
    // An hour after the first failure, the last answers count no more for any holder.
    outage.minute(59 + 61);
    outage.is_turned_away(OWNER, 1);
    outage.up();
    outage.recovers();
    outage.timed.pass(Duration::from_millis(100));
    outage.goes_on(OWNER, 1);
    // The next outage has a time of its own.
    outage.minute(59 + 61 + 30);
    outage.down(1);
    outage.goes_on(OWNER, 1);
    outage.minute(59 + 61 + 30 + 50);
    outage.goes_on(OWNER, 1);
}

#[test]
fn each_source_alone_turns_strangers_away_and_ends_no_holders_stream() {
    for down in 0..3 {
        let outage = Outage::new();
        outage.goes_on(OWNER, 1);
        outage.minute(1);
        outage.sources[down].answer(500, "{}");
        outage.goes_on(OWNER, 1);
        outage.is_turned_away("stranger", 500);
        outage.minute(40);
        outage.goes_on(OWNER, 1);
        outage.minute(62);
        outage.is_turned_away(OWNER, 1);
        outage.up();
        outage.recovers();
        // A source that just failed isn't asked again at once.
        outage.timed.pass(Duration::from_millis(100));
        outage.goes_on(OWNER, 1);
    }
}

#[test]
fn whom_a_source_has_refused_since_their_last_grant_an_outage_lets_in_no_more_than_a_stranger() {
    let refusals: [(usize, u16, u16); 5] = [
        (1, 403, 403),
        (0, 404, 404),
        (2, 402, 403),
        (2, 403, 403),
        // The refusal of one login doesn't affect the person's other logins.
        (1, 401, 401),
    ];
    for (source, status, refused) in refusals {
        let outage = Outage::new();
        let pass = || outage.timed.pass(Duration::from_secs(3));
        outage.goes_on(OWNER, 1);
        outage.goes_on("viewer", 7);
        pass();
        outage.sources[source].answer(status, "{}");
        assert_eq!(outage.asks("viewer", 7).0, refused, "{status}");
        for way in 0..2 {
            pass();
            fail(&outage.sources[source], way);
            outage.is_turned_away("viewer", 7);
            let other = outage.asks_with(json!({"device": 2}), "viewer", 7).0;
            assert_eq!(other, if status == 401 { 200 } else { 503 }, "{status}");
            outage.is_turned_away("viewer", 7);
            outage.goes_on(OWNER, 1);
        }
        outage.up();
        outage.recovers();
        pass();
        outage.goes_on("viewer", 7);
        // Renewals can rest on the next grant again.
        pass();
        fail(&outage.sources[source], 1);
        outage.goes_on("viewer", 7);
    }
}

/// Phones of one person, each signed in with a session of its own.
const OLD: &str = "old";
const NEW: &str = "new";

impl Outage {
    fn of_sessions() -> Self {
        Self::with("session_claim = \"sid\"", "")
    }

    /// The status that the phone with this session gets.
    fn phone(&self, session: &str) -> u16 {
        self.asks_with(json!({"sid": session}), OWNER, 1).0
    }

    fn pass(&self) {
        self.timed.pass(Duration::from_secs(3));
    }
}

#[test]
fn a_stolen_phone_goes_on_no_longer_than_the_sources_do_and_the_new_one_does() {
    let outage = Outage::of_sessions();
    assert_eq!((outage.phone(OLD), outage.phone(NEW)), (200, 200));
    outage.minute(1);
    outage.down(0);
    for minute in [1, 20, 50] {
        outage.minute(minute);
        assert_eq!(
            (outage.phone(OLD), outage.phone(NEW)),
            (503, 200),
            "{minute}"
        );
        // A login of the user without a session gets nothing either, nor does a renewed one of the old session.
        let renewed = json!({"sid": OLD, "iat": START});
        assert_eq!(outage.asks_with(json!({}), OWNER, 1).0, 503);
        assert_eq!(outage.asks_with(renewed, OWNER, 1).0, 503);
        let renewed = json!({"sid": NEW, "iat": START});
        assert_eq!(outage.asks_with(renewed, OWNER, 1).0, 200);
    }
}

#[test]
fn where_the_accounts_source_vouches_for_a_session_it_rests_on_another_ones_grant() {
    for down in [0, 2] {
        let outage = Outage::of_sessions();
        assert_eq!(outage.phone(OLD), 200);
        outage.pass();
        outage.sources[down].close();
        assert_eq!(outage.phone(NEW), 200);
        // The new phone's login is the latest now, which accounts needn't vouch for.
        outage.pass();
        outage.sources[1].close();
        assert_eq!((outage.phone(OLD), outage.phone(NEW)), (503, 200));
    }
}

#[test]
fn a_session_that_accounts_refused_stays_refused_for_all_channels_and_no_other_one_does() {
    for (status, new) in [(401, 200), (403, 503)] {
        let outage = Outage::of_sessions();
        let accounts = &outage.sources[1];
        let elsewhere = |session: &str| {
            let claims = json!({"sid": session});
            outage.asks_for("live_other", claims, OWNER, 1).0
        };
        assert_eq!((outage.phone(OLD), outage.phone(NEW)), (200, 200));
        assert_eq!(elsewhere(NEW), 200);
        // The old phone got the last token here; the answer about the new phone's session counts in the other channel
        // too.
        assert_eq!(outage.phone(OLD), 200);
        outage.pass();
        accounts.answer(status, "{}");
        assert_eq!(outage.phone(OLD), status);
        outage.pass();
        accounts.close();
        assert_eq!(outage.phone(OLD), 503, "{status}");
        assert_eq!(elsewhere(NEW), new, "{status}");
        assert_eq!(elsewhere(OLD), 503, "{status}");
    }
}

#[test]
fn a_refusal_of_accounts_ends_with_their_next_yes_though_another_source_says_no() {
    let outage = Outage::new();
    let [streams, accounts, _] = &outage.sources;
    outage.goes_on("viewer", 7);
    outage.pass();
    accounts.answer(403, "{}");
    assert_eq!(outage.asks("viewer", 7).0, 403);
    outage.pass();
    accounts.answer(200, "{}");
    streams.answer(404, "");
    assert_eq!(outage.asks("viewer", 7).0, 404);
    outage.pass();
    outage.up();
    accounts.close();
    outage.goes_on("viewer", 7);
    outage.up();
    outage.recovers();
    // A cached yes doesn't count for a subject that accounts have refused since, with another login.
    outage.pass();
    outage.goes_on("viewer", 7);
    accounts.answer(403, "{}");
    assert_eq!(outage.asks_with(json!({"device": 2}), "viewer", 7).0, 403);
    outage.timed.pass(Duration::from_secs(1));
    accounts.close();
    outage.is_turned_away("viewer", 7);
    outage.up();
    outage.recovers();
    outage.pass();
    outage.goes_on("viewer", 7);
}

#[test]
fn whom_the_hook_refused_waits_for_it_though_its_errors_are_a_yes_to_others() {
    let outage = Outage::with("", "on_error = \"allow\"");
    let hook = &outage.sources[2];
    outage.goes_on("viewer", 7);
    hook.answer(402, "{}");
    assert_eq!(outage.asks("viewer", 7).0, 403);
    hook.close();
    outage.is_turned_away("viewer", 7);
    outage.goes_on("stranger", 500);
    outage.up();
    outage.pass();
    outage.goes_on("viewer", 7);
    hook.close();
    outage.goes_on("viewer", 7);
}

#[test]
fn a_limit_of_our_own_is_no_word_of_the_hook() {
    let outage = Outage::new();
    outage.goes_on("viewer", 7);
    // Renewd itself refuses a login without an end, whatever the hook says of the person.
    let endless = renewd_login_without_end("viewer");
    let body = json!({"channelName": CHANNEL, "uid": 7, "role": "subscriber"});
    let refused = outage.timed.refused(&endless, &body);
    assert_eq!(refused, (403, "policy_denied".to_owned()));
    outage.sources[2].close();
    outage.goes_on("viewer", 7);
}

fn renewd_login_without_end(subject: &str) -> String {
    support::renewd::jwt(&json!({"sub": subject}))
}

/// Each source in order, or down in one of three ways; a number below 64 for each combination.
const COMBINATIONS: u64 = 64;
const IN_ORDER: u64 = 63;

impl Outage {
    /// One holder, and a minute later this combination of faults.
    fn combined(combination: u64) -> Self {
        let outage = Self::new();
        outage.goes_on("holder", 7);
        outage.minute(1);
        let ways = [combination % 4, combination / 4 % 4, combination / 16];
        for (source, way) in outage.sources.iter().zip(ways) {
            if way < 3 {
                fail(source, way);
            }
        }
        outage
    }
}

#[test]
fn in_every_combination_of_faults_strangers_wait_and_holders_go_on() {
    for combination in 0..COMBINATIONS {
        let outage = Outage::combined(combination);
        outage.goes_on("holder", 7);
        if combination == IN_ORDER {
            outage.goes_on("stranger", 500);
        } else {
            outage.is_turned_away("stranger", 500);
        }
    }
}

/// The consequence of a time of day, whether or not the sources answer.
#[derive(Clone, Copy)]
enum Reading {
    /// The holder's token lives: the holder goes on whatever the sources say.
    Held,
    /// By this clock the holder's token has expired, so that the holder is a stranger.
    Expired,
    /// No login and no token can be judged by this time.
    Nonsense,
    /// By this clock every login has expired.
    LoggedOut,
}

#[test]
fn with_the_clock_set_wrongly_too_no_caller_gets_in_unjudged_and_no_token_is_misdated() {
    let now = START + 60;
    let readings = [
        (now - HOUR, Reading::Held),
        (0, Reading::Nonsense),
        (1, Reading::Nonsense),
        (1_577_836_799, Reading::Nonsense),
        (now, Reading::Held),
        (4_102_444_800, Reading::Nonsense),
        (u64::from(u32::MAX) + 1, Reading::Nonsense),
        (u64::MAX / 1000, Reading::Nonsense),
        (now + HOUR / 2, Reading::Held),
        (now + 40 * DAY, Reading::LoggedOut),
        (now + 2 * HOUR, Reading::Expired),
    ];
    for combination in 0..COMBINATIONS {
        let outage = Outage::combined(combination);
        let in_order = combination == IN_ORDER;
        for (uid, (time, reading)) in (500..).zip(readings) {
            outage.timed.set_clock(time);
            // Each turn has another stranger, because one that got in holds a token.
            let stranger = format!("stranger{uid}");
            match reading {
                Reading::Held => outage.goes_on("holder", 7),
                Reading::Expired if in_order => outage.goes_on("holder", 7),
                Reading::Expired | Reading::Nonsense => outage.is_turned_away("holder", 7),
                Reading::LoggedOut => {}
            }
            match reading {
                Reading::Held | Reading::Expired if in_order => outage.goes_on(&stranger, uid),
                Reading::Held | Reading::Expired | Reading::Nonsense => {
                    outage.is_turned_away(&stranger, uid);
                }
                Reading::LoggedOut => {
                    for (who, uid) in [("holder", 7), (&*stranger, uid)] {
                        let (status, answer) = outage.asks(who, uid);
                        assert_eq!((status, &answer["code"]), (401, &"token_expired".into()));
                    }
                }
            }
        }
        // The clock is right again, and nothing that happened meanwhile has cost the holder their stream.
        outage.timed.set_clock(now);
        outage.goes_on("holder", 7);
    }
}

#[test]
fn setting_the_clock_neither_prolongs_nor_shortens_the_time_of_grace() {
    let outage = Outage::new();
    outage.goes_on(OWNER, 1);
    outage.minute(1);
    outage.down(0);
    outage.goes_on(OWNER, 1);
    for (passes, set_to) in [(20, START - 10 * HOUR), (20, START), (19, START - HOUR)] {
        outage.timed.pass(Duration::from_mins(passes));
        outage.timed.set_clock(set_to);
        outage.goes_on(OWNER, 1);
    }
    outage.timed.pass(Duration::from_mins(2));
    outage.is_turned_away(OWNER, 1);
    outage.up();
    outage.recovers();
    outage.timed.pass(Duration::from_millis(100));
    outage.goes_on(OWNER, 1);
}
