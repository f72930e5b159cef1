//! Sessions that several daemons share: who holds a token on one holds it on all, and what one daemon's sources refused
//! stands on all.

use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use crate::shared_limits::TIMEOUT;
use crate::store_faults::{SHORT, is_shared};
use crate::support::ask::{Ask, change_streams, event_of};
use crate::support::redis::{LOG_ALL, Redis};
use crate::support::renewd::{Renewd, STREAMS, Settings, jwt, now, write_files};
use crate::support::scripted::Scripted;

const OFF: &str = "[rate_limit]\nsubject = \"off\"\naddress = \"off\"\n";

pub fn with(redis: &Redis, timeout: &str) -> Settings {
    Settings {
        tables: format!("[redis]\nurl = \"{}\"\n{timeout}\n{OFF}", redis.url()),
        ..Settings::default()
    }
}

fn settings(redis: &Redis) -> Settings {
    with(redis, TIMEOUT)
}

pub fn start(redis: &Redis) -> Renewd {
    Renewd::start(&settings(redis))
}

/// The sessions that a daemon lists, as their subjects, in order.
fn listed(renewd: &Renewd) -> Vec<String> {
    let answer = renewd
        .ask_admin("GET", "/v1/sessions?limit=1000", "")
        .json();
    let sessions = answer["sessions"].as_array().unwrap();
    let mut subjects: Vec<_> = sessions
        .iter()
        .map(|session| session["subject"].as_str().unwrap().to_owned())
        .collect();
    subjects.sort();
    subjects
}

pub fn has(renewd: &Renewd, subjects: &[&str]) {
    let what = format!("it has the sessions of {subjects:?}");
    renewd.eventually(&what, |renewd| listed(renewd) == subjects);
}

