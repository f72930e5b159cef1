//! Revocations survive a restart: what was acknowledged is there after a crash, and as far as the journal can be read
//! after damage.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::lifecycle::try_to_revoke;
use crate::support::random::Numbers;
use crate::support::raw::Response;
use crate::support::renewd::{
    Renewd, Settings, login, now, private_file, spawn_under, write_files,
};
use renewd::revocation::RevocationRecord;
use renewd::state::directory::StateDirectory;
use renewd::state::journal::{self, Journal};

const JOURNAL: &str = "revocations.journal";

fn journal(renewd: &Renewd) -> PathBuf {
    renewd.file("state").join(JOURNAL)
}

fn post(renewd: &Renewd, body: &Value) -> Response {
    renewd.ask_admin("POST", "/v1/revocations", &body.to_string())
}

fn revoke(renewd: &Renewd, subject: &str) -> Value {
    let answer = post(renewd, &json!({"subject": subject, "for": "1h"}));
    assert_eq!(answer.status, 201);
    answer.json()
}

fn lift(renewd: &Renewd, told: &Value) -> Response {
    let id = told["id"].as_str().expect("an id");
    renewd.ask_admin("DELETE", &format!("/v1/revocations/{id}"), "")
}

fn is_revoked(renewd: &Renewd, subject: &str) -> bool {
    let body = r#"{"channelName":"live_show","uid":0}"#;
    let answer = renewd.post("/api/live/token", &login(subject), body);
    match answer.status {
        403 => answer.json()["code"] == "revoked",
        _ => false,
    }
}

fn settings() -> Settings {
    Settings {
        token: "zero_uid = \"allow\"".to_owned(),
        ..Settings::default()
    }
}

/// Ends the daemon and gives its directory.
fn ended(mut renewd: Renewd, signal: Signal) -> TempDir {
    renewd.signal(signal);
    renewd.wait();
    std::mem::replace(&mut renewd.directory, tempfile::tempdir().unwrap())
}

fn again(renewd: Renewd, signal: Signal) -> Renewd {
    Renewd::start_in(ended(renewd, signal), &[], |_| {})
}

#[test]
fn what_was_acknowledged_survives_a_stop_and_a_crash() {
    let renewd = Renewd::start(&settings());
    let first = revoke(&renewd, "first");
    revoke(&renewd, "second");
    let renewd = again(renewd, Signal::TERM);
    assert!(is_revoked(&renewd, "first") && is_revoked(&renewd, "second"));
    assert_eq!(renewd.whole("renewd_revocations"), 2);
    assert_eq!(lift(&renewd, &first).status, 200);
    revoke(&renewd, "third");
    let renewd = again(renewd, Signal::KILL);
    let expected = ["second", "third"].map(str::to_owned);
    assert_eq!(renewd.revoked_subjects(), BTreeSet::from(expected));
    assert!(!is_revoked(&renewd, "first"));
    assert_eq!(renewd.whole("renewd_state_damaged"), 0);
}

/// How many revocations are made in all.
const WRITES: usize = 1000;

/// Makes revocations of numbered subjects, four clients at a time, and kills the daemon after so many answers. Gives
/// the revocations that were acknowledged.
fn write_until_killed(renewd: &Renewd, next: &AtomicUsize, kill_after: usize) -> Vec<String> {
    let acknowledged = Mutex::new(Vec::new());
    let client = || {
        while let number @ 0..WRITES = next.fetch_add(1, Ordering::SeqCst) {
            let subject = format!("subject-{number}");
            let body = json!({"subject": subject, "for": "1h"}).to_string();
            let Some(status) = try_to_revoke(renewd.admin, &body) else {
                return;
            };
            assert_eq!(status, 201);
            let mut acknowledged = acknowledged.lock().unwrap();
            acknowledged.push(subject);
            if acknowledged.len() == kill_after {
                renewd.signal(Signal::KILL);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(client);
        }
    });
    acknowledged.into_inner().unwrap()
}

#[test]
fn a_thousand_writes_with_kills_between_them_lose_none_that_was_acknowledged() {
    let seed = now();
    println!("seed {seed}");
    let mut numbers = Numbers(seed);
    let mut renewd = Renewd::start(&settings());
    let (mut acknowledged, mut kills) = (BTreeSet::new(), 0);
    let next = AtomicUsize::new(0);
    while next.load(Ordering::SeqCst) < WRITES {
        let kill_after = 1 + usize::try_from(numbers.below(100)).unwrap();
        acknowledged.extend(write_until_killed(&renewd, &next, kill_after));
        renewd = again(renewd, Signal::KILL);
        kills += 1;
        let kept = renewd.revoked_subjects();
        let lost: Vec<_> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "seed {seed}, kill {kills}: {lost:?}");
        assert_eq!(renewd.whole("renewd_state_damaged"), 0, "seed {seed}");
    }
    println!("{} acknowledged, {kills} kills", acknowledged.len());
}

