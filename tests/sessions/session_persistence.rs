//! Sessions survive a restart: after a stop, after a crash, and as far as the journal can be read after damage.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::renewd::{Renewd, Settings, jwt, login, now, spawn_under, write_files};
use crate::support::scripted::Scripted;
use renewd::logins::remembered::Login;
use renewd::sessions::{Grounds, Records, SessionRecord, SessionUser, StoredSession};
use renewd::state::directory::StateDirectory;
use renewd::state::journal;
use renewd::terms::role::Role;

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
    // The daemon writes into the journal that is there, not in its place.
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
    // The order of the records doesn't matter: bits flip in the second, and the tail of the last is cut off.
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
fn a_journal_of_anything_at_all_keeps_no_caller_from_being_served() {
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
    // A limit of 32 KiB a file, without a signal, is the only full disk that a test can have without privileges.
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
    // The directory comes in one step, because the daemon tries again meanwhile and would make a directory of its own.
    renameat_with(CWD, &away, CWD, &state, RenameFlags::EXCHANGE).unwrap();
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

/// A publisher's or viewer's request with a login of this session; its status.
fn phone(renewd: &Renewd, subject: &str, session: &str, uid: u32) -> u16 {
    let login = jwt(&json!({"sub": subject, "sid": session, "exp": now() + 3600}));
    let body = json!({"channelName": "live_show", "uid": uid}).to_string();
    renewd.post("/api/live/token", &login, &body).status
}

/// Accounts that are asked over HTTP; logins that say their session.
fn with_accounts(accounts: &Scripted) -> Settings {
    Settings {
        jwt: "session_claim = \"sid\"".to_owned(),
        sources: Some(format!(
            "[accounts]\nsource = \"http\"\nurl = \"{}\"\ncache_ttl = \"0s\"\n\n\
             [streams]\nsource = \"file\"\nfile = \"streams.toml\"\n\n",
            accounts.url("/account")
        )),
        tables: "[rate_limit]\nsubject = \"off\"\n".to_owned(),
        ..Settings::default()
    }
}

#[test]
fn what_accounts_refused_and_which_session_was_the_latest_is_known_after_a_crash_too() {
    let accounts = Scripted::start();
    accounts.answer(200, "{}");
    let renewd = Renewd::start(&with_accounts(&accounts));
    for (subject, session, uid) in [
        ("owner", "old", 1),
        ("owner", "new", 2),
        ("viewer", "logged-out", 7),
        ("viewer", "here", 7),
        ("bystander", "b", 8),
    ] {
        assert_eq!(phone(&renewd, subject, session, uid), 200);
    }
    wait_for(&renewd, "bystander");
    accounts.answer(401, "{}");
    assert_eq!(phone(&renewd, "viewer", "logged-out", 7), 401);
    // A grant to another login of the subject says nothing of this one.
    accounts.answer(200, "{}");
    assert_eq!(phone(&renewd, "viewer", "here", 7), 200);
    accounts.answer(403, "{}");
    assert_eq!(phone(&renewd, "bystander", "b", 8), 403);
    let after_the_outage = |renewd: &Renewd| {
        for (subject, session, uid, status) in [
            ("owner", "old", 1, 503),
            ("owner", "new", 2, 200),
            ("viewer", "logged-out", 7, 503),
            ("viewer", "here", 7, 200),
            ("bystander", "b", 8, 503),
        ] {
            let found = phone(renewd, subject, session, uid);
            assert_eq!(found, status, "{subject} {session}");
        }
    };
    accounts.close();
    after_the_outage(&renewd);
    wait_for_refusals(&renewd, 2);
    let renewd = Renewd::start_in(ended(renewd, Signal::KILL), &[], |_| {});
    after_the_outage(&renewd);
    let key = renewd.file("state/logins.key");
    let metadata = fs::metadata(&key).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    assert_eq!((metadata.len(), mode & 0o777), (32, 0o600));
    // After a stop it is the same, and a daemon without the key takes every login of a holder for one that may rest.
    let directory = ended(renewd, Signal::TERM);
    fs::remove_file(directory.path().join("state/logins.key")).unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(renewd.whole("renewd_state_damaged"), 0);
    assert_eq!(phone(&renewd, "owner", "old", 1), 200);
    let directory = ended(renewd, Signal::TERM);
    fs::write(directory.path().join("state/logins.key"), "half").unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(phone(&renewd, "owner", "new", 2), 200);
    let key = renewd.file("state/logins.key");
    renewd.eventually("a whole key is written", |_| {
        fs::metadata(&key).unwrap().len() == 32
    });
}

/// Waits until so many refusals of logins are written down.
fn wait_for_refusals(renewd: &Renewd, count: usize) {
    let path = journal(renewd.directory.path());
    renewd.eventually("refusals are written down", |_| {
        let bytes = fs::read(&path).unwrap_or_default();
        let riders = bytes.windows(2).filter(|window| window == b"\0r");
        riders.count() >= count
    });
}

/// The journal of a daemon that knew neither hashes nor which source had said no: in order a viewer with a string
/// account, a co-host, a viewer that was refused a uid, a host, a viewer that renewed, `outcast`, the owner, uid 0, one
/// whose uid a publisher took, then what changed: among it `outcast` banned.
const FIRST_FORMAT: &[u8] = include_bytes!("first-format.journal");

fn records(bytes: &[u8], mut each: impl FnMut(&[u8])) -> journal::JournalReading {
    let parent = tempfile::tempdir().unwrap();
    let directory = StateDirectory::open(parent.path()).unwrap();
    fs::write(parent.path().join("a.journal"), bytes).unwrap();
    let (reading, result) = journal::read(&directory, "a.journal", &mut each);
    result.unwrap();
    reading
}

#[test]
fn a_journal_of_the_first_format_is_read_as_it_was_meant() {
    let mut sessions = Vec::<StoredSession>::new();
    let mut forgotten = Vec::new();
    let mut reader = Records::new(7);
    let reading = records(FIRST_FORMAT, |bytes| match reader.decode(bytes) {
        Some(SessionRecord::Session(kept)) => {
            sessions.retain(|known| known.identity != kept.identity);
            sessions.push(kept);
        }
        Some(SessionRecord::Forgotten(identity)) => forgotten.push(identity),
        other => panic!("{other:?}"),
    });
    assert_eq!((reading.records, reading.damaged_bytes), (13, 0));
    assert_eq!(forgotten.len(), 1);
    assert_eq!(forgotten[0].subject, "taken");
    for kept in &sessions {
        let subject = kept.identity.subject.as_str();
        assert_eq!(kept.login, None, "{subject}");
        let lacks = if subject == "outcast" {
            Grounds::ALL
        } else {
            Grounds::NONE
        };
        assert_eq!(kept.lacks, lacks, "{subject}");
        assert_eq!(kept.refused, ["outcast", "refused"].contains(&subject));
        let publisher = ["owner", "cohost", "65f000000000000000000002"].contains(&subject);
        assert_eq!(kept.role == Role::Publisher, publisher, "{subject}");
    }
    let named = sessions
        .iter()
        .find(|kept| kept.identity.subject == "named");
    assert_eq!(
        named.unwrap().identity.user,
        SessionUser::Account("ann".into())
    );
    let viewer = sessions
        .iter()
        .find(|kept| kept.identity.subject == "viewer");
    assert_eq!(viewer.unwrap().refreshes, 1);
}

/// The result of the first format's reader for a record: `None` counts as damage, `Some` names a session and says
/// whether it is there.
fn first_reader(bytes: &[u8]) -> Option<(String, String, SessionUser, bool)> {
    fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
        let (taken, left) = rest.split_at_checked(length)?;
        *rest = left;
        Some(taken)
    }
    fn text(rest: &mut &[u8]) -> Option<String> {
        let length = take(rest, 2)?;
        let length = u16::from_le_bytes([length[0], length[1]]);
        String::from_utf8(take(rest, usize::from(length))?.to_vec()).ok()
    }
    let mut rest = bytes;
    let is_session = match take(&mut rest, 1)? {
        [1] => {
            let [role, marks] = *take(&mut rest, 2)? else {
                return None;
            };
            if role > 1 || marks & !7 != 0 {
                return None;
            }
            take(&mut rest, 14)?;
            true
        }
        [2] => false,
        _ => return None,
    };
    let (channel, subject) = (text(&mut rest)?, text(&mut rest)?);
    let user = match take(&mut rest, 1)? {
        [0] => {
            let uid = take(&mut rest, 4)?;
            SessionUser::Uid(u32::from_le_bytes([uid[0], uid[1], uid[2], uid[3]]))
        }
        [1] => SessionUser::Account(text(&mut rest)?.into()),
        _ => return None,
    };
    rest.is_empty()
        .then_some((channel, subject, user, is_session))
}

