//! A reload: the ways to ask for it, the settings that take effect, and those that it never changes.

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::support::lifecycle::{replace_file, with_lifetime};
use crate::support::raw::Client;
use crate::support::renewd::{
    APP_CERTIFICATE, JWT_SECRET, Renewd, Settings, configuration, login, private_file, spawn_under,
    write_files,
};
use crate::support::wire::Wire;

const SUCCESSFUL: &str = "renewd_config_last_reload_successful";

/// Waits until a change of the file has been applied, which is when the hash of the configuration changes.
fn applied(renewd: &Renewd, change: impl FnOnce()) {
    let before = renewd.whole("renewd_config_hash");
    change();
    renewd.eventually("the change takes effect", |renewd| {
        renewd.whole("renewd_config_hash") != before
    });
}

/// Waits until an invalid file has been noticed.
fn refused(renewd: &Renewd, change: impl FnOnce()) {
    change();
    renewd.eventually("the file is refused", |renewd| renewd.whole(SUCCESSFUL) < 1);
}

fn messages(renewd: &Renewd, level: &str) -> Vec<String> {
    let lines = renewd.log().lines();
    let of_level = lines.iter().filter(|line| line["level"] == level);
    of_level
        .map(|line| line["msg"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn saving_the_file_in_place_is_enough() {
    let renewd = Renewd::start(&Settings::default());
    assert_eq!(renewd.lifetime(), 3600);
    applied(&renewd, || {
        let file = renewd.file("config.toml");
        fs::write(file, configuration(&with_lifetime("20m"))).unwrap();
    });
    assert_eq!(renewd.lifetime(), 1200);
}

#[test]
fn a_new_file_renamed_over_the_old_one_is_enough_every_time() {
    let renewd = Renewd::start(&Settings::default());
    for minutes in [20, 25, 30] {
        let settings = with_lifetime(&format!("{minutes}m"));
        applied(&renewd, || renewd.configure(&settings));
        assert_eq!(renewd.lifetime(), minutes * 60);
    }
}

/// `config.toml` → `..data/config.toml`, `..data` → `..VERSION`, as Kubernetes lays a config map out.
fn lay_out(directory: &Path, version: &str, settings: &Settings) {
    let content = directory.join(version);
    fs::create_dir(&content).unwrap();
    private_file(&content.join("config.toml"), &configuration(settings));
    let new = directory.join("..data_tmp");
    symlink(version, &new).unwrap();
    fs::rename(new, directory.join("..data")).unwrap();
}

#[test]
fn a_mounted_config_map_is_followed_as_kubernetes_swaps_it() {
    let directory = tempfile::tempdir().unwrap();
    support::renewd::write_files(directory.path(), &Settings::default());
    fs::remove_file(directory.path().join("config.toml")).unwrap();
    lay_out(directory.path(), "..1", &Settings::default());
    symlink("..data/config.toml", directory.path().join("config.toml")).unwrap();
    let renewd = Renewd::start_in(directory, &[], |_| {});
    for (version, minutes) in [("..2", 20), ("..3", 25)] {
        let settings = with_lifetime(&format!("{minutes}m"));
        applied(&renewd, || {
            lay_out(renewd.directory.path(), version, &settings);
        });
        assert_eq!(renewd.lifetime(), minutes * 60);
    }
}

#[test]
fn a_hang_up_signal_reloads() {
    let renewd = Renewd::start(&Settings::default());
    renewd.configure(&with_lifetime("20m"));
    renewd.signal(Signal::HUP);
    renewd.log().wait("reload by signal", |line| {
        (line["trigger"] == "signal").then_some(())
    });
    assert_eq!(renewd.lifetime(), 1200);
}

#[test]
fn a_posted_reload_says_what_changed() {
    let renewd = Renewd::start(&Settings::default());
    let changed = json!({
        "success": true, "changed": ["token"], "restart_required": [], "warnings": []
    });
    // On a busy machine the watcher may be first, and nothing is left to change.
    let lifetimes = (20..40).map(|minutes| format!("{minutes}m"));
    let mut answers = lifetimes.map(|lifetime| renewd.reconfigure(&with_lifetime(&lifetime)));
    assert!(answers.any(|answer| answer == changed));
    let again = renewd.reload().json();
    assert_eq!(again["changed"], json!([]));
}

#[test]
fn a_reload_that_changed_a_source_does_not_say_that_nothing_changed() {
    let renewd = Renewd::start(&Settings::default());
    let with = |tables: &str| Settings {
        tables: tables.to_owned(),
        ..Settings::default()
    };
    let sessions = "[sessions]\nmax = 1000\n";
    let mongodb = "[mongodb]\nuri = \"mongodb://app:pw@127.0.0.1:1/live\"\n";
    applied(&renewd, || renewd.configure(&with(mongodb)));
    applied(&renewd, || renewd.configure(&with(sessions)));
    renewd.eventually("the log names the tables", |renewd| {
        let said = messages(renewd, "info");
        let named = |what: &str| said.iter().any(|line| line == what);
        named("configuration reloaded: mongodb")
            && named("configuration reloaded: mongodb, sessions")
    });
    let said = messages(&renewd, "info");
    assert!(
        !said.iter().any(|line| line.contains("nothing changed")),
        "{said:?}"
    );
}

#[test]
fn a_posted_reload_of_an_invalid_file_names_every_error() {
    let renewd = Renewd::start(&Settings::default());
    let text = configuration(&with_lifetime("forever")) + "[polizy]\nbind_uid = true\n";
    replace_file(&renewd.file("config.toml"), &text);
    let answer = renewd.reload();
    assert_eq!(answer.status, 422);
    let answer = answer.json();
    assert_eq!(answer["code"], "invalid_config");
    let errors: Vec<_> = answer["errors"].as_array().unwrap().iter().collect();
    let keys: Vec<_> = errors
        .iter()
        .map(|error| error["key"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["token.lifetime", "polizy"]);
    let line = text
        .lines()
        .position(|line| line.starts_with("lifetime"))
        .unwrap()
        + 1;
    assert_eq!(errors[0]["line"], line);
    assert!(
        errors.iter().all(|error| error["hint"].is_string()),
        "{errors:?}"
    );
    assert_eq!(renewd.lifetime(), 3600);
}

#[test]
fn a_reload_needs_the_admin_token() {
    let renewd = Renewd::start(&Settings::default());
    renewd.configure(&with_lifetime("20m"));
    assert_eq!(
        renewd
            .ask_admin_as("wrong", "POST", "/-/reload", "{}")
            .status,
        401
    );
}

#[test]
fn an_invalid_file_changes_nothing_and_is_said_until_it_is_mended() {
    let renewd = Renewd::start(&with_lifetime("20m"));
    let hash = renewd.whole("renewd_config_hash");
    let valid = configuration(&with_lifetime("25m"));
    let half_written = &valid[..valid.len() / 2];
    let half_a_line = &valid[..valid.find("lifetime = ").unwrap() + 11];
    let misspelt = valid.replace("lifetime", "livetime");
    for (what, text) in [
        ("empty", ""),
        ("half written", half_written),
        ("cut in a line", half_a_line),
        ("misspelt", &misspelt),
    ] {
        let before = messages(&renewd, "error").len();
        refused(&renewd, || replace_file(&renewd.file("config.toml"), text));
        assert_eq!(renewd.lifetime(), 1200, "{what}");
        assert_eq!(renewd.whole("renewd_config_hash"), hash, "{what}");
        let status = renewd.status();
        assert_eq!(status["config"]["last_reload_successful"], false, "{what}");
        assert!(
            !status["config"]["problems"].as_array().unwrap().is_empty(),
            "{what}"
        );
        renewd.eventually("the log says why", |renewd| {
            let said = messages(renewd, "error").split_off(before);
            said.iter().any(|said| said.contains("config.toml:"))
                && said
                    .iter()
                    .any(|said| said.contains("the running configuration stays"))
        });
        assert!(
            messages(&renewd, "error")
                .iter()
                .all(|said| !said.contains('\n')),
            "{what}"
        );

        // The file is valid again, and the same as the configuration in force.
        replace_file(
            &renewd.file("config.toml"),
            &configuration(&with_lifetime("20m")),
        );
        renewd.eventually("it recovers", |renewd| renewd.whole(SUCCESSFUL) > 0);
        assert_eq!(renewd.status()["config"]["problems"], json!([]), "{what}");
    }
    renewd.configure(&with_lifetime("25m"));
    renewd.eventually("the new value", |renewd| {
        renewd.whole("renewd_config_hash") != hash
    });
    assert_eq!(renewd.lifetime(), 1500);
}

#[test]
fn a_file_put_back_before_its_change_was_seen_is_not_called_invalid_for_ever() {
    let renewd = Renewd::start(&Settings::default());
    for _ in 0..3 {
        // The operator's reload sees the empty file; the watching, which waits for quiet, finds the file unchanged.
        replace_file(&renewd.file("config.toml"), "");
        let refused = renewd.reload().status;
        renewd.configure(&Settings::default());
        assert_ne!(refused, 200);
        renewd.eventually("it recovers", |renewd| renewd.whole(SUCCESSFUL) > 0);
        assert_eq!(renewd.status()["config"]["problems"], json!([]));
    }
}

#[test]
fn a_configuration_refused_for_a_missing_file_is_taken_when_the_file_comes() {
    let renewd = Renewd::start(&Settings::default());
    let text = configuration(&Settings::default()).replace(
        &format!("app_certificate = \"{APP_CERTIFICATE}\""),
        "app_certificate_file = \"certificate\"",
    );
    refused(&renewd, || replace_file(&renewd.file("config.toml"), &text));
    private_file(&renewd.file("certificate"), APP_CERTIFICATE);
    renewd.eventually("it recovers", |renewd| renewd.whole(SUCCESSFUL) > 0);
}

#[test]
fn what_only_a_restart_can_change_is_named_and_the_rest_applied() {
    let usual = Settings::default();
    let renewd = Renewd::start(&usual);
    let other = configuration(&with_lifetime("20m"))
        .replace("listen = [\"127.0.0.1:0\"]", "listen = [\"127.0.0.2:0\"]")
        .replace("workers = 2", "workers = 1")
        .replace("listen = \"127.0.0.1:0\"", "listen = \"127.0.0.2:0\"")
        .replace("directory = \"state\"", "directory = \"elsewhere\"");
    replace_file(&renewd.file("config.toml"), &other);
    let answer = renewd.reload();
    assert_eq!(answer.status, 200);
    let waiting = json!([
        "server.listen",
        "server.workers",
        "admin.listen",
        "state.directory"
    ]);
    assert_eq!(answer.json()["restart_required"], waiting);
    assert_eq!(renewd.lifetime(), 1200);
    assert_eq!(renewd.whole("renewd_config_restart_required"), 1);
    assert_eq!(renewd.status()["config"]["restart_required"], waiting);
    let said = messages(&renewd, "info");
    assert!(
        said.iter()
            .any(|said| said.contains("restart required for server.listen")),
        "{said:?}"
    );

    let answer = renewd.reconfigure(&usual);
    assert_eq!(answer["restart_required"], json!([]));
    assert_eq!(renewd.whole("renewd_config_restart_required"), 0);
}

#[test]
fn the_streams_file_is_followed_without_a_reload_of_the_configuration() {
    let renewd = Renewd::start(&Settings::default());
    assert_eq!(renewd.ask_for_token().status, 200);
    replace_file(
        &renewd.file("streams.toml"),
        "[[stream]]\nchannel = \"another\"\nowner = \"owner\"\nlive = true\n",
    );
    renewd.log().wait("new streams", |line| {
        (line["msg"] == "streams reloaded").then_some(())
    });
    assert_eq!(renewd.ask_for_token().status, 404);
    let reloads = renewd
        .log()
        .lines()
        .into_iter()
        .filter(|line| line["trigger"].is_string());
    assert_eq!(reloads.count(), 0);
    let status = renewd.status();
    assert_eq!(
        status["config"]["loaded_at"],
        status["config"]["last_reload_at"]
    );
}

#[test]
fn a_streams_file_that_cannot_be_used_is_not_called_reloaded() {
    let renewd = Renewd::start(&Settings::default());
    replace_file(&renewd.file("streams.toml"), "[[stream\n");
    renewd.log().wait("the error", |line| {
        let said = line["msg"].as_str()?;
        said.contains("streams file is invalid").then_some(())
    });
    replace_file(&renewd.file("streams.toml"), "stream = []\n");
    renewd.log().wait("new streams", |line| {
        (line["msg"] == "streams reloaded" && line["channels"] == 0).then_some(())
    });
    let said = messages(&renewd, "info");
    let reloaded = said.iter().filter(|said| *said == "streams reloaded");
    assert_eq!(reloaded.count(), 1, "{said:?}");
}

#[test]
fn streams_are_followed_while_the_configuration_is_invalid() {
    let renewd = Renewd::start(&Settings::default());
    assert_eq!(renewd.ask_for_token().status, 200);
    // A deployment writes both at once.
    replace_file(&renewd.file("config.toml"), "");
    replace_file(&renewd.file("streams.toml"), "stream = []\n");
    let gone = |line: &Value| (line["msg"] == "streams reloaded").then_some(());
    renewd.log().wait("new streams", gone);
    assert_eq!(renewd.ask_for_token().status, 404);
}

/// The report of `renewd token inspect` on a token against an App Certificate.
fn inspect(token: &str, certificate_file: &Path) -> Value {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_renewd"))
        .args(["token", "inspect", token, "--certificate-file"])
        .arg(certificate_file)
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn secrets_in_files_of_their_own_are_followed() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        jwt: "key_grace = \"0s\"".to_owned(),
        // Asked over and over below.
        tables: "[rate_limit]\nsubject = \"off\"\n".to_owned(),
        ..Settings::default()
    };
    support::renewd::write_files(directory.path(), &settings);
    let text = configuration(&settings)
        .replace(
            &format!("app_certificate = \"{APP_CERTIFICATE}\""),
            "app_certificate_file = \"certificate\"",
        )
        .replace(
            &format!("secret = \"{JWT_SECRET}\""),
            "secret_file = \"jwt\"",
        );
    private_file(&directory.path().join("config.toml"), &text);
    private_file(&directory.path().join("certificate"), APP_CERTIFICATE);
    private_file(
        &directory.path().join("jwt"),
        "the first secret, which is long enough",
    );
    let renewd = Renewd::start_in(directory, &[], |_| {});
    assert_eq!(
        renewd.ask_for_token().status,
        401,
        "signed with another secret"
    );

    replace_file(&renewd.file("jwt"), JWT_SECRET);
    renewd.eventually("the secret is followed", |renewd| {
        renewd.ask_for_token().status == 200
    });

    let certificate = renewd.file("certificate");
    let signed = |renewd: &Renewd| {
        let answer = renewd.ask_for_token().json();
        inspect(answer["data"]["token"].as_str().unwrap(), &certificate)["signature"] == "valid"
    };
    assert!(signed(&renewd));
    replace_file(&certificate, "00112233445566778899aabbccddeeff\n");
    renewd.eventually("the certificate is followed", signed);

    replace_file(&renewd.file("admin-token"), "another-admin-token\n");
    renewd.eventually("the admin token is followed", |renewd| {
        renewd
            .ask_admin_as("another-admin-token", "GET", "/v1/status", "")
            .status
            == 200
    });
    assert_eq!(renewd.ask_admin("GET", "/v1/status", "").status, 401);
}

#[test]
fn logins_signed_with_a_replaced_key_are_good_for_key_grace() {
    for (grace, status) in [("10m", 200), ("0s", 401)] {
        let settings = Settings {
            jwt: format!("key_grace = \"{grace}\""),
            ..Settings::default()
        };
        let renewd = Renewd::start(&settings);
        assert_eq!(renewd.ask_for_token().status, 200);
        let other =
            configuration(&settings).replace(JWT_SECRET, "another secret, also long enough");
        replace_file(&renewd.file("config.toml"), &other);
        assert_eq!(renewd.reload().status, 200);
        assert_eq!(renewd.ask_for_token().status, status, "{grace}");
    }
}

#[test]
fn level_and_format_of_the_log_are_hot() {
    let log = |lines: &str| Settings {
        log: lines.to_owned(),
        ..Settings::default()
    };
    let renewd = Renewd::start(&log(""));
    let said = |by_audit: bool| {
        let lines = renewd.log().lines();
        let of = |line: &&Value| (line["target"] == "audit") == by_audit;
        let mut reloads = lines.iter().filter(of).map(Value::to_string);
        reloads.any(|line| line.contains("configuration reloaded"))
    };
    renewd.reconfigure(&log("level = \"error\""));
    renewd.reconfigure(&log("level = \"error\"\naccess = true"));
    assert_eq!(renewd.ask_for_token().status, 200);
    renewd.log().wait("access line", |line| {
        (line["target"] == "access").then_some(())
    });
    assert!(said(true), "no level keeps audit events out");
    assert!(!said(false));
    renewd.reconfigure(&log(""));
    renewd.eventually("the line", |_| said(false));

    let logfmt = configuration(&log("")).replace("format = \"json\"", "format = \"logfmt\"");
    replace_file(&renewd.file("config.toml"), &logfmt);
    assert_eq!(renewd.reload().status, 200);
    renewd.log().wait("logfmt line", |line| {
        let line = line.as_str()?;
        line.contains("msg=\"configuration reloaded: log\"")
            .then_some(())
    });
}

/// The events of an audit file.
fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    whole.collect()
}

fn wait_for_decisions(renewd: &Renewd, file: &str, count: usize) {
    let path = renewd.file(file);
    renewd.eventually("the audit events", |_| {
        events(&path)
            .iter()
            .filter(|event| event["event"] == "decision")
            .count()
            == count
    });
}

fn audit(to: &str) -> Settings {
    Settings {
        log: format!("audit = \"{to}\""),
        ..Settings::default()
    }
}

#[test]
fn where_audit_events_go_is_hot() {
    let renewd = Renewd::start(&audit("off"));
    renewd.ask_for_token();
    renewd.reconfigure(&audit("file:first.log"));
    renewd.ask_for_token();
    wait_for_decisions(&renewd, "first.log", 1);
    renewd.reconfigure(&audit("file:second.log"));
    renewd.ask_for_token();
    renewd.ask_for_token();
    wait_for_decisions(&renewd, "second.log", 2);
    wait_for_decisions(&renewd, "first.log", 1);

    renewd.configure(&audit("file:no-such-directory/audit.log"));
    let answer = renewd.reload();
    assert_eq!(
        answer.status,
        422,
        "{:?}",
        String::from_utf8_lossy(&answer.body)
    );
    renewd.ask_for_token();
    wait_for_decisions(&renewd, "second.log", 3);
}

#[test]
fn a_reload_whose_audit_file_can_not_be_opened_changes_nothing_else() {
    let running = |log: &str| Settings {
        log: log.to_owned(),
        token: "lifetime = \"30m\"".to_owned(),
        tables: "[decision]\nmode = \"enforce\"\n\n[sessions]\nmax = 1000\n".to_owned(),
        ..Settings::default()
    };
    let renewd = Renewd::start(&running("audit = \"file:audit.log\""));
    renewd.ask_for_token();
    wait_for_decisions(&renewd, "audit.log", 1);
    let hash = renewd.whole("renewd_config_hash");
    // A file stands where the audit log's directory should be, so that the process can't open the log.
    private_file(&renewd.file("no-directory"), "");
    let other = Settings {
        log: "audit = \"file:no-directory/audit.log\"\nlevel = \"error\"".to_owned(),
        token: "lifetime = \"1h\"".to_owned(),
        tables: "[decision]\nmode = \"off\"\n\n[sessions]\nmax = 2000\n".to_owned(),
        ..Settings::default()
    };
    renewd.configure(&other);
    let answer = renewd.reload();
    let said = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(answer.status, 422, "{said}");
    assert!(said.contains("log.audit"), "{said}");
    assert_eq!(renewd.whole(SUCCESSFUL), 0);
    assert_eq!(renewd.whole("renewd_config_hash"), hash);
    assert_eq!(renewd.whole("renewd_decision_mode{mode=\"enforce\"}"), 1);

    let body = json!({"channelName": "live_show", "uid": 7}).to_string();
    let answer = renewd.post("/api/live/token", &login("viewer"), &body);
    assert_eq!(answer.json()["data"]["expiresIn"], 1800);
    wait_for_decisions(&renewd, "audit.log", 2);
    // The log's line about the refusal is below the level that the refused file asks for.
    renewd.reconfigure(&running("audit = \"file:second.log\""));
    renewd.ask_for_token();
    wait_for_decisions(&renewd, "second.log", 1);
    let reloaded = |line: &Value| {
        let said = line["msg"].as_str()?.contains("configuration reloaded");
        (said && line["level"] == "info").then_some(())
    };
    renewd.log().wait("information", reloaded);
}

#[test]
fn an_audit_file_on_a_full_disk_is_said_once_and_again_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        tables: "[rate_limit]\nsubject = \"off\"\n".to_owned(),
        ..audit("file:audit.log")
    };
    write_files(directory.path(), &settings);
    let config = directory.path().join("config.toml");
    // The one full disk that needs no privilege: files of at most 32 KiB, and no signal when they are full.
    let (child, log) = spawn_under(
        "trap '' XFSZ && ulimit -S -f 32",
        &["run", "--config", config.to_str().unwrap()],
    );
    let renewd = Renewd::ready(child, log, directory);
    let dropped = |renewd: &Renewd| renewd.whole("renewd_log_dropped_total");
    let said = |what: &str| {
        let lines = renewd.log().lines();
        let of_audit = lines.iter().filter(|line| line["writer"] == "audit");
        let of_audit = of_audit.filter(|line| line["msg"].as_str().unwrap().starts_with(what));
        of_audit.count()
    };
    let (lost, again) = ("can't write log lines", "log lines are being written again");
    let wait = |what: &str| {
        renewd.log().wait(what, |line| {
            let msg = line["msg"].as_str().unwrap_or_default();
            (line["writer"] == "audit" && msg.starts_with(what)).then_some(())
        });
    };
    // Events of about 300 bytes, far more than there is room for.
    for _ in 0..400 {
        renewd.ask_for_token();
    }
    renewd.eventually("lines are lost", |renewd| dropped(renewd) > 20);
    assert!(fs::metadata(renewd.file("audit.log")).unwrap().len() <= 32 * 1024);
    wait(lost);
    assert_eq!((said(lost), said(again)), (1, 0));

    let pid = Pid::from_raw(renewd.pid().try_into().unwrap());
    let unlimited = Rlimit {
        current: None,
        maximum: getrlimit(Resource::Fsize).maximum,
    };
    prlimit(pid, Resource::Fsize, unlimited).expect("a limit of our child");
    renewd.ask_for_token();
    wait(again);
    let lost_so_far = dropped(&renewd);
    let whole = |renewd: &Renewd| {
        let text = fs::read_to_string(renewd.file("audit.log")).unwrap();
        let lines = text.lines().map(serde_json::from_str::<Value>);
        lines.flatten().count()
    };
    let before = whole(&renewd);
    for _ in 0..5 {
        renewd.ask_for_token();
    }
    renewd.eventually("each is a line of its own", |renewd| {
        whole(renewd) >= before + 5
    });
    assert_eq!(dropped(&renewd), lost_so_far);
    assert_eq!((said(lost), said(again)), (1, 1));
}

