//! README's installation by hand and the uninstall of docs/install.md, typed as they stand there, in a booted systemd:
//! renewd runs in between, and nothing of it is left afterwards. Where namespaces are refused the test prints the
//! reason and ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::machine::{BACKEND, Debian, Machine};
use crate::support::pages::{INSTALL, README, blocks_of, section};
use crate::support::renewd::{APP_CERTIFICATE, JWT_SECRET};

/// The place of the source in the machine.
const SOURCE: &str = "/srv/files/source";

/// The values that README lets the operator paste, by the end of the line.
const PASTED: [(&str, &str); 3] = [
    ("renewd.agora_certificate", APP_CERTIFICATE),
    ("renewd.jwt_secret", JWT_SECRET),
    ("renewd.mongodb_uri", "mongodb://127.0.0.1:27017/live"),
];

/// The traces that any use of these programs leaves: an empty directory of systemd's, and the copies that `userdel`
/// keeps of what it changes.
const NOT_OURS: [&str; 6] = [
    "/etc/credstore",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/.pwd.lock",
];

/// Copies what README's commands take from the source, with the program where cargo would build it.
fn bring_the_source(machine: &Machine) {
    let (from, to) = (
        Path::new(env!("CARGO_MANIFEST_DIR")),
        machine.files().join("source"),
    );
    for directory in ["docs", "systemd", "target/release"] {
        fs::create_dir_all(to.join(directory)).unwrap();
    }
    for directory in ["docs", "systemd"] {
        for entry in fs::read_dir(from.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let name = Path::new(directory).join(path.file_name().unwrap());
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
    for file in ["README.md", "config.example.toml"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let program = to.join("target/release/renewd");
    fs::copy(env!("CARGO_BIN_EXE_renewd"), program).unwrap();
}

/// Types the lines of a block, with what the operator pastes.
fn types(machine: &Machine, block: &str) {
    for line in block
        .lines()
        .filter(|line| *line != "cargo build --release")
    {
        let pasted = PASTED.iter().find(|(name, _)| line.contains(name));
        let line = match pasted {
            Some((_, value)) => format!("printf '%s\\n' '{value}' | {line}"),
            None => line.to_owned(),
        };
        machine.shell(&format!("cd {SOURCE}\n{line}"));
    }
}

/// Writes the example with an App ID, this place to listen, and an audit log of its own.
fn configure(machine: &Machine, listen: &str) {
    machine.configure(|example| {
        let server = format!("[server]\nlisten = [\"{listen}\"]\n");
        let log = "[log]\naudit = \"file:/var/log/renewd/audit.log\"\n";
        let text = example.replacen("[server]\n", &server, 1);
        text.replacen("[log]\n", log, 1)
    });
}

/// Every path of the machine that outlives its end, but for the journal and what systemd keeps of its own life.
fn paths(machine: &Machine) -> BTreeSet<String> {
    let found = machine.ok(&["find", "/", "-xdev"]);
    let others = ["/var/log/journal", "/var/lib/systemd", "/srv"];
    let ours = found
        .lines()
        .filter(|path| !others.iter().any(|other| path.starts_with(other)));
    ours.map(str::to_owned).collect()
}

#[test]
fn installed_by_hand_and_taken_out_as_documented_nothing_is_left() {
    let Some(machine) = Machine::boot_bare(Debian::Bookworm) else {
        return;
    };
    let before = paths(&machine);
    bring_the_source(&machine);
    let steps = section(README, "## In front of your app in ten minutes");
    let steps = blocks_of(steps, "sh");
    types(&machine, steps[0]);
    types(&machine, steps[1]);
    configure(&machine, "[::]:3000");
    machine.shell("renewd check");
    let backend = machine.backend(BACKEND);
    let start = steps[2].lines().next().unwrap();
    let (restart, start) = start.split_once(" && ").unwrap();
    assert_eq!(restart, "systemctl restart YOUR-BACKEND");
    types(&machine, start);
    assert_eq!(machine.forwarded(), Some(200));
    configure(&machine, "systemd:public");
    let socket = section(
        INSTALL,
        "## Ports below 1024, and restarts that refuse nothing",
    );
    types(&machine, blocks_of(socket, "sh")[0]);
    assert_eq!(machine.forwarded(), Some(200));
    machine.shell(
        "renewd revoke --subject ann --for 1h
         install -m 644 /srv/files/source/systemd/renewd@.service /etc/systemd/system/
         install -d /etc/systemd/system/renewd.service.d
         test -e /var/lib/renewd/revocations.journal && test -e /var/log/renewd/audit.log",
    );

    let back = blocks_of(section(README, "## The way back"), "sh")[0];
    types(&machine, back.lines().next().unwrap());
    types(
        &machine,
        blocks_of(section(INSTALL, "## Uninstall"), "sh")[0],
    );
    drop(backend);
    let mut after = paths(&machine);
    for path in NOT_OURS {
        after.remove(path);
    }
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "left: {left:#?}");
    let missing: Vec<_> = before.difference(&after).collect();
    let missing: Vec<_> = missing
        .into_iter()
        .filter(|path| !NOT_OURS.contains(&path.as_str()))
        .collect();
    assert!(missing.is_empty(), "taken along: {missing:#?}");
    machine.shell("! grep renewd /etc/passwd /etc/group /etc/shadow /etc/gshadow");
    let units = machine.systemctl("list-units --all --no-legend --plain renewd*");
    assert!(units.trim().is_empty(), "{units}");
}