#[test]
fn the_first_formats_reader_finds_no_damage_in_what_is_written_today() {
    let accounts = Scripted::start();
    accounts.answer(200, "{}");
    let renewd = Renewd::start(&with_accounts(&accounts));
    let subjects = ["owner", "viewer", "bystander"];
    for (uid, subject) in (1..).zip(subjects) {
        assert_eq!(phone(&renewd, subject, "one", uid), 200);
    }
    accounts.answer(403, "{}");
    assert_eq!(phone(&renewd, "viewer", "one", 2), 403);
    accounts.answer(401, "{}");
    assert_eq!(phone(&renewd, "bystander", "one", 3), 401);
    let directory = ended(renewd, Signal::TERM);
    let bytes = fs::read(journal(directory.path())).unwrap();
    let (mut sessions, mut riders, mut denied) = (Vec::new(), 0, Vec::new());
    let reading = records(&bytes, |bytes| {
        let (channel, subject, user, there) = first_reader(bytes).expect("no damage");
        match user {
            SessionUser::Account(text) if text.starts_with('\0') => {
                assert!(!there && channel.is_empty() && subject.is_empty());
                riders += 1;
            }
            _ => {
                assert!(there && channel == "live_show");
                if bytes[2] & 4 != 0 {
                    denied.push(subject.clone());
                }
                sessions.push(subject);
            }
        }
    });
    assert_eq!(reading.damaged_bytes, 0);
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions, ["bystander", "owner", "viewer"]);
    // Each session has its login beside it. A login and a subject are refused; the first version knows the latter.
    assert!(riders >= 5, "{riders}");
    assert_eq!(denied.last().map(String::as_str), Some("viewer"));
    // This version, which has the key, reads the same.
    let key = fs::read(directory.path().join("state/logins.key")).unwrap();
    let logins = renewd::logins::remembered::Logins::default();
    logins.adopt(key.try_into().unwrap());
    let mut reader = Records::new(logins.key_name());
    let (mut known, mut refused) = (Vec::<Option<Login>>::new(), 0);
    records(&bytes, |bytes| match reader.decode(bytes) {
        Some(SessionRecord::Session(kept)) => known.push(kept.login),
        Some(SessionRecord::Refused(_)) => refused += 1,
        Some(SessionRecord::Unknown) => {}
        other => panic!("{other:?}"),
    });
    assert!(known.len() >= 3 && known.iter().all(Option::is_some));
    assert_eq!(refused, 2);
}
