//! The rhythms that docs/configuration.md offers, each played for three days: at no moment is a client without a valid token.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test's way to fail

use std::path::Path;

use crate::support::environment::FixedEnvironment;
use crate::support::pages::{CONFIGURATION, blocks_of};
use crate::support::renewd::{APP_CERTIFICATE, JWT_SECRET};
use crate::support::timed::{CHANNEL, OWNER, START, Timed, expiry, unix};
use renewd::config;
use serde_json::{Value, json};

/// The profiles by their names there: minutes of lifetime, minutes until the renewal.
const PROFILES: [(&str, u64, u64); 4] = [
    ("Instagram", 60, 50),
    ("TikTok", 120, 90),
    ("YouTube", 60, 45),
    ("Twitch", 30, 25),
];

const STREAM: u64 = 3 * 86_400;

/// Agora's SDK calls `onTokenPrivilegeWillExpire` this long before the expiry.
const SDK_CALLBACK: u64 = 30;

/// The one block of docs/configuration.md with this in its first line.
fn block(mark: &str) -> String {
    let found: Vec<&str> = blocks_of(CONFIGURATION, "toml")
        .into_iter()
        .filter(|block| block.lines().next().unwrap().contains(mark))
        .collect();
    assert_eq!(found.len(), 1, "{mark}");
    found[0].to_owned()
}

/// The service under the least configuration of docs/configuration.md with this `[token]`.
fn service(token: &str) -> Timed {
    let least = block("[upstream]");
    assert!(least.contains("[token]\n") && token.starts_with("[token]"));
    let text = least.replacen("[token]\n", &format!("{token}\n"), 1);
    // No renewal passes while streams can't be looked up, which lets the test make one fail.
    let text = text.replacen("[streams]\n", "[streams]\nstale_if_error = \"0s\"\n", 1);
    let mut environment = FixedEnvironment::default();
    for (name, secret) in [
        ("AGORA_APP_CERTIFICATE", APP_CERTIFICATE),
        ("JWT_SECRET", JWT_SECRET),
    ] {
        environment.variables.insert(name, secret.to_owned());
    }
    let path = Path::new("/etc/renewd/config.toml");
    match config::load(&text, path, &environment) {
        Ok(loaded) => Timed::new(loaded.config),
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

/// A profile with the jitter and the backup that docs/configuration.md adds.
fn with_additions(profile: &str) -> String {
    let additions = block("jitter and backup");
    let (_, lines) = additions.split_once('\n').unwrap();
    format!("{profile}\n{lines}")
}

/// The moment at which a client asks for the next token.
#[derive(Clone, Copy, Debug)]
enum Renews {
    /// The client asks at the answer's `refreshAt`.
    Ahead,
    /// The client asks when the SDK says that the token will expire.
    WhenTold,
}

/// A client and the tokens it has.
struct Client<'s> {
    service: &'s Timed,
    login: String,
    renews: Renews,
    role: &'static str,
    data: Value,
    /// The client had a valid token from the start until then.
    covered: u64,
    renewals: u64,
}

impl<'s> Client<'s> {
    fn join(service: &'s Timed, subject: &str, role: &'static str, renews: Renews) -> Self {
        let mut client = Self {
            service,
            login: service.login(subject, json!({})),
            renews,
            role,
            data: Value::Null,
            covered: START,
            renewals: 0,
        };
        client.ask();
        client
    }

    fn body(&self) -> Value {
        json!({"channelName": CHANNEL, "uid": 77, "role": self.role})
    }

    fn ask(&mut self) {
        assert!(self.service.now() <= self.covered, "a gap");
        self.data = self.service.granted(&self.login, &self.body());
        self.covered = expiry(&self.data["token"]);
    }

    /// The renewal that is due next succeeds.
    fn renew(&mut self) {
        self.service.at(match self.renews {
            Renews::Ahead => unix(&self.data["refreshAt"]),
            Renews::WhenTold => self.covered - SDK_CALLBACK,
        });
        self.ask();
        self.renewals += 1;
    }

    /// The renewal that is due next fails: at the expiry the client takes its backup, and renews as the SDK says.
    fn renew_late(&mut self) {
        self.service.at(match self.renews {
            Renews::Ahead => unix(&self.data["refreshAt"]),
            Renews::WhenTold => self.covered - SDK_CALLBACK,
        });
        self.service.streams_answer(false);
        let refused = self.service.refused(&self.login, &self.body());
        assert_eq!(refused, (503, "unavailable".to_owned()));
        self.service.streams_answer(true);
        let backup = expiry(&self.data["backup"]["token"]);
        assert!(backup > self.covered);
        self.service.at(self.covered);
        self.covered = backup;
        self.service.at(backup - SDK_CALLBACK);
        self.ask();
        self.renewals += 1;
    }

    fn streams_on(&self) -> bool {
        self.service.now() < START + STREAM
    }
}

/// The broadcaster and a viewer, by either way of renewing.
fn for_each_client(token: &str, play: impl Fn(Client<'_>)) {
    for renews in [Renews::Ahead, Renews::WhenTold] {
        for (subject, role) in [(OWNER, "publisher"), ("viewer", "subscriber")] {
            play(Client::join(&service(token), subject, role, renews));
        }
    }
}

#[test]
fn each_profile_has_the_rhythm_it_is_called_after() {
    for (name, lifetime, renewal) in PROFILES {
        for_each_client(&block(name), |mut client| {
            while client.streams_on() {
                assert_eq!(client.data["expiresIn"], lifetime * 60, "{name}");
                let asked = client.service.now();
                assert_eq!(unix(&client.data["refreshAt"]), asked + renewal * 60);
                assert!(client.data["backup"].is_null());
                client.renew();
            }
            let every = match client.renews {
                Renews::Ahead => renewal * 60,
                Renews::WhenTold => lifetime * 60 - SDK_CALLBACK,
            };
            assert_eq!(client.renewals, STREAM.div_ceil(every), "{name}");
        });
    }
}

#[test]
fn with_jitter_the_renewals_spread_and_no_holder_is_without_a_token() {
    for (name, lifetime, _) in PROFILES {
        for_each_client(&with_additions(&block(name)), |mut client| {
            let mut lifetimes = Vec::new();
            while client.streams_on() {
                lifetimes.push(client.data["expiresIn"].as_u64().unwrap());
                client.renew();
            }
            let (least, most) = (lifetimes.iter().min().unwrap(), lifetimes.iter().max());
            assert!(*most.unwrap() <= lifetime * 60, "{name}");
            assert!(*least >= lifetime * 60 - 120, "{name}: {least}");
            // At least 36 lifetimes out of 121 values aren't all alike by chance.
            assert_ne!(Some(least), most, "{name}");
        });
    }
}

#[test]
fn a_renewal_that_fails_is_bridged_by_the_backup() {
    for (name, ..) in PROFILES {
        for_each_client(&with_additions(&block(name)), |mut client| {
            while client.streams_on() {
                client.renew();
                client.renew_late();
            }
            assert!(client.renewals >= 36, "{name}");
        });
    }
}
