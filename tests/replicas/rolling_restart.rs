//! Three daemons on one Redis, asked in turn as by a load balancer without affinity, are restarted one after another
//! while holders renew, newcomers and rivals ask for tokens, and revoked holders try again: in order, and once with
//! `kill -9`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::shared_claims::settings;
use crate::shared_limits::TIMEOUT;
use crate::shared_revocations::revoke;
use crate::support::ask::Ask;
use crate::support::raw::{Client, Response};
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, Settings};

const HOLDERS: u32 = 20;

/// Newcomers for whom the channel has room.
const NEWCOMERS: usize = 40;

/// Which daemon is restarted by which signal.
const RESTARTS: [(usize, Signal); 4] = [
    (0, Signal::TERM),
    (1, Signal::KILL),
    (2, Signal::TERM),
    (0, Signal::TERM),
];

/// How many renewals and rivalries there are between two restarts.
const LOAD: [usize; 2] = [60, 10];

/// The channel of the holders and newcomers.
const CHANNEL: &str = "show";

/// The rivals' channel after so many restarts.
fn rivals_channel(restarts: usize) -> String {
    format!("rivals_{restarts}")
}

/// The holder who is revoked before this restart.
fn gone(restart: usize) -> String {
    format!("gone-{restart}")
}

fn streams() -> String {
    let channels = (0..=RESTARTS.len()).map(rivals_channel);
    let channels = channels.chain([CHANNEL.to_owned()]);
    let stream =
        |name| format!("[[stream]]\nchannel = \"{name}\"\nowner = \"owner\"\nlive = true\n");
    channels.map(stream).collect()
}

fn ask_for(subject: &str, channel: &str, uid: u32) -> Ask {
    let body = json!({"channelName": channel, "uid": uid, "role": "subscriber"});
    Ask::new(subject, &body)
}

/// Who holds tokens of a channel, as a daemon knows it.
fn holders(renewd: &Renewd, channel: &str) -> BTreeSet<String> {
    let target = format!("/v1/sessions?limit=1000&channel={channel}");
    let answer = renewd.ask_admin("GET", &target, "").json();
    let sessions = answer["sessions"].as_array().unwrap().iter();
    let subjects = sessions.map(|session| session["subject"].as_str().unwrap().to_owned());
    subjects.collect()
}

fn knows(renewd: &Renewd, subjects: &BTreeSet<String>) {
    renewd.eventually("it knows the holders", |renewd| {
        holders(renewd, CHANNEL).is_superset(subjects)
    });
}

/// Waits until these holders are in a daemon's own directory: what it has learned in its last two seconds it forgets
/// when it is killed, until Redis has told it again.
fn has_written(renewd: &Renewd, subjects: &BTreeSet<String>) {
    renewd.eventually("the holders are written down", |renewd| {
        let journal = fs::read(renewd.file("state/sessions.journal")).unwrap_or_default();
        let journal = String::from_utf8_lossy(&journal);
        let mut subjects = subjects.iter();
        subjects.all(|subject| journal.contains(subject.as_str()))
    });
}

struct Site {
    /// Where the daemons are.
    addresses: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    restarts: AtomicUsize,
    over: AtomicBool,
    renewals: AtomicUsize,
    rivalries: AtomicUsize,
    /// The next uid that nobody has asked for.
    next: AtomicU32,
    holders: BTreeMap<String, u32>,
    newcomers: Mutex<BTreeMap<String, u32>>,
    /// The holders whom every daemon knows as revoked.
    revoked: Mutex<BTreeMap<String, u32>>,
    /// By channel and uid: who was given it.
    given: Mutex<BTreeMap<(String, u32), BTreeSet<String>>>,
}

/// Ends the load, also by a panic.
struct Ending<'a>(&'a Site);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