fn expiry(renewd: &Renewd, subject: &str) -> String {
    let target = format!("/v1/sessions?subject={subject}");
    let answer = renewd.ask_admin("GET", &target, "").json();
    answer["sessions"][0]["expires"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Asks as a viewer with the subject's own uid; the status, and whether it counted as a renewal.
fn ask(renewd: &Renewd, subject: &str) -> (u16, bool) {
    let uid = crc32fast::hash(subject.as_bytes()) | 1;
    let answer = Ask::viewer(subject, uid).send(renewd);
    let event = event_of(renewd, &answer);
    (answer.status, event["endpoint"] == "refresh")
}

const FIRST: (u16, bool) = (200, false);
const RENEWED: (u16, bool) = (200, true);

fn publish(renewd: &Renewd) -> u16 {
    let body = json!({"channelName": "live_show", "uid": 1, "role": "publisher"});
    Ask::new("owner", &body).send(renewd).status
}

fn without_streams(renewd: &Renewd) {
    fs::remove_file(renewd.file("streams.toml")).unwrap();
    renewd.eventually("its source is down", |renewd| {
        renewd.metric(r#"renewd_source_up{source="streams"}"#) < 0.5
    });
}

#[test]
fn a_holder_on_one_daemon_is_a_holder_on_all() {
    let redis = Redis::start();
    let (first, second) = (start(&redis), start(&redis));
    assert_eq!(ask(&first, "ann"), FIRST);
    assert_eq!(publish(&second), 200);
    for renewd in [&first, &second] {
        has(renewd, &["ann", "owner"]);
        renewd.eventually("it counts the publisher", |renewd| {
            renewd.whole(r#"renewd_sessions{role="publisher"}"#) == 1
        });
    }
    assert_eq!(ask(&second, "ann"), RENEWED);
    let (here, there) = (expiry(&second, "ann"), || expiry(&first, "ann"));
    first.eventually("the renewal is known", |_| there() == here);
    // A daemon that comes later has them all; one that was stopped comes back with its own and the others'.
    let third = start(&redis);
    has(&third, &["ann", "owner"]);
    assert_eq!(ask(&third, "bob"), FIRST);
    has(&first, &["ann", "bob", "owner"]);
    // A publisher takes a viewer's uid: the viewer's session is gone everywhere.
    let uid = crc32fast::hash(b"bob") | 1;
    let body = json!({"channelName": "live_show", "uid": uid, "role": "publisher"});
    assert_eq!(Ask::new("cohost", &body).send(&second).status, 200);
    for renewd in [&first, &second, &third] {
        has(renewd, &["ann", "cohost", "owner"]);
        assert_eq!(ask(renewd, "bob").0, 409);
    }
}

#[test]
fn a_daemon_that_is_killed_loses_nothing_for_its_clients() {
    let redis = Redis::start();
    let (mut first, second) = (start(&redis), start(&redis));
    let subjects: Vec<_> = (0..250)
        .map(|number| format!("viewer-{number:03}"))
        .collect();
    for subject in &subjects {
        assert_eq!(ask(&first, subject).0, 200);
    }
    let names: Vec<_> = subjects.iter().map(String::as_str).collect();
    has(&second, &names);
    first.signal(Signal::KILL);
    first.wait();
    // While the sources are down, those rest on what the first daemon granted who held a token there.
    without_streams(&second);
    for subject in subjects.iter().step_by(25) {
        assert_eq!(ask(&second, subject), RENEWED);
    }
    assert_eq!(ask(&second, "stranger").0, 503);
    // Nor does a daemon in its place, on another machine.
    let third = start(&redis);
    has(&third, &names);
}

/// Accounts that are asked over HTTP; logins that say their session.
fn with_accounts(redis: &Redis, accounts: &Scripted) -> Settings {
    Settings {
        jwt: "session_claim = \"sid\"".to_owned(),
        sources: Some(format!(
            "[accounts]\nsource = \"http\"\nurl = \"{}\"\ncache_ttl = \"0s\"\n\n\
             [streams]\nsource = \"file\"\nfile = \"streams.toml\"\n\n",
            accounts.url("/account")
        )),
        ..settings(redis)
    }
}

/// A viewer's request with a login of this session; its status.
fn phone(renewd: &Renewd, subject: &str, session: &str) -> u16 {
    let login = jwt(&json!({"sub": subject, "sid": session, "exp": now() + 3600}));
    let uid = crc32fast::hash(subject.as_bytes()) | 1;
    let body = json!({"channelName": "live_show", "uid": uid}).to_string();
    renewd.post("/api/live/token", &login, &body).status
}

fn key(renewd: &Renewd) -> Vec<u8> {
    fs::read(renewd.file("state/logins.key")).unwrap_or_default()
}

fn agree(replicas: &[&Renewd]) {
    for renewd in replicas {
        renewd.eventually("they agree on a key", |renewd| {
            key(renewd).len() == 32 && key(renewd) == key(replicas[0])
        });
    }
}

#[test]
fn a_login_that_was_refused_on_one_daemon_stays_refused_on_all() {
    let mut redis = Redis::start();
    let accounts = Scripted::start();
    accounts.answer(200, "{}");
    let settings = with_accounts(&redis, &accounts);
    let of = || Renewd::start(&settings);
    let (first, second) = (of(), of());
    agree(&[&first, &second]);
    for (subject, session) in [("ann", "old"), ("ann", "new"), ("bob", "b"), ("carl", "c")] {
        assert_eq!(phone(&first, subject, session), 200);
    }
    accounts.answer(403, "{}");
    assert_eq!(phone(&first, "bob", "b"), 403);
    has(&second, &["ann", "bob", "carl"]);
    accounts.close();
    let during_the_outage = |renewd: &Renewd| {
        for (subject, session, status) in [
            ("ann", "old", 503),
            ("ann", "new", 200),
            ("bob", "b", 503),
            ("carl", "c", 200),
        ] {
            let what = format!("{subject} {session} is answered {status}");
            renewd.eventually(&what, |renewd| phone(renewd, subject, session) == status);
        }
    };
    during_the_outage(&first);
    during_the_outage(&second);
    // Redis comes back empty: it gets sessions, refusals and the key again.
    let before = key(&first);
    redis.restart();
    for renewd in [&first, &second] {
        renewd.eventually("it is shared again", is_shared);
    }
    let third = of();
    has(&third, &["ann", "bob", "carl"]);
    agree(&[&first, &second, &third]);
    assert_eq!(key(&third), before);
    during_the_outage(&third);
    // A login that one daemon accepts is accepted by all.
    accounts.answer(200, "{}");
    third.eventually("bob is accepted", |renewd| phone(renewd, "bob", "b") == 200);
    accounts.close();
    first.eventually("bob is accepted", |renewd| phone(renewd, "bob", "b") == 200);
    let shown = before
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    for renewd in [&first, &second, &third] {
        let lines = format!("{:?}", renewd.log().lines());
        assert!(!lines.contains(&shown));
    }
}

#[test]
fn daemons_that_had_keys_of_their_own_still_know_what_they_refused() {
    let redis = Redis::start();
    let accounts = Scripted::start();
    let alone = || {
        let settings = with_accounts(&redis, &accounts);
        let tables = OFF.to_owned();
        Renewd::start(&Settings { tables, ..settings })
    };
    let replicas = [("ann", alone()), ("bob", alone())].map(|(subject, mut renewd)| {
        accounts.answer(200, "{}");
        assert_eq!(phone(&renewd, subject, "kept"), 200);
        accounts.answer(401, "{}");
        assert_eq!(phone(&renewd, subject, "gone"), 401);
        renewd.signal(Signal::TERM);
        renewd.wait();
        let directory = std::mem::replace(&mut renewd.directory, tempfile::tempdir().unwrap());
        write_files(directory.path(), &with_accounts(&redis, &accounts));
        (subject, Renewd::start_in(directory, &[], |_| {}))
    });
    accounts.close();
    let [(_, first), (_, second)] = &replicas;
    agree(&[first, second]);
    let as_before = |subject: &str, renewd: &Renewd| {
        assert_eq!(phone(renewd, subject, "kept"), 200, "{subject}");
        assert_eq!(phone(renewd, subject, "gone"), 503, "{subject}");
    };
    for (subject, renewd) in &replicas {
        as_before(subject, renewd);
    }
    // Also after a restart.
    for (subject, mut renewd) in replicas {
        renewd.signal(Signal::TERM);
        renewd.wait();
        let directory = std::mem::replace(&mut renewd.directory, tempfile::tempdir().unwrap());
        let renewd = Renewd::start_in(directory, &[], |_| {});
        as_before(subject, &renewd);
    }
}

#[test]
fn a_no_during_a_partition_stands_against_an_earlier_yes_and_the_later_expiry_wins() {
    let redis = Redis::start();
    let of = || Renewd::start(&with(&redis, SHORT));
    let (first, second) = (of(), of());
    for subject in ["ann", "bob"] {
        assert_eq!(ask(&first, subject), FIRST);
    }
    for renewd in [&first, &second] {
        has(renewd, &["ann", "bob"]);
    }
    redis.freeze();
    for renewd in [&first, &second] {
        renewd.eventually("the store is gone", |renewd| !is_shared(renewd));
        // Each has all sessions, and grants by itself.
        assert_eq!(ask(renewd, "bob"), RENEWED);
    }
    assert_eq!(ask(&first, "ann"), RENEWED);
    let banned = STREAMS.replace("[\"troll\"]", "[\"troll\", \"ann\"]");
    change_streams(&second, &banned);
    second.eventually("ann is banned there", |renewd| ask(renewd, "ann").0 == 403);
    let latest = expiry(&second, "bob").max(expiry(&first, "bob"));
    redis.thaw();
    for renewd in [&first, &second] {
        renewd.eventually("it is shared again", is_shared);
        renewd.eventually("the later expiry wins", |renewd| {
            expiry(renewd, "bob") == latest
        });
    }
    without_streams(&first);
    first.eventually("the no stands", |renewd| ask(renewd, "ann").0 == 503);
    assert_eq!(ask(&first, "bob"), RENEWED);
}

#[test]
fn publishers_are_drained_whichever_daemon_gave_them_their_token() {
    let redis = Redis::start();
    let first = start(&redis);
    let off = settings(&redis);
    let off = Renewd::start(&Settings {
        tables: off.tables + "[decision]\nmode = \"off\"\n",
        ..off
    });
    // The backend answers, which is down.
    assert_eq!(publish(&off), 502);
    assert_eq!(publish(&first), 200);
    off.eventually("the publisher is drained", |renewd| publish(renewd) == 200);
}

/// Leaves a session of the owner whose token has run out; 90 s after its end it is a lapse.
fn leave_expired(state: &Path, expired: u64) {
    use std::sync::Arc;

    use renewd::sessions::{
        Grounds, Records, SessionIdentity, SessionRecord, SessionUser, StoredSession,
    };
    use renewd::state::directory::StateDirectory;
    use renewd::state::journal::Journal;
    use renewd::terms::role::Role;

    let expired = u32::try_from(expired).unwrap();
    let kept = StoredSession {
        identity: SessionIdentity {
            channel: "live_show".to_owned(),
            subject: "owner".to_owned(),
            user: SessionUser::Uid(1),
        },
        role: Role::Publisher,
        first_issued: expired - 60,
        expires: Role::ALL.map(|role| if role == Role::Publisher { expired } else { 0 }),
        refreshes: 0,
        refused: false,
        ended: false,
        lacks: Grounds::NONE,
        login: None,
        settled: expired - 60,
        account_refused: false,
    };
    let directory = Arc::new(StateDirectory::open(state).unwrap());
    let mut journal = Journal::new(directory, "sessions.journal");
    let mut batch = journal.begin(true).unwrap();
    for piece in Records::new(0).encode(&SessionRecord::Session(kept)) {
        batch.write(&piece).unwrap();
    }
    batch.finish().unwrap();
}

#[test]
fn a_lapse_is_counted_by_one_daemon() {
    let redis = Redis::with(&LOG_ALL);
    // A busy machine starts both before it is a lapse.
    let expired = now() - 64;
    // Both have the session, as if they had shared it until now.
    let replicas = [(); 2].map(|()| {
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path(), &settings(&redis));
        leave_expired(&directory.path().join("state"), expired);
        Renewd::start_in(directory, &[], |_| {})
    });
    let [first, second] = &replicas;
    let counted = |renewd: &Renewd| {
        renewd.whole(r#"renewd_token_lapses_total{role="publisher",cause="silent"}"#)
    };
    first.eventually("it is a lapse", |_| now() > expired + 90);
    first.eventually("both have asked who counts it", |_| {
        redis.scripts_on("{shared}:sessions:lapses") >= 2
    });
    first.eventually("one has counted it", |first| {
        counted(first) + counted(second) == 1
    });
}

fn bytes_of(value: redis::Value) -> Vec<u8> {
    redis::from_redis_value(value).unwrap()
}

fn of_the_set(key: &str) -> String {
    format!("renewd:{{shared}}:sessions:{key}")
}

/// Runs a command with words that aren't text.
fn run(redis: &Redis, words: &[&[u8]]) -> redis::Value {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut command = redis::cmd(std::str::from_utf8(words[0]).unwrap());
    command.arg(&words[1..]).query(&mut connection).unwrap()
}

/// Puts an entry into the set, as a daemon would, under the next version.
fn put(redis: &Redis, name: &[u8], entry: &[u8]) {
    let keys = ["entries", "versions", "ends", "about"].map(of_the_set);
    let [entries, versions, ends, about] = keys.each_ref().map(String::as_bytes);
    let until = (now() + 3600).to_string();
    let script = b"redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
        local version = redis.call('HINCRBY', KEYS[4], 'version', 1)
        local added = redis.call('ZADD', KEYS[2], version, ARGV[1])
        redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
        return redis.call('HINCRBY', KEYS[4], 'count', added)";
    run(
        redis,
        &[
            b"EVAL",
            script,
            b"4",
            entries,
            versions,
            ends,
            about,
            name,
            entry,
            until.as_bytes(),
        ],
    );
}

#[test]
fn what_a_later_version_writes_stays_in_the_store() {
    let redis = Redis::start();
    let (first, second) = (start(&redis), start(&redis));
    assert_eq!(ask(&first, "ann"), FIRST);
    has(&second, &["ann"]);
    let entries = of_the_set("entries");
    let names: Vec<Vec<u8>> =
        redis::from_redis_value(run(&redis, &[b"HKEYS", entries.as_bytes()])).unwrap();
    let name = names[0].as_slice();
    let entry = || bytes_of(run(&redis, &[b"HGET", entries.as_bytes(), name]));
    // A later version has more to say of the session: behind its record, whose length stands before it, and in a mark
    // that this version doesn't know. The record is the only piece: it begins behind five bytes and its length.
    let mut later = entry();
    let length = u16::from_le_bytes([later[5], later[6]]) + 4;
    later[5..7].copy_from_slice(&length.to_le_bytes());
    later[9] |= 0x40;
    later.extend_from_slice(b"more");
    put(&redis, name, &later);
    // An entry whose form only a later version knows.
    put(&redis, b"a later entry", b"\x02anything");
    assert_eq!(ask(&second, "ann"), RENEWED);
    let renewed = expiry(&second, "ann");
    first.eventually("the renewal is known", |first| {
        expiry(first, "ann") == renewed
    });
    // When it was renewed stands in a piece in front, unless that was in its first second.
    let marks = |entry: &[u8]| {
        let first = usize::from(u16::from_le_bytes([entry[5], entry[6]]));
        let session = if entry[7] == 1 { 7 } else { 7 + first + 2 };
        entry[session + 2]
    };
    second.eventually("the renewal is in the store", |_| {
        let now = entry();
        now != later && now.ends_with(b"more") && marks(&now) & 0x40 != 0
    });
    let kept = bytes_of(run(
        &redis,
        &[b"HGET", entries.as_bytes(), b"a later entry"],
    ));
    assert_eq!(kept, b"\x02anything");
    let third = start(&redis);
    has(&third, &["ann"]);
}

#[test]
fn a_store_that_comes_back_empty_or_with_a_part_is_given_everything_by_all() {
    let mut redis = Redis::start();
    let (first, second) = (start(&redis), start(&redis));
    assert_eq!(ask(&first, "ann"), FIRST);
    assert_eq!(ask(&second, "bob"), FIRST);
    for renewd in [&first, &second] {
        has(renewd, &["ann", "bob"]);
    }
    redis.kill();
    for renewd in [&first, &second] {
        renewd.eventually("the store is gone", |renewd| !is_shared(renewd));
    }
    assert_eq!(ask(&first, "carl"), FIRST);
    assert_eq!(ask(&second, "ann"), RENEWED);
    redis.restart();
    for renewd in [&first, &second] {
        has(renewd, &["ann", "bob", "carl"]);
    }
    for key in ["entries", "versions", "ends", "about", "login-key"] {
        redis.run(&format!("DEL {}", of_the_set(key)));
        let third = start(&redis);
        has(&third, &["ann", "bob", "carl"]);
    }
}
