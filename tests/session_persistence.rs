//! Who holds which token survives a restart: after a stop, after a crash, and as far as it can be read after damage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use support::renewd::{Renewd, Settings, login, spawn_under, write_files};

fn journal(directory: &Path) -> PathBuf {
    directory.join("state/sessions.journal")
}

/// Asks for a token as `subject`; status and code.
fn ask(renewd: &Renewd, subject: &str, uid: u32) -> (u16, Value) {
    let body = json!({"channelName": "live_show", "uid": uid}).to_string();
    let answer = renewd.post("/api/live/token", &login(subject), &body);
    (answer.status, answer.json()["code"].clone())
}

fn granted(renewd: &Renewd, subject: &str, uid: u32) {
    assert_eq!(ask(renewd, subject, uid).0, 200, "{subject}");
}

fn taken(renewd: &Renewd, subject: &str, uid: u32) {
    let refused = (409, json!("uid_taken"));
    assert_eq!(ask(renewd, subject, uid), refused, "{subject}");
}

/// Waits until the journal holds a text.
fn wait_for(renewd: &Renewd, text: &str) {
    let path = journal(renewd.directory.path());
    renewd.eventually(&format!("{text} is written down"), |_| {
        let bytes = fs::read(&path).unwrap_or_default();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    });
}

/// Ends the daemon and gives its directory.
fn ended(mut renewd: Renewd, signal: Signal) -> TempDir {
    renewd.signal(signal);
    renewd.wait();
    std::mem::replace(&mut renewd.directory, tempfile::tempdir().unwrap())
}

/// The session of a subject, as the admin listener shows it.
fn session(renewd: &Renewd, subject: &str) -> Value {
    let answer = renewd.ask_admin("GET", &format!("/v1/sessions?subject={subject}"), "");
    answer.json()["sessions"][0].clone()
}

#[test]
fn a_stop_forgets_nothing_not_even_what_was_granted_a_moment_before() {
    let renewd = Renewd::start(&Settings::default());
    granted(&renewd, "viewer", 7);
    granted(&renewd, "viewer", 7);
    granted(&renewd, "owner", 1);
    let before = session(&renewd, "viewer");
    assert_eq!(before["refreshes"], 1);
    let renewd = Renewd::start_in(ended(renewd, Signal::TERM), &[], |_| {});
    assert_eq!(session(&renewd, "viewer"), before);
    assert_eq!(session(&renewd, "owner")["role"], "publisher");
    taken(&renewd, "stranger", 7);
    granted(&renewd, "viewer", 7);
    assert_eq!(session(&renewd, "viewer")["refreshes"], 2);
    assert_eq!(renewd.whole("renewd_state_damaged"), 0);
    assert_eq!(renewd.whole("renewd_state_writable"), 1);
    let refreshes = r#"renewd_token_requests_total{endpoint="refresh",role="subscriber",outcome="ok",class="ok"}"#;
    assert_eq!(renewd.whole(refreshes), 1, "a holder stays a holder");
}

#[test]
fn a_crash_forgets_only_what_was_not_written_down_yet() {
    let renewd = Renewd::start(&Settings::default());
    granted(&renewd, "early-bird", 7);
    wait_for(&renewd, "early-bird");
    // Into the journal that is there, not in its place.
    granted(&renewd, "latecomer", 8);
    wait_for(&renewd, "latecomer");
    let renewd = Renewd::start_in(ended(renewd, Signal::KILL), &[], |_| {});
    taken(&renewd, "stranger", 7);
    taken(&renewd, "stranger", 8);
    assert_eq!(renewd.whole("renewd_state_damaged"), 0);
}

#[test]
fn a_uid_that_a_publisher_took_stays_theirs() {
    let renewd = Renewd::start(&Settings::default());
    granted(&renewd, "viewer", 7);
    wait_for(&renewd, "viewer");
    granted(&renewd, "owner", 7);
    wait_for(&renewd, "owner");
    let renewd = Renewd::start_in(ended(renewd, Signal::KILL), &[], |_| {});
    assert_eq!(session(&renewd, "viewer"), Value::Null);
    taken(&renewd, "viewer", 7);
}

