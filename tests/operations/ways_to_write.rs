//! Every way in which people write a file: each is run against a daemon, for the configuration and for the files that it
//! names. Where mount namespaces are refused the ways that need one print so and are left out.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use renewd::agora::parse::{Parsed, parse};
use renewd::config::secret::Secret;
use serde_json::json;

use crate::support::lifecycle::replace_file;
use crate::support::renewd::{
    APP_CERTIFICATE, JWT_SECRET, Renewd, Settings, configuration, jwt_with, now, private_file,
    spawn, spawn_under, under,
};

/// The files that a daemon reads, each in two versions.
const FILES: [&str; 5] = [
    "config.toml",
    "secret",
    "admin-token",
    "certificate",
    "streams.toml",
];

const MINUTES: [u64; 2] = [20, 25];
const SECRETS: [&str; 2] = [JWT_SECRET, "another-secret-of-enough-bytes-for-this"];
const ADMIN_TOKENS: [&str; 2] = ["the-first-admin-token", "the-second-admin-token"];
const CERTIFICATES: [&str; 2] = [APP_CERTIFICATE, "00112233445566778899aabbccddeeff"];
const CHANNELS: [&str; 2] = ["first_show", "second_show"];

/// The places of a way's files.
struct Place {
    /// A directory of its own, for whatever the way needs beside the daemon's files.
    root: PathBuf,
    /// Where the daemon looks for its files.
    seen: PathBuf,
    /// How often something was written.
    turn: Cell<usize>,
}