#[test]
fn the_audit_file_is_opened_anew_after_it_was_moved() {
    let renewd = Renewd::start(&audit("file:audit.log"));
    renewd.ask_for_token();
    wait_for_decisions(&renewd, "audit.log", 1);
    fs::rename(renewd.file("audit.log"), renewd.file("audit.log.1")).unwrap();
    renewd.ask_for_token();
    wait_for_decisions(&renewd, "audit.log.1", 2);
    renewd.signal(Signal::USR1);
    renewd.eventually("the file is there again", |renewd| {
        renewd.file("audit.log").exists()
    });
    renewd.ask_for_token();
    wait_for_decisions(&renewd, "audit.log", 1);
    wait_for_decisions(&renewd, "audit.log.1", 2);
}

#[test]
fn the_most_connections_are_hot() {
    let limit = |connections: u32| Settings {
        server: format!("max_connections = {connections}"),
        ..Settings::default()
    };
    let renewd = Renewd::start(&limit(1));
    assert_eq!(renewd.whole("renewd_connections_max"), 1);
    let request = "GET /nowhere HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let mut first = Wire::connect(renewd.public);
    first.send(request);
    first.until("\r\n\r\n");
    let mut second = Wire::connect(renewd.public);
    second.send(request);
    assert!(second.is_open_and_silent(), "one connection is the most");
    renewd.reconfigure(&limit(2));
    second.until("HTTP/1.1 502 ");
    renewd.eventually("the metric", |renewd| {
        renewd.whole("renewd_connections_max") == 2
    });
    first.send(request);
    first.until("HTTP/1.1 502 ");
}