#[test]
fn a_sessions_full_length_is_counted_over_a_restart() {
    let limited = Settings {
        tables: "[policy]\nmax_session = \"30m\"\nmax_streams_per_publisher = 1\n".to_owned(),
        streams: Some(
            ["live_show", "second"]
                .map(|channel| format!("[[stream]]\nchannel = \"{channel}\"\nowner = \"owner\"\n"))
                .concat(),
        ),
        ..Settings::default()
    };
    let renewd = Renewd::start(&limited);
    granted(&renewd, "owner", 1);
    let before = session(&renewd, "owner");
    let renewd = Renewd::start_in(ended(renewd, Signal::TERM), &[], |_| {});
    granted(&renewd, "owner", 1);
    let after = session(&renewd, "owner");
    assert_eq!(after["first_issued"], before["first_issued"]);
    let body = json!({"channelName": "second", "uid": 2}).to_string();
    let answer = renewd.post("/api/live/token", &login("owner"), &body);
    assert_eq!(answer.json()["code"], "too_many_streams");
}

#[test]
fn of_a_damaged_journal_every_intact_record_is_taken() {
    let renewd = Renewd::start(&Settings::default());
    let subjects = [
        "first-viewer",
        "second-viewer",
        "third-viewer",
        "last-viewer",
    ];
    for (uid, subject) in (1..).zip(subjects) {
        granted(&renewd, subject, uid);
    }
    let directory = ended(renewd, Signal::TERM);
    let path = journal(directory.path());
    let mut bytes = fs::read(&path).unwrap();
    // In whichever order they were written: bits flip in the second, the tail of the last is cut off.
    let position = |subject: &str| {
        let mut windows = bytes.windows(subject.len());
        windows.position(|window| window == subject.as_bytes())
    };
    let mut written = subjects;
    written.sort_by_key(|subject| position(subject));
    let [_, flipped, _, cut] = written;
    let at = position(flipped).unwrap();
    bytes[at] ^= 0x20;
    bytes.truncate(bytes.len() - 3);
    fs::write(&path, &bytes).unwrap();

    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(renewd.whole("renewd_state_damaged"), 1);
    renewd.log().wait("error", |line| {
        let said = line["msg"].as_str()?;
        (line["level"] == "error" && said.contains("damaged")).then_some(())
    });
    for subject in subjects {
        let lost = subject == flipped || subject == cut;
        assert_eq!(session(&renewd, subject).is_null(), lost, "{subject}");
    }
    granted(&renewd, "newcomer", 50);
    wait_for(&renewd, "newcomer");
    let renewd = Renewd::start_in(ended(renewd, Signal::KILL), &[], |_| {});
    assert_eq!(renewd.whole("renewd_state_damaged"), 0, "written anew");
    assert!(!session(&renewd, "newcomer").is_null());
}

#[test]
fn a_journal_of_anything_at_all_keeps_nobody_from_being_served() {
    for content in ["", "no journal", &"\u{fe}R\u{1}".repeat(100_000)] {
        let directory = tempfile::tempdir().unwrap();
        write_files(directory.path(), &Settings::default());
        fs::create_dir(directory.path().join("state")).unwrap();
        fs::write(journal(directory.path()), content).unwrap();
        let renewd = Renewd::start_in(directory, &[], |_| {});
        let damaged = u64::from(!content.is_empty());
        assert_eq!(renewd.whole("renewd_state_damaged"), damaged);
        granted(&renewd, "viewer", 7);
        wait_for(&renewd, "viewer");
    }
}

