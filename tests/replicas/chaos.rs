//! Two daemons, their Redis and their backend are killed and frozen at random while clients ask and an operator
//! revokes.
//!
//! `CHAOS_SECONDS=600` makes it longer than its two minutes, `CHAOS_SEED=n` repeats a run's order of faults.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::shared_limits::over;
use crate::support::ask::Ask;
use crate::support::express::{Express, Version};
use crate::support::lifecycle::try_to_revoke;
use crate::support::ports::free_for_long;
use crate::support::random::Numbers;
use crate::support::raw::Client;
use crate::support::redis::Redis;
use crate::support::renewd::{Renewd, Settings, jwt_with, now};

/// How long the faults go on, unless `CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 120;

/// What was seen, by name.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<String, usize>>);

impl Seen {
    fn count(&self, what: impl Into<String>) {
        *self.0.lock().unwrap().entry(what.into()).or_default() += 1;
    }
}

struct World {
    replicas: [RwLock<Renewd>; 2],
    redis: Mutex<Redis>,
    /// `None` while it is down.
    backend: Mutex<Option<Express>>,
    backend_port: String,
    /// The subjects that a replica has acknowledged as revoked.
    revoked: Mutex<Vec<(String, usize)>>,
    over: AtomicBool,
    next: AtomicUsize,
    seen: Seen,
}

fn backend(port: &str) -> Express {
    Express::start(Version::Five, &[("PORT", port)])
}

