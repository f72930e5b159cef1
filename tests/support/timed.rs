//! The token endpoints in this process, on a clock that the test moves: days pass in no time.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt as _;
use renewd::config::model::{AuditSink, Config};
use renewd::config::secret::Secret;
use renewd::decision;
use renewd::exchange::Exchange;
use renewd::exchange::response_body::RequestBody;
use renewd::io::descriptors::Shares;
use renewd::snapshot::{Control, Shared, Snapshot, StreamsRead};
use renewd::sources::streams::StreamState;
use renewd::telemetry::audit::Audit;
use renewd::telemetry::labels::Endpoint;
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::terms::clock::Clock;
use renewd::terms::context::{RequestContext, RequestId};
use serde_json::Value;

use super::renewd::{APP_CERTIFICATE, jwt};
use ::renewd::agora::parse::{self, Parsed, Parsed007};

/// The channel of the one live stream.
pub const CHANNEL: &str = "live_show";

/// The stream's owner.
pub const OWNER: &str = "owner";

/// When the clock starts, Unix seconds: 2027-01-15T08:00:00Z.
pub const START: u64 = 1_800_000_000;

/// The service; one live stream.
pub struct Timed {
    shared: Shared,
    config: Config,
    subject_claim: String,
    runtime: tokio::runtime::Runtime,
    asked: RefCell<u64>,
}

impl Timed {
    /// Serves under this configuration.
    pub fn new(config: Config) -> Self {
        let (clock, dropped) = (Clock::manual(START), DropCounter::default());
        let metrics = Metrics::new(&clock, dropped);
        // Questions to a source go on between the requests.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let control = Control::on(runtime.handle().clone());
        let snapshot = snapshot(&config, live_stream(), None, &metrics, &clock, &control);
        Self {
            subject_claim: config.jwt.subject_claim.clone(),
            shared: Shared::new(snapshot, clock, metrics, control, &Shares::of(1024, 1)),
            config,
            runtime,
            asked: RefCell::new(0),
        }
    }

    /// Unix seconds.
    pub fn now(&self) -> u64 {
        self.shared.clock.unix_seconds()
    }

    /// Lets time pass until then.
    pub fn at(&self, unix_seconds: u64) {
        let wait = unix_seconds.checked_sub(self.now());
        let wait = wait.expect("a time that hasn't passed");
        self.shared.clock.advance(Duration::from_secs(wait));
    }

    /// Lets so much time pass, whatever the time of day is.
    pub fn pass(&self, time: Duration) {
        self.shared.clock.advance(time);
    }

    /// Sets the time of day, forward or back, as an operator or NTP would.
    pub fn set_clock(&self, unix_seconds: u64) {
        self.shared.clock.set(unix_seconds);
    }

    /// From now on streams can't be looked up, until they can.
    pub fn streams_answer(&self, answer: bool) {
        let streams = if answer {
            live_stream()
        } else {
            StreamsRead::Unreadable
        };
        let before = self.shared.current.load_full();
        let Shared { metrics, clock, .. } = &self.shared;
        let control = &self.shared.control;
        let after = snapshot(
            &self.config,
            streams,
            Some(&before),
            metrics,
            clock,
            control,
        );
        self.shared.current.store(Arc::new(after));
    }

    /// A login of `subject` that outlives every test, with these claims too.
    pub fn login(&self, subject: &str, claims: Value) -> String {
        let Value::Object(mut claims) = claims else {
            panic!("claims are an object, not {claims}");
        };
        claims.insert(self.subject_claim.clone(), subject.into());
        claims.insert("exp".to_owned(), (START + 30 * 86_400).into());
        jwt(&claims.into())
    }