#[test]
fn what_cannot_be_written_is_in_memory_until_it_can() {
    let renewd = Renewd::start(&Settings::default());
    granted(&renewd, "viewer", 7);
    wait_for(&renewd, "viewer");
    // Permissions would not keep root out: a directory stands where the new journal is to be written.
    let path = journal(renewd.directory.path());
    let obstacle = path.with_file_name(".sessions.journal.new");
    fs::create_dir(&obstacle).unwrap();
    fs::remove_file(&path).unwrap();
    let writable = |renewd: &Renewd| renewd.whole("renewd_state_writable") == 1;
    renewd.eventually("it is seen that nothing can be written", |renewd| {
        !writable(renewd)
    });
    granted(&renewd, "unwritten", 8);
    taken(&renewd, "stranger", 8);
    assert_eq!(renewd.reload().status, 200);
    assert!(!writable(&renewd), "a reload mends nothing");
    fs::remove_dir(&obstacle).unwrap();
    renewd.eventually("it is written again", writable);
    wait_for(&renewd, "unwritten");
    let renewd = Renewd::start_in(ended(renewd, Signal::KILL), &[], |_| {});
    taken(&renewd, "stranger", 7);
    taken(&renewd, "stranger", 8);
}

#[test]
fn a_disk_that_fills_up_costs_what_it_would_keep_until_there_is_room_again() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &Settings::default());
    let config = directory.path().join("config.toml");
    // The one full disk that needs no privilege: files of at most 32 KiB, and no signal when they are full.
    let (child, log) = spawn_under(
        "trap '' XFSZ && ulimit -S -f 32",
        &["run", "--config", config.to_str().unwrap()],
    );
    let renewd = Renewd::ready(child, log, directory);
    granted(&renewd, "early-bird", 1);
    wait_for(&renewd, "early-bird");
    let writable = |renewd: &Renewd| renewd.whole("renewd_state_writable") == 1;
    assert!(writable(&renewd));
    for uid in 2..200 {
        granted(&renewd, &format!("viewer-{uid}-{}", "x".repeat(200)), uid);
    }
    renewd.eventually("it is full", |renewd| !writable(renewd));
    granted(&renewd, "latecomer", 1000);
    taken(&renewd, "stranger", 199);
    let written = fs::metadata(journal(renewd.directory.path())).unwrap();
    assert!(written.len() <= 32 * 1024);
    let unfinished = renewd.file("state/.sessions.journal.new");
    renewd.eventually("what can't be finished takes no room", |_| {
        !unfinished.exists()
    });

    let pid = Pid::from_raw(renewd.pid().try_into().unwrap());
    let unlimited = Rlimit {
        current: None,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    prlimit(pid, Resource::Fsize, unlimited).expect("a limit of our child");
    renewd.eventually("there is room again", writable);
    wait_for(&renewd, "latecomer");
    let renewd = Renewd::start_in(ended(renewd, Signal::KILL), &[], |_| {});
    assert_eq!(renewd.whole("renewd_state_damaged"), 0);
    for uid in [1, 2, 199, 1000] {
        taken(&renewd, "stranger", uid);
    }
}

#[test]
fn a_state_directory_that_comes_late_is_taken_up_with_what_it_holds() {
    let renewd = Renewd::start(&Settings::default());
    granted(&renewd, "early-bird", 7);
    granted(&renewd, "viewer", 8);
    let directory = ended(renewd, Signal::TERM);
    let (state, away) = (
        directory.path().join("state"),
        directory.path().join("away"),
    );
    fs::rename(&state, &away).unwrap();
    fs::write(&state, "").unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(renewd.whole("renewd_state_writable"), 0);
    granted(&renewd, "stranger", 7);
    fs::remove_file(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    renewd.eventually("it is taken up", |renewd| {
        renewd.whole("renewd_state_writable") == 1
    });
    taken(&renewd, "newcomer", 8);
    wait_for(&renewd, "stranger");
}

#[test]
fn without_a_state_directory_nothing_is_written_and_nothing_survives() {
    let directory = tempfile::tempdir().unwrap();
    write_files(directory.path(), &Settings::default());
    let path = directory.path().join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("directory = "))
        .unwrap();
    let memory = text.replace(line, "directory = \"\"");
    fs::write(&path, memory).unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    granted(&renewd, "viewer", 7);
    let directory = ended(renewd, Signal::TERM);
    assert!(!directory.path().join("state").exists());
    let renewd = Renewd::start_in(directory, &[], |_| {});
    granted(&renewd, "stranger", 7);
    assert_eq!(renewd.whole("renewd_state_writable"), 1);
}