impl Place {
    fn beside(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A directory beside the daemon's that wasn't there before.
    fn next(&self, name: &str) -> PathBuf {
        self.turn.set(self.turn.get() + 1);
        let directory = self.beside(&format!("{name}-{}", self.turn.get()));
        fs::create_dir(&directory).unwrap();
        directory
    }
}

type Contents<'c> = &'c [(&'static str, String)];

struct Way {
    name: &'static str,
    /// Lays the first version of all files out.
    lay_out: fn(&Place, Contents<'_>),
    /// Writes another version.
    write: fn(&Place, Contents<'_>, &Renewd),
    /// All files change together: a directory does, or each change would wait for the slow poll.
    together: bool,
    /// A line of shell that mounts something, in a namespace of the daemon's own.
    mounts: Option<&'static str>,
}

const PLAIN: Way = Way {
    name: "",
    lay_out: |place, files| write_all(&place.seen, files),
    write: |_, _, _| {},
    together: false,
    mounts: None,
};

fn write_all(directory: &Path, files: Contents<'_>) {
    fs::create_dir_all(directory).unwrap();
    for (name, content) in files {
        private_file(&directory.join(name), content);
    }
}

/// Puts a symlink in the place of another in one step.
fn link(target: &Path, path: &Path) {
    let new = path.with_extension("link");
    symlink(target, &new).unwrap();
    fs::rename(new, path).unwrap();
}

/// Lays files out in `directory`, and links to them where the daemon looks.
fn linked(place: &Place, directory: &Path, files: Contents<'_>) {
    write_all(directory, files);
    fs::create_dir_all(&place.seen).unwrap();
    for (name, _) in files {
        link(&directory.join(name), &place.seen.join(name));
    }
}

/// Publishes files as the kubelet does: a new directory, `..data` renamed onto it, the old directory removed.
fn publish(place: &Place, files: Contents<'_>) {
    let version = format!("..version-{}", place.turn.replace(place.turn.get() + 1));
    let data = place.seen.join("..data");
    let old = fs::read_link(&data).ok();
    write_all(&place.seen.join(&version), files);
    symlink(&version, place.seen.join("..data_tmp")).unwrap();
    fs::rename(place.seen.join("..data_tmp"), data).unwrap();
    if let Some(old) = old {
        fs::remove_dir_all(place.seen.join(old)).unwrap();
    }
}

fn vim(place: &Place, files: Contents<'_>, backup: &str) {
    for (name, content) in files {
        let new = place.beside("new-text");
        fs::write(&new, content).unwrap();
        let status = Command::new("vim")
            .args(["-N", "-u", "NONE", "-i", "NONE", "-es", "-c", backup, "-c"])
            .arg(format!("%!cat {}", new.display()))
            .args(["-c", "wq"])
            .arg(place.seen.join(name))
            .stdin(Stdio::null())
            .status()
            .expect("vim: `tests/run --install` installs it");
        assert!(status.success(), "{backup} {name}");
    }
}

/// The number of errors that the daemon has logged so far.
fn errors(renewd: &Renewd) -> usize {
    let lines = renewd.log().lines();
    lines.iter().filter(|line| line["level"] == "error").count()
}

/// Makes each file unusable, waits until that is noticed, and writes the new one.
fn broken_for_a_while(place: &Place, files: Contents<'_>, renewd: &Renewd, spoil: fn(&Path)) {
    for (name, content) in files {
        let (path, before) = (place.seen.join(name), errors(renewd));
        spoil(&path);
        renewd.eventually(&format!("{name} is missed"), |renewd| {
            errors(renewd) > before
        });
        private_file(&path, content);
    }
}

fn each(write: fn(&Place, Contents<'_>, &Renewd), name: &'static str) -> Way {
    Way {
        name,
        write,
        ..PLAIN
    }
}

fn all(write: fn(&Place, Contents<'_>, &Renewd), name: &'static str) -> Way {
    Way {
        together: true,
        ..each(write, name)
    }
}

fn ways() -> Vec<Way> {
    [saved(), swapped(), behind_links(), mounted()]
        .into_iter()
        .flatten()
        .collect()
}

/// Writes over a file's bytes and cuts what is left of the old ones.
fn overwrite(path: &Path, content: &str) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(content.as_bytes(), 0).unwrap();
    file.set_len(content.len().try_into().unwrap()).unwrap();
}

/// The file itself is written.
fn saved() -> Vec<Way> {
    vec![
        each(|place, files, _| write_all(&place.seen, files), "in place"),
        each(
            |place, files, _| {
                for (name, content) in files {
                    overwrite(&place.seen.join(name), content);
                }
            },
            "in place, over the old bytes",
        ),
        each(
            |place, files, _| {
                for (name, content) in files {
                    replace_file(&place.seen.join(name), content);
                }
            },
            "renamed over",
        ),
        each(
            |place, files, _| {
                let staged = place.next("staged");
                write_all(&staged, files);
                for (name, _) in files {
                    fs::rename(staged.join(name), place.seen.join(name)).unwrap();
                }
            },
            "moved in from another directory",
        ),
        each(
            |place, files, _| {
                let staged = place.next("staged");
                write_all(&staged, files);
                for (name, _) in files {
                    fs::remove_file(place.seen.join(name)).unwrap();
                    fs::hard_link(staged.join(name), place.seen.join(name)).unwrap();
                }
            },
            "removed and linked anew",
        ),
        each(
            |place, files, _| vim(place, files, "set backupcopy=no writebackup backup"),
            "vim, backupcopy=no",
        ),
        each(
            |place, files, _| vim(place, files, "set backupcopy=yes writebackup backup"),
            "vim, backupcopy=yes",
        ),
        each(
            |place, files, renewd| {
                broken_for_a_while(place, files, renewd, |path| fs::write(path, "").unwrap());
            },
            "truncated and written later",
        ),
        each(
            |place, files, renewd| {
                broken_for_a_while(place, files, renewd, |path| fs::remove_file(path).unwrap());
            },
            "deleted and put back",
        ),
    ]
}

/// A directory is swapped.
fn swapped() -> Vec<Way> {
    vec![
        Way {
            lay_out: |place, files| {
                fs::create_dir(&place.seen).unwrap();
                publish(place, files);
                for (name, _) in files {
                    symlink(Path::new("..data").join(name), place.seen.join(name)).unwrap();
                }
            },
            ..all(
                |place, files, _| publish(place, files),
                "a ConfigMap's ..data",
            )
        },
        all(
            |place, files, _| {
                let new = place.next("new");
                write_all(&new, files);
                fs::rename(&place.seen, place.next("old").join("seen")).unwrap();
                fs::rename(new, &place.seen).unwrap();
            },
            "a directory renamed into the place of another",
        ),
        all(
            |place, files, _| {
                fs::remove_dir_all(&place.seen).unwrap();
                write_all(&place.seen, files);
            },
            "a directory removed and made anew",
        ),
    ]
}

/// Links stand in between.
fn behind_links() -> Vec<Way> {
    vec![
        Way {
            lay_out: |place, files| linked(place, &place.beside("elsewhere"), files),
            ..each(
                |place, files, _| {
                    for (name, content) in files {
                        replace_file(&place.beside("elsewhere").join(name), content);
                    }
                },
                "behind a symlink into another directory",
            )
        },
        Way {
            lay_out: |place, files| linked(place, &place.next("version"), files),
            ..each(
                |place, files, _| linked(place, &place.next("version"), files),
                "a symlink to another file",
            )
        },
        Way {
            lay_out: |place, files| {
                let release = place.next("release");
                write_all(&release, files);
                link(&release, &place.seen);
            },
            ..all(
                |place, files, _| {
                    let release = place.next("release");
                    write_all(&release, files);
                    link(&release, &place.seen);
                },
                "a directory's symlink to another directory",
            )
        },
        Way {
            lay_out: |place, files| {
                let (links, version) = (place.beside("links"), place.next("version"));
                write_all(&version, files);
                fs::create_dir(&links).unwrap();
                fs::create_dir(&place.seen).unwrap();
                for (name, _) in files {
                    symlink(version.join(name), links.join(name)).unwrap();
                    symlink(links.join(name), place.seen.join(name)).unwrap();
                }
            },
            ..all(
                |place, files, _| {
                    let version = place.next("version");
                    write_all(&version, files);
                    for (name, _) in files {
                        link(&version.join(name), &place.beside("links").join(name));
                    }
                },
                "a symlink behind a symlink",
            )
        },
    ]
}

/// The daemon sees a mount.
fn mounted() -> Vec<Way> {
    vec![
        Way {
            lay_out: |place, files| {
                write_all(&place.beside("host"), files);
                fs::create_dir(&place.seen).unwrap();
                for (name, _) in files {
                    fs::write(place.seen.join(name), "").unwrap();
                }
            },
            mounts: Some(
                "for file in seen/*; do mount --bind \"host/${file#*/}\" \"$file\" || exit; done",
            ),
            ..all(
                |place, files, _| write_all(&place.beside("host"), files),
                "single files that are mounted, in place",
            )
        },
        Way {
            lay_out: |place, files| {
                write_all(&place.beside("host"), files);
                fs::create_dir(&place.seen).unwrap();
            },
            mounts: Some("mount --bind host seen"),
            ..each(
                |place, files, _| {
                    for (name, content) in files {
                        replace_file(&place.beside("host").join(name), content);
                    }
                },
                "a directory that is mounted, renamed over on the host",
            )
        },
        Way {
            lay_out: |place, files| {
                write_all(&place.beside("lower"), files);
                fs::create_dir(place.beside("nothing")).unwrap();
                fs::create_dir(&place.seen).unwrap();
            },
            mounts: Some("mount -t overlay -o lowerdir=nothing:lower overlay seen"),
            ..all(
                |place, files, _| write_all(&place.beside("lower"), files),
                "below an overlay, where inotify is silent",
            )
        },
    ]
}

fn contents(root: &Path, versions: [usize; 5]) -> Vec<(&'static str, String)> {
    let [config, secret, admin, certificate, streams] = versions;
    let settings = Settings {
        token: format!("lifetime = \"{}m\"", MINUTES[config]),
        tables: "[rate_limit]\nsubject = \"off\"\n\n[cors]\nallowed_origins = []\n".to_owned(),
        ..Settings::default()
    };
    let state = format!("directory = \"{}\"", root.join("state").display());
    let config = configuration(&settings)
        .replace(
            &format!("app_certificate = \"{APP_CERTIFICATE}\""),
            "app_certificate_file = \"certificate\"",
        )
        .replace(
            &format!("secret = \"{JWT_SECRET}\""),
            "secret_file = \"secret\"",
        )
        .replace("directory = \"state\"", &state);
    let stream = format!(
        "[[stream]]\nchannel = \"{}\"\nowner = \"owner\"\nlive = true\n",
        CHANNELS[streams]
    );
    let texts = [
        config,
        SECRETS[secret].to_owned(),
        ADMIN_TOKENS[admin].to_owned(),
        CERTIFICATES[certificate].to_owned(),
        stream,
    ];
    FILES.into_iter().zip(texts).collect()
}

/// Whether the daemon goes by these versions of its files.
fn goes_by(renewd: &Renewd, versions: [usize; 5]) -> bool {
    let [config, secret, admin, certificate, streams] = versions;
    let login = jwt_with(
        SECRETS[secret],
        &json!({"sub": "viewer", "exp": now() + 3600}),
    );
    let body = json!({"channelName": CHANNELS[streams], "uid": 7}).to_string();
    let answer = renewd.post("/api/live/token", &login, &body);
    if answer.status != 200 {
        return false;
    }
    let answer = answer.json();
    let status = || {
        renewd
            .ask_admin_as(ADMIN_TOKENS[admin], "GET", "/v1/status", "")
            .status
    };
    if answer["data"]["expiresIn"] != MINUTES[config] * 60 || status() != 200 {
        return false;
    }
    let certificate = Secret::new(CERTIFICATES[certificate].as_bytes().to_vec());
    match parse(answer["data"]["token"].as_str().unwrap()) {
        Ok(Parsed::V007(token)) => token.verify(&certificate),
        other => panic!("{other:?}"),
    }
}

fn try_out(way: &Way) {
    let directory = tempfile::tempdir().unwrap();
    let place = Place {
        root: directory.path().to_owned(),
        seen: directory.path().join("seen"),
        turn: Cell::new(0),
    };
    let root = place.root.clone();
    let mut versions = [0; 5];
    (way.lay_out)(&place, &contents(&root, versions));
    let config = place.seen.join("config.toml");
    let run = ["run", "--config", config.to_str().unwrap()];
    let (child, log) = match way.mounts.map(|mounts| under(mounts, &root)) {
        None => spawn(&run, |_| {}),
        Some(Some(line)) => spawn_under(&line, &run),
        Some(None) => return,
    };
    let renewd = Renewd::ready(child, log, directory);
    assert!(
        goes_by(&renewd, versions),
        "{}: the first version",
        way.name
    );
    // The daemon has to see each way every time, not only the first one.
    for version in [1, 0] {
        let steps: &[_] = if way.together {
            &[(0, 5)]
        } else {
            &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
        };
        for &(first, end) in steps {
            versions[first..end].fill(version);
            (way.write)(&place, &contents(&root, versions)[first..end], &renewd);
            let what = format!("{}: {:?}", way.name, &FILES[first..end]);
            renewd.eventually(&what, |renewd| goes_by(renewd, versions));
        }
    }
}

/// Tries those ways of the table that `which` picks, all at once: they wait most of the time.
fn try_those(which: impl Fn(&Way) -> bool) {
    let ways: Vec<_> = ways().into_iter().filter(which).collect();
    thread::scope(|scope| {
        for way in &ways {
            scope.spawn(|| try_out(way));
        }
    });
}

#[test]
fn a_file_may_be_written_in_every_way_that_people_have() {
    try_those(|way| !way.together && way.mounts.is_none());
}

#[test]
fn directories_may_be_swapped_in_every_way_that_people_have() {
    try_those(|way| way.together && way.mounts.is_none());
}

#[test]
fn files_may_be_written_outside_the_mount_that_the_daemon_sees() {
    try_those(|way| way.mounts.is_some());
}

/// The output of `renewd check` on a configuration where these mounts are.
fn check(line: &str, config: &Path, strict: &[&str]) -> Output {
    Command::new("bash")
        .args([
            "-c",
            line,
            "bash",
            env!("CARGO_BIN_EXE_renewd"),
            "check",
            "--config",
        ])
        .arg(config)
        .args(strict)
        .output()
        .unwrap()
}

#[test]
fn a_file_that_is_mounted_by_itself_cannot_follow_a_rename_and_check_says_so() {
    const SAID: &str = "a mount point: ";
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    let (host, seen) = (root.join("host"), root.join("seen"));
    let files = |version| contents(&root, [version, 0, 0, 0, 0]);
    write_all(&seen, &files(0));
    write_all(&host, &files(0));
    let config = seen.join("config.toml");
    let beside = "mount --bind host/secret seen/secret";
    let itself = "mount --bind host/config.toml seen/config.toml";
    let Some(line) = under(itself, &root) else {
        return;
    };

    let run = ["run", "--config", config.to_str().unwrap()];
    let (child, log) = spawn_under(&line, &run);
    let renewd = Renewd::ready(child, log, directory);
    let (_, text) = &files(1)[0];
    replace_file(&host.join("config.toml"), text);
    let reload = || {
        renewd
            .ask_admin_as(ADMIN_TOKENS[0], "POST", "/-/reload", "{}")
            .json()
    };
    assert_eq!(reload()["changed"], json!([]));
    assert!(goes_by(&renewd, [0; 5]));

    let said = |mounts: &str, strict: &[&str]| {
        let output = check(&under(mounts, &root).unwrap(), &config, strict);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, text) = said(itself, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("warning: ") && text.contains(SAID), "{text}");
    assert_eq!(said(itself, &["--strict"]).0, Some(78));
    // Other files are noted: most of them are written once.
    let (code, text) = said(beside, &["--strict"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("note: ") && text.contains("seen/secret"),
        "{text}"
    );
    assert!(text.contains(SAID), "{text}");
    // A directory is what should be mounted.
    let (code, text) = said("mount --bind host seen", &["--strict"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains(SAID), "{text}");
}