    /// POSTs a body to the token endpoint; status and answer.
    pub fn ask(&self, login: &str, body: &Value) -> (u16, Value) {
        let exchange = Rc::new(Exchange::default());
        let body = RequestBody::empty(exchange).replay(Bytes::from(body.to_string()));
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        let bearer = HeaderValue::try_from(format!("Bearer {login}")).unwrap();
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let count = {
            *self.asked.borrow_mut() += 1;
            *self.asked.borrow()
        };
        let context = RequestContext {
            id: RequestId::from_bits(0, count),
            started: self.shared.clock.elapsed(),
            peer: None,
            client_ip: Some(IpAddr::from([203, 0, 113, 77])),
        };
        let snapshot = self.shared.current.load_full();
        let answering =
            decision::answer(&self.shared, &snapshot, &context, Endpoint::Token, request);
        self.runtime.block_on(async {
            let decision::TokenReply::Ours(response) = answering.await else {
                panic!("not answered here");
            };
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, serde_json::from_slice(&body).unwrap())
        })
    }

    /// Asks, and holds the answer's tokens to what it says of them. Its `data`.
    pub fn granted(&self, login: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(login, body);
        assert_eq!(status, 200, "{answer}");
        let data = answer["data"].clone();
        let now = self.now();
        let expires = unix(&data["expiresAt"]);
        assert_eq!(now + data["expiresIn"].as_u64().unwrap(), expires, "{data}");
        let refresh = unix(&data["refreshAt"]);
        let half = now + (expires - now) / 2;
        assert!((half..=expires).contains(&refresh), "{data}");
        assert_eq!(expiry(&data["token"]), expires, "{data}");
        if !data["backup"].is_null() {
            let later = unix(&data["backup"]["expiresAt"]);
            assert_eq!(expiry(&data["backup"]["token"]), later, "{data}");
            assert!(later > expires, "{data}");
            let (token, backup) = (token(&data["token"]), token(&data["backup"]["token"]));
            assert_eq!(token.token.issued_at, backup.token.issued_at);
        }
        data
    }

    /// Asks and is refused; status and code.
    pub fn refused(&self, login: &str, body: &Value) -> (u16, String) {
        let (status, answer) = self.ask(login, body);
        assert_ne!(status, 200, "{answer}");
        (status, answer["code"].as_str().unwrap().to_owned())
    }
}

fn live_stream() -> StreamsRead {
    let stream = StreamState {
        live: true,
        owner: Some(OWNER.into()),
        ..StreamState::default()
    };
    StreamsRead::Table(vec![(CHANNEL.into(), stream)])
}

/// A configuration taken up after `previous`.
pub fn snapshot(
    config: &Config,
    streams: StreamsRead,
    previous: Option<&Snapshot>,
    metrics: &Metrics,
    clock: &Clock,
    control: &Control,
) -> Snapshot {
    let audit = Audit::open(&AuditSink::Off, clock.clone(), DropCounter::default());
    let audit = Arc::new(audit.unwrap());
    Snapshot::build(
        config.clone(),
        streams,
        audit,
        previous,
        metrics,
        clock,
        control,
    )
    .unwrap()
}

/// A token of renewd, taken apart and verified.
pub fn token(token: &Value) -> Parsed007 {
    let Ok(Parsed::V007(parsed)) = parse::parse(token.as_str().unwrap()) else {
        panic!("no 007 token: {token}");
    };
    let certificate = Secret::new(APP_CERTIFICATE.as_bytes().to_vec());
    assert!(parsed.verify(&certificate));
    parsed
}

/// When a token and every privilege in it expire, Unix seconds; Agora ends it after 24 hours.
pub fn expiry(text: &Value) -> u64 {
    let token = token(text).token;
    assert!((1..=86_400).contains(&token.expire), "{token:?}");
    for service in &token.services {
        assert!(!service.privileges.is_empty(), "{token:?}");
        for lifetime in service.privileges.values() {
            assert_eq!(*lifetime, token.expire, "{token:?}");
        }
    }
    u64::from(token.issued_at) + u64::from(token.expire)
}

/// A timestamp of an answer in Unix seconds.
pub fn unix(timestamp: &Value) -> u64 {
    let time = humantime::parse_rfc3339(timestamp.as_str().unwrap()).unwrap();
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_secs()
}
