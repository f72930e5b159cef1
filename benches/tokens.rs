//! What a token request costs: each part of the decision, the token's bytes, and the whole from request to response.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)] // as in `forwarding`

use std::hint::black_box;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use renewd::agora::TokenFormat;
use renewd::agora::{self, RtcGrant};
use renewd::config::environment::SystemEnvironment;
use renewd::config::model::Config;
use renewd::decision;
use renewd::exchange::Exchange;
use renewd::exchange::response_body::RequestBody;
use renewd::io::descriptors::Shares;
use renewd::limit::Charge;
use renewd::revocation::{
    Revocation, RevocationId, RevocationQuestion, RevocationTarget, Revocations,
};
use renewd::snapshot::{Control, Shared, Snapshot, StreamsRead};
use renewd::sources::streams::StreamState;
use renewd::telemetry::audit::Audit;
use renewd::telemetry::labels::Endpoint;
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::terms::clock::Clock;
use renewd::terms::context::{RequestContext, RequestId};
use renewd::terms::role::Role;
use renewd::terms::user::User;
use sha2::Sha256;

const SECRET: &str = "a-secret-for-benchmarks-of-enough-bytes";
const CHANNEL: &str = "live_65f000000000000000000001";
const SUBJECT: &str = "65f000000000000000000001";

const CONFIGURATION: &str = r#"
[upstream]
servers = ["http://127.0.0.1:3001"]

[agora]
app_id = "970ca35de60c44645bbae8a215061b33"
app_certificate = "5cfd2fd1755d40ecb72977518be15d3b"

[auth.jwt]
secret = "a-secret-for-benchmarks-of-enough-bytes"

[streams]
file = "streams.toml"

[state]
directory = "state"

[log]
audit = "off"

[rate_limit]
"#;

/// On, and never reached.
const FAR_LIMITS: &str = r#"
subject = { requests = 1_000_000_000, per = "1s", burst = 1_000_000_000 }
channel = { requests = 1_000_000_000, per = "1s", burst = 1_000_000_000 }
global = { requests = 1_000_000_000, per = "1s", burst = 1_000_000_000 }
"#;

fn configuration(directory: &Path, limits: &str) -> Config {
    let path = directory.join("config.toml");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    file.write_all((CONFIGURATION.to_owned() + limits).as_bytes())
        .unwrap();
    match renewd::config::load_file(&path, &SystemEnvironment) {
        Ok(configuration) => configuration.0.config,
        Err(errors) => panic!("{:?}", errors.errors),
    }
}

fn shared() -> Shared {
    shared_with(FAR_LIMITS, Clock::system(), None)
}

fn shared_with(limits: &str, clock: Clock, previous: Option<&Snapshot>) -> Shared {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path(), limits);
    let dropped = DropCounter::default();
    let metrics = Metrics::new(&clock, dropped.clone());
    let audit = Audit::open(&config.log.audit, clock.clone(), dropped).unwrap();
    let stream = StreamState {
        live: true,
        owner: Some(SUBJECT.into()),
        ..StreamState::default()
    };
    let streams = StreamsRead::Table(vec![(CHANNEL.into(), stream)]);
    // Nothing is asked on it: the streams are in a file.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let control = Control::on(runtime.handle().clone());
    let audit = Arc::new(audit);
    let snapshot =
        Snapshot::build(config, streams, audit, previous, &metrics, &clock, &control).unwrap();
    Shared::new(snapshot, clock, metrics, control, &Shares::of(1024, 1))
}