impl World {
    fn new(numbers: &mut Numbers) -> Self {
        let address = free_for_long(numbers);
        let backend_port = address.port().to_string();
        let redis = Redis::start();
        let settings = Settings {
            backend: Some(address),
            ..over(&redis.url(), "", "subject = \"off\"\naddress = \"off\"\n")
        };
        Self {
            replicas: [(); 2].map(|()| RwLock::new(Renewd::start(&settings))),
            redis: Mutex::new(redis),
            backend: Mutex::new(Some(backend(&backend_port))),
            backend_port,
            revoked: Mutex::default(),
            over: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            seen: Seen::default(),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Kills a replica, whatever is being asked of it, and starts it again on its directory.
    fn kill(&self, replica: usize) {
        self.replicas[replica].read().unwrap().signal(Signal::KILL);
        let mut renewd = self.replicas[replica].write().unwrap();
        renewd.wait();
        let directory = std::mem::replace(&mut renewd.directory, tempfile::tempdir().unwrap());
        *renewd = Renewd::start_in(directory, &[], |_| {});
    }

    fn fault(&self, numbers: &mut Numbers) {
        let pause = Duration::from_millis(numbers.below(1500));
        let what = match numbers.below(5) {
            0 | 1 => {
                self.kill(numbers.position(2));
                "a daemon was killed"
            }
            2 => {
                self.redis.lock().unwrap().restart();
                "Redis was killed and came back empty"
            }
            3 => {
                let redis = self.redis.lock().unwrap();
                redis.freeze();
                thread::park_timeout(pause);
                redis.thaw();
                "Redis was frozen"
            }
            _ => {
                let mut running = self.backend.lock().unwrap();
                *running = None;
                thread::park_timeout(pause / 3);
                *running = Some(backend(&self.backend_port));
                "the backend was killed"
            }
        };
        self.seen.count(format!("fault: {what}"));
        thread::park_timeout(pause);
    }

    /// The status of a token request; `None` where no answer came.
    fn ask(&self, replica: usize, ask: &Ask) -> Option<u16> {
        let renewd = self.replicas[replica].read().unwrap();
        let answer = Client::new(renewd.public).send(&ask.bytes()).ok()?;
        Some(answer.status)
    }

    fn revoke_one(&self, numbers: &mut Numbers) {
        let subject = format!("revoked-{}", self.next.fetch_add(1, Ordering::SeqCst));
        let replica = numbers.position(2);
        let body = json!({"subject": subject, "for": "1h"}).to_string();
        let admin = self.replicas[replica].read().unwrap().admin;
        let told = try_to_revoke(admin, &body);
        self.seen.count(format!("revocation: {told:?}"));
        if told == Some(201) {
            self.revoked.lock().unwrap().push((subject, replica));
        }
        thread::park_timeout(Duration::from_millis(100));
    }

    /// One question of each kind; what must never be is a panic.
    fn ask_all(&self, numbers: &mut Numbers) {
        let replica = numbers.position(2);
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let uid = 1000 + u32::try_from(number).unwrap();
        let revoked = {
            let revoked = self.revoked.lock().unwrap();
            let position = (!revoked.is_empty()).then(|| numbers.position(revoked.len()));
            position.map(|position| revoked[position].clone())
        };
        if let Some((subject, replica)) = revoked {
            let status = self.ask(replica, &Ask::viewer(&subject, uid));
            assert_ne!(status, Some(200), "{subject} was revoked and has a token");
            self.seen.count(format!("revoked subject: {status:?}"));
        }
        let free = self.ask(replica, &Ask::viewer(&format!("free-{number}"), uid));
        assert!(!matches!(free, Some(401 | 403)), "a free subject: {free:?}");
        self.seen.count(format!("free subject: {free:?}"));
        let forged = jwt_with(
            "another-secret",
            &json!({"sub": "owner", "exp": now() + 60}),
        );
        let forged = self.ask(replica, &Ask::viewer("owner", uid).bearer(&forged));
        assert_ne!(forged, Some(200), "a forged login has a token");
        let publishes = json!({"channelName": "live_show", "uid": uid, "role": "publisher"});
        let stranger = self.ask(replica, &Ask::new("stranger", &publishes));
        assert_ne!(stranger, Some(200), "a stranger publishes");
        self.seen
            .count(format!("stranger who publishes: {stranger:?}"));
        let address = self.replicas[replica].read().unwrap().public;
        let request = b"GET /health HTTP/1.1\r\nHost: example.com\r\n\r\n";
        let forwarded = Client::new(address).send(request).ok();
        let forwarded = forwarded.map(|answer| answer.status);
        // 429 is the app's own.
        assert!(
            matches!(forwarded, None | Some(200 | 429 | 502 | 503 | 504)),
            "forwarded: {forwarded:?}"
        );
        self.seen.count(format!("forwarded: {forwarded:?}"));
    }
}

#[test]
fn whatever_dies_nothing_acknowledged_is_lost_and_nothing_revoked_is_granted() {
    let number = |name: &str, usual: u64| {
        let set = std::env::var(name).ok();
        set.map_or(usual, |set| set.parse().expect(name))
    };
    let (seed, seconds) = (
        number("CHAOS_SEED", now()),
        number("CHAOS_SECONDS", SECONDS),
    );
    println!("CHAOS_SEED={seed}");
    let world = World::new(&mut Numbers(seed));
    let until = now() + seconds;
    thread::scope(|scope| {
        let world = &world;
        let repeat = |seed: u64, work: fn(&World, &mut Numbers)| {
            let mut numbers = Numbers(seed);
            while !world.is_over() {
                work(world, &mut numbers);
            }
        };
        scope.spawn(move || repeat(seed ^ 1, World::revoke_one));
        scope.spawn(move || repeat(seed ^ 2, World::ask_all));
        scope.spawn(move || repeat(seed ^ 3, World::ask_all));
        // Faults end the run, whether one of the others has failed or not.
        let mut numbers = Numbers(seed);
        while now() < until {
            world.fault(&mut numbers);
        }
        world.over.store(true, Ordering::SeqCst);
    });
    let acknowledged: BTreeSet<String> = {
        let revoked = world.revoked.lock().unwrap();
        revoked.iter().map(|(subject, _)| subject.clone()).collect()
    };
    for replica in &world.replicas {
        let renewd = replica.read().unwrap();
        renewd.eventually("every acknowledged revocation is in force", |renewd| {
            renewd.revoked_subjects().is_superset(&acknowledged)
        });
        assert_eq!(renewd.whole("renewd_state_damaged"), 0);
    }
    let seen = world.seen.0.lock().unwrap();
    for (what, count) in seen.iter() {
        println!("{count:6} {what}");
    }
    for needed in [
        "fault: a daemon was killed",
        "free subject: Some(200)",
        "revoked subject: Some(403)",
    ] {
        assert!(seen.contains_key(needed), "never {needed}: {seen:?}");
    }
}