impl Site {
    /// Holders hold a token, and every daemon has written that down.
    fn new(replicas: &[Renewd]) -> Self {
        let holder = |number| (format!("holder-{number:02}"), 100 + number);
        let holders: BTreeMap<_, _> = (0..HOLDERS).map(holder).collect();
        let gone = (0..RESTARTS.len()).map(gone).zip(200..);
        let revoked: BTreeMap<_, _> = gone.collect();
        let all = holders.iter().chain(&revoked);
        for ((subject, uid), renewd) in all.clone().zip(replicas.iter().cycle()) {
            assert_eq!(ask_for(subject, CHANNEL, *uid).send(renewd).status, 200);
        }
        let all = all.map(|(subject, _)| subject.clone()).collect();
        for renewd in replicas {
            knows(renewd, &all);
            has_written(renewd, &all);
        }
        Self {
            addresses: Mutex::new(replicas.iter().map(|renewd| renewd.public).collect()),
            turn: AtomicUsize::new(0),
            restarts: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            renewals: AtomicUsize::new(0),
            rivalries: AtomicUsize::new(0),
            next: AtomicU32::new(1000),
            holders,
            newcomers: Mutex::default(),
            revoked: Mutex::default(),
            given: Mutex::default(),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// The answer of the next daemon that gives one: nobody listens at one that is being restarted, and one that is
    /// killed answers nothing.
    fn ask(&self, ask: &Ask) -> Response {
        let bytes = ask.bytes();
        let answers = (0..30).filter_map(|_| {
            let turn = self.turn.fetch_add(1, Ordering::SeqCst);
            let address = {
                let addresses = self.addresses.lock().unwrap();
                addresses[turn % addresses.len()]
            };
            Client::new(address).send(&bytes).ok()
        });
        { answers }.next().expect("a daemon that answers")
    }

    fn renew(&self) {
        for (subject, uid) in &self.holders {
            let status = self.ask(&ask_for(subject, CHANNEL, *uid)).status;
            assert_eq!(status, 200, "{subject} is refused");
            self.renewals.fetch_add(1, Ordering::SeqCst);
        }
        let revoked = self.revoked.lock().unwrap().clone();
        for (subject, uid) in revoked {
            let status = self.ask(&ask_for(&subject, CHANNEL, uid)).status;
            assert_eq!(status, 403, "{subject} is revoked");
        }
    }

    fn come(&self) {
        let uid = self.next.fetch_add(1, Ordering::SeqCst);
        let subject = format!("newcomer-{uid}");
        let status = self.ask(&ask_for(&subject, CHANNEL, uid)).status;
        assert!([200, 429].contains(&status), "a newcomer: {status}");
        if status == 200 {
            self.newcomers.lock().unwrap().insert(subject, uid);
        }
    }

    /// Two ask for one uid at once.
    fn compete(&self) {
        let uid = self.next.fetch_add(1, Ordering::SeqCst);
        let channel = rivals_channel(self.restarts.load(Ordering::SeqCst));
        thread::scope(|scope| {
            for name in ["one", "other"] {
                let (subject, channel) = (format!("{name}-{uid}"), channel.clone());
                scope.spawn(move || {
                    let status = self.ask(&ask_for(&subject, &channel, uid)).status;
                    assert!([200, 409, 429].contains(&status), "a rival: {status}");
                    if status == 200 {
                        let mut given = self.given.lock().unwrap();
                        given.entry((channel, uid)).or_default().insert(subject);
                    }
                });
            }
        });
        self.rivalries.fetch_add(1, Ordering::SeqCst);
    }

    /// Lets the clients go on for a while.
    fn wait_for_load(&self) {
        let done = || [&self.renewals, &self.rivalries].map(|count| count.load(Ordering::SeqCst));
        let before = done();
        let is_enough = || {
            let more = done().into_iter().zip(before);
            more.zip(LOAD)
                .all(|((after, before), load)| after - before >= load)
        };
        while !is_enough() && !self.is_over() {
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Revokes a holder on one daemon, which is restarted at once.
    fn restart(&self, replicas: &mut Vec<Renewd>, position: usize, signal: Signal) {
        let restart = self.restarts.load(Ordering::SeqCst);
        let subject = gone(restart);
        let renewd = replicas.remove(position);
        revoke(&renewd, &subject);
        renewd.signal(signal);
        let renewd = renewd.again();
        self.addresses.lock().unwrap()[position] = renewd.public;
        replicas.insert(position, renewd);
        for renewd in replicas {
            renewd.eventually("the revocation is known", |renewd| {
                renewd.revoked_subjects().contains(&subject)
            });
        }
        let uid = 200 + u32::try_from(restart).unwrap();
        self.revoked.lock().unwrap().insert(subject, uid);
        self.restarts.store(restart + 1, Ordering::SeqCst);
    }
}

#[test]
fn restarts_one_after_another_refuse_no_holder_and_forget_no_limit_no_claim_and_no_revocation() {
    let redis = Redis::start();
    let held = usize::try_from(HOLDERS).unwrap() + RESTARTS.len();
    let burst = held + NEWCOMERS;
    let limit = format!("channel = {{ requests = 6, per = \"1h\", burst = {burst} }}\n");
    let settings = settings(&redis, TIMEOUT, &limit, "");
    let settings = Settings {
        streams: Some(streams()),
        // A busy machine takes its time.
        tables: settings.tables + "[decision]\ntimeout = \"10s\"\n",
        ..settings
    };
    let mut replicas: Vec<_> = (0..3).map(|_| Renewd::start(&settings)).collect();
    let site = Site::new(&replicas);
    thread::scope(|scope| {
        let site = &site;
        let _ending = Ending(site);
        for work in [Site::renew, Site::renew, Site::come, Site::compete] {
            scope.spawn(move || {
                let _ending = Ending(site);
                while !site.is_over() {
                    work(site);
                }
            });
        }
        replicas[0].eventually("the channel is full", |_| {
            site.is_over() || site.newcomers.lock().unwrap().len() >= NEWCOMERS
        });
        let newcomers = site.newcomers.lock().unwrap().keys().cloned().collect();
        for renewd in &replicas {
            knows(renewd, &newcomers);
        }
        for (position, signal) in RESTARTS {
            site.wait_for_load();
            site.restart(&mut replicas, position, signal);
        }
        site.wait_for_load();
    });
    let newcomers = site.newcomers.lock().unwrap();
    // One that was charged may have got no answer from a daemon that was killed.
    let lifetimes = replicas.len() + RESTARTS.len();
    let expected = NEWCOMERS..=NEWCOMERS + lifetimes;
    assert!(expected.contains(&newcomers.len()), "{}", newcomers.len());
    for renewd in &replicas {
        for (subject, uid) in newcomers.iter().chain(&site.holders) {
            assert_eq!(ask_for(subject, CHANNEL, *uid).send(renewd).status, 200);
        }
        assert_eq!(renewd.whole("renewd_state_damaged"), 0);
    }
    let given = site.given.lock().unwrap();
    for (user, subjects) in given.iter() {
        assert_eq!(subjects.len(), 1, "{user:?}");
    }
    for restarts in 0..=RESTARTS.len() {
        let channel = rivals_channel(restarts);
        let uids = given.keys().filter(|(of, _)| *of == channel).count();
        assert!((1..=burst + lifetimes).contains(&uids), "{channel}: {uids}");
        for other in &replicas[1..] {
            replicas[0].eventually("all know the same holders", |renewd| {
                holders(renewd, &channel) == holders(other, &channel)
            });
        }
    }
}