#[test]
fn routes_and_mode_are_those_of_the_file_at_the_next_request() {
    let renewd = Renewd::start(&Settings::default());
    let mut client = renewd.client();
    let mut ask = |path: &str| {
        let body = json!({"channelName": "live_show", "uid": 77});
        client
            .post_json(path, &login("viewer"), &body)
            .unwrap()
            .status
    };
    assert_eq!(ask("/api/live/token"), 200);
    renewd.reconfigure(&Settings {
        tables: "[routes]\ntoken = [\"/v2/token\"]\n".to_owned(),
        ..Settings::default()
    });
    assert_eq!(ask("/v2/token"), 200);
    assert_eq!(
        ask("/api/live/token"),
        502,
        "the backend's, which isn't there"
    );
    renewd.reconfigure(&Settings {
        tables: "[decision]\nmode = \"off\"\n".to_owned(),
        ..Settings::default()
    });
    assert_eq!(ask("/api/live/token"), 502);

    // The log, the metrics and readiness say whether renewd or the backend answers the token endpoints.
    let mode = |mode: &str| renewd.whole(&format!("renewd_decision_mode{{mode=\"{mode}\"}}"));
    assert_eq!((mode("enforce"), mode("observe"), mode("off")), (0, 0, 1));
    renewd.reconfigure(&Settings {
        tables: "[decision]\nenforce_percent = 25\nmode_ok_until = \"2030-01-02\"\n".to_owned(),
        ..Settings::default()
    });
    assert_eq!((mode("enforce"), mode("observe"), mode("off")), (1, 0, 0));
    assert_eq!(renewd.whole("renewd_enforce_percent"), 25);
    assert_eq!(
        renewd.whole("renewd_decision_mode_ok_until_timestamp_seconds"),
        1_893_542_400
    );
    let changed = "decision.mode: off -> enforce; decision.enforce_percent: 100 -> 25";
    let said = messages(&renewd, "info");
    assert!(said.iter().any(|line| line.contains(changed)), "{said:?}");
    let mut admin = support::raw::Client::new(renewd.admin);
    let ready = admin.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let ready = ready.unwrap().json();
    assert_eq!(ready["mode"], "enforce", "{ready}");
    assert_eq!(ready["enforce_percent"], 25, "{ready}");
    renewd.log().wait("the ready line says the mode", |line| {
        (line["msg"] == "ready" && line["mode"] == "enforce").then_some(())
    });
}

#[test]
fn another_backend_is_asked_from_the_next_request_on() {
    let backend = support::express::Express::start(support::express::Version::Five, &[]);
    let renewd = Renewd::start(&Settings::default());
    let ask = || {
        let request = b"GET /health HTTP/1.1\r\nHost: example.com\r\n\r\n";
        Client::new(renewd.public).send(request).unwrap().status
    };
    assert_eq!(ask(), 502);
    let up = |server: &str| renewd.whole(&format!("renewd_upstream_up{{server=\"{server}\"}}"));
    assert_eq!(up("http://127.0.0.1:1"), 0);
    renewd.reconfigure(&Settings {
        backend: Some(([127, 0, 0, 1], 2).into()),
        ..Settings::default()
    });
    renewd.eventually("the next dead one isn't taken for alive", |_| {
        up("http://127.0.0.1:2") < 1
    });
    renewd.reconfigure(&Settings {
        backend: Some(backend.address),
        ..Settings::default()
    });
    assert_eq!(ask(), 200);
    assert_eq!(up(&format!("http://{}", backend.address)), 1);
    assert!(
        !renewd.metrics().contains("127.0.0.1:1\""),
        "series of removed servers go"
    );
}