#[test]
fn a_damaged_journal_gives_back_every_intact_record() {
    let renewd = Renewd::start(&settings());
    for subject in ["first", "second", "third"] {
        revoke(&renewd, subject);
    }
    let path = journal(&renewd);
    let directory = ended(renewd, Signal::KILL);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes
        .windows(6)
        .position(|window| window == b"second")
        .unwrap();
    bytes[at] ^= 0xff;
    // A last record that a power cut has left half-written.
    bytes.extend_from_within(..20);
    fs::write(&path, bytes).unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    let expected = ["first", "third"].map(str::to_owned);
    assert_eq!(renewd.revoked_subjects(), BTreeSet::from(expected));
    assert_eq!(renewd.whole("renewd_state_damaged"), 1);
    revoke(&renewd, "fourth");
    let renewd = again(renewd, Signal::KILL);
    assert_eq!(renewd.revoked_subjects().len(), 3);
    assert_eq!(renewd.whole("renewd_state_damaged"), 0);
}

#[test]
fn on_a_full_disk_a_revocation_is_in_force_and_said_to_be_unwritten_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &settings());
    let config = directory.path().join("config.toml");
    // A limit of 8 KiB a file, without a signal, is the only full disk that a test can have without privileges.
    let (child, log) = spawn_under(
        "trap '' XFSZ && ulimit -S -f 8",
        &["run", "--config", config.to_str().unwrap()],
    );
    let renewd = Renewd::ready(child, log, directory);
    let reason = "x".repeat(1000);
    let unwritten = (0..20).find_map(|number| {
        let subject = format!("subject-{number}");
        let body = json!({"subject": subject, "for": "1h", "reason": reason});
        let answer = post(&renewd, &body);
        assert!(is_revoked(&renewd, &subject));
        (answer.status != 201).then_some((subject, answer))
    });
    let (subject, answer) = unwritten.expect("a full disk");
    let told = answer.json();
    assert_eq!(
        (answer.status, &told["code"]),
        (507, &json!("state_not_written"))
    );
    assert_eq!(
        (&told["success"], &told["durable"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(told["subject"], json!(subject));
    assert_eq!(renewd.whole("renewd_state_writable"), 0);

    let pid = Pid::from_raw(renewd.pid().try_into().unwrap());
    let unlimited = Rlimit {
        current: None,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    prlimit(pid, Resource::Fsize, unlimited).expect("a limit of our child");
    renewd.eventually("there is room again", |renewd| {
        renewd.whole("renewd_state_writable") == 1
    });
    let renewd = again(renewd, Signal::KILL);
    assert!(is_revoked(&renewd, &subject));
    assert_eq!(renewd.whole("renewd_state_damaged"), 0);
}

#[test]
fn a_state_directory_that_comes_late_is_taken_up_with_what_it_holds() {
    let renewd = Renewd::start(&settings());
    revoke(&renewd, "early");
    let directory = ended(renewd, Signal::TERM);
    let (state, away) = (
        directory.path().join("state"),
        directory.path().join("away"),
    );
    fs::rename(&state, &away).unwrap();
    fs::write(&state, "").unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    let answer = post(&renewd, &json!({"subject": "late", "for": "1h"}));
    assert_eq!(answer.status, 507);
    // The directory comes in one step, because the daemon tries again meanwhile and would make a directory of its own.
    renameat_with(CWD, &away, CWD, &state, RenameFlags::EXCHANGE).unwrap();
    renewd.eventually("both are in force", |renewd| {
        renewd.revoked_subjects().len() == 2 && renewd.whole("renewd_state_writable") == 1
    });
    let renewd = again(renewd, Signal::KILL);
    let expected = ["early", "late"].map(str::to_owned);
    assert_eq!(renewd.revoked_subjects(), BTreeSet::from(expected));
}

#[test]
fn without_a_state_directory_a_revocation_is_in_force_and_is_not_durable() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &settings());
    let path = directory.path().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    private_file(
        &path,
        &text.replace("directory = \"state\"", "directory = \"\""),
    );
    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(revoke(&renewd, "viewer")["durable"], false);
    assert!(is_revoked(&renewd, "viewer"));
}

#[test]
fn records_of_a_later_build_are_kept_and_not_applied() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &settings());
    let later = br#"{"v":2,"subject":"viewer","device":"phone","until":4000000000}"#;
    let extended = br#"{"v":1,"id":"01a3185c500100000000000000000000","subject":"ann","created":1,"until":4000000000,"note":7}"#;
    let state = Arc::new(StateDirectory::open(&directory.path().join("state")).unwrap());
    let mut written = Journal::new(Arc::clone(&state), JOURNAL);
    let mut batch = written.begin(true).unwrap();
    batch.write(later).unwrap();
    batch.write(extended).unwrap();
    batch.finish().unwrap();
    drop((written, state));

    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert!(!is_revoked(&renewd, "viewer"));
    assert!(is_revoked(&renewd, "ann"));
    renewd.log().wait("a warning", |line| {
        let message = line["msg"].as_str()?;
        message.contains("written by a later renewd").then_some(())
    });
    // The first change writes the journal anew.
    revoke(&renewd, "bob");
    let directory = ended(renewd, Signal::KILL);
    let state = StateDirectory::open(&directory.path().join("state")).unwrap();
    let mut records: Vec<Vec<u8>> = Vec::new();
    journal::read(&state, JOURNAL, |bytes| records.push(bytes.to_vec()))
        .1
        .unwrap();
    assert!(records.contains(&later.to_vec()));
    assert!(records.contains(&extended.to_vec()));
    assert_eq!(records.len(), 3);
    let made = |record: &Vec<u8>| {
        matches!(
            RevocationRecord::decode(record),
            Some(RevocationRecord::Made(_))
        )
    };
    assert_eq!(records.iter().filter(|record| made(record)).count(), 2);
}