fn login() -> String {
    let payload = format!(r#"{{"sub":"{SUBJECT}","iat":1700000000,"exp":4102444800}}"#);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    let mac = mac.chain_update(&signed).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn parts(criterion: &mut Criterion) {
    let shared = shared();
    let snapshot = shared.current.load_full();
    let login = login();

    criterion.bench_function("jwt", |bench| {
        bench.iter(|| snapshot.verifier.verify(black_box(&login), &shared.clock));
    });
    criterion.bench_function("limits", |bench| {
        bench.iter(|| {
            let limiter = &snapshot.limiter;
            limiter.check_local(black_box(SUBJECT), CHANNEL, false, Charge::Take)
        });
    });
    for (name, format) in [("007", TokenFormat::V007), ("006", TokenFormat::V006)] {
        let mut salt = 0;
        criterion.bench_function(&format!("token {name}"), |bench| {
            bench.iter(|| {
                salt += 1;
                let grant = RtcGrant {
                    channel: CHANNEL,
                    user: agora::User::Uid(12345),
                    role: Role::Publisher,
                    lifetime: 3600,
                    issued_at: 1_700_000_000,
                    salt,
                };
                agora::rtc_token(format, &snapshot.signer, black_box(&grant))
            });
        });
    }
}

/// What row 5 costs with few and with many revocations of every kind, none of which refuses the caller.
fn revocations(criterion: &mut Criterion) {
    const NOW: u64 = 1_700_000_000;
    for count in [0, 10, 100_000_u64] {
        let table = Revocations::default();
        for number in 0..count {
            let (subject, channel) = (format!("{number:024x}"), format!("live_{number:024x}"));
            let (subject, channel) = (subject.as_str(), channel.as_str());
            let user = User::Uid(u32::try_from(number).unwrap());
            let target = match number % 4 {
                0 => RevocationTarget::new(Some(subject.into()), None, None),
                1 => RevocationTarget::new(None, Some(channel.into()), None),
                2 => RevocationTarget::new(Some(subject.into()), Some(channel.into()), None),
                _ => RevocationTarget::new(None, Some(channel.into()), Some(user)),
            };
            let id = RevocationId::parse(&format!("{number:032x}")).unwrap();
            let (target, until) = (target.unwrap(), NOW + 3600);
            let revocation = Revocation::new(id, target, NOW, until);
            table.add(revocation).unwrap();
        }
        // Many callers, so that the processor's caches don't hold the one place that is looked at.
        let callers: Vec<String> = (0..4096).map(|number| format!("caller-{number}")).collect();
        let mut callers = callers.iter().cycle();
        criterion.bench_function(&format!("row 5 with {count} revocations"), |bench| {
            bench.iter(|| {
                let question = RevocationQuestion {
                    subject: callers.next().map(String::as_str),
                    channel: Some(CHANNEL),
                    user: Some(User::Uid(12345)),
                };
                table.find(black_box(question), NOW)
            });
        });
    }
}

fn whole(criterion: &mut Criterion) {
    let shared = shared();
    let snapshot = shared.current.load_full();
    let bearer = HeaderValue::try_from(format!("Bearer {}", login())).unwrap();
    let body = Bytes::from(format!(r#"{{"channelName":"{CHANNEL}","uid":12345}}"#));
    let context = RequestContext {
        id: RequestId::from_bits(1, 2),
        started: Duration::ZERO,
        peer: None,
        client_ip: Some(IpAddr::from([203, 0, 113, 77])),
    };
    let request = || {
        let exchange = Rc::new(Exchange::default());
        let mut request = Request::new(RequestBody::empty(exchange).replay(body.clone()));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, bearer.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let answer = |request| {
        let answering = decision::answer(&shared, &snapshot, &context, Endpoint::Token, request);
        match runtime.block_on(answering) {
            decision::TokenReply::Ours(response) => response,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answer(request()).status(), 200);
    criterion.bench_function("token request", |bench| {
        bench.iter_batched(request, answer, BatchSize::SmallInput);
    });
}

/// How long each call takes: the mean and the longest few are printed. Criterion gives no longest one.
fn longest<T>(what: &str, arguments: impl Iterator<Item = T>, mut call: impl FnMut(T)) {
    let time = Clock::system();
    let mut all: Vec<Duration> = arguments
        .map(|argument| {
            let before = time.elapsed();
            call(argument);
            time.elapsed().saturating_sub(before)
        })
        .collect();
    all.sort_unstable();
    let count = u32::try_from(all.len()).unwrap();
    let (mean, last) = (all.iter().sum::<Duration>() / count, all.len() - 1);
    let most = all[last - last / 1000];
    println!(
        "{what}: {count} times, mean {mean:?}, 99.9 % {most:?}, longest {:?}",
        all[last]
    );
}

/// What holds a lock of the limits with a million keys in debt: the insertion of each, a sweep that finds no paid
/// debt, one after a change of the limit, and one that forgets all.
fn a_million_debts(_: &mut Criterion) {
    const LIMIT: &str = r#"subject = { requests = 1, per = "1h", burst = 2 }"#;
    let clock = Clock::manual(1_700_000_000);
    let shared = shared_with(LIMIT, clock.clone(), None);
    let first = shared.current.load_full();
    let subjects: Vec<String> = (0..1_000_000).map(|number| number.to_string()).collect();
    let ask = |snapshot: &Snapshot, subject: &String| {
        let asked = snapshot
            .limiter
            .check_local(subject, CHANNEL, false, Charge::Take);
        let _either = black_box(asked);
    };
    longest("a new key", subjects.iter(), |subject| ask(&first, subject));
    longest("a known key", subjects.iter(), |subject| {
        ask(&first, subject);
    });
    longest("a slice without a paid debt", 0..256, |_| {
        assert_eq!(first.limiter.sweep_slice(), 0);
    });
    let changed = LIMIT.replace("1h", "2h");
    let shared = shared_with(&changed, clock.clone(), Some(&first));
    let second = shared.current.load_full();
    longest("a slice after a change", 0..256, |_| {
        assert_eq!(second.limiter.sweep_slice(), 0);
    });
    clock.advance(Duration::from_hours(5));
    longest("a slice of paid debts", 0..256, |_| {
        assert_ne!(second.limiter.sweep_slice(), 0);
    });
}

criterion_group!(benches, parts, revocations, whole, a_million_debts);
criterion_main!(benches);
