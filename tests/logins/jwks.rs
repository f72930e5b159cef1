//! Keys from a key set: rotated, missing, gone, and back.

#![allow(clippy::unwrap_used, clippy::panic)] // a test fails by panicking

use crate::support::plane;

use std::sync::Arc;
use std::time::Duration;

use crate::key_server::KeyServer;
use crate::support::key_pairs::Pair;
use crate::support::plane::within;
use renewd::config::model::{Jwt, JwtAlgorithm, JwtKey, KeyMaterial};
use renewd::config::secret::Secret;
use renewd::http::url::Url;
use renewd::io::fetch::Fetcher;
use renewd::logins::jwt::{JwtError, KeySet, Verifier};
use renewd::telemetry::line_writer::DropCounter;
use renewd::telemetry::metrics::Metrics;
use renewd::terms::clock::{Clock, timer_now};
use serde_json::{Value, json};
use tokio::runtime::Handle;

const NOW: u64 = 1_700_000_000;
const GRACE: Duration = Duration::from_mins(10);
/// The last moment of the grace period.
const ALMOST: Duration = Duration::from_millis(599_999);
const WINDOW: Duration = Duration::from_secs(30);

/// A pair with its place in a key set.
#[derive(Clone)]
struct Signer {
    pair: Pair,
    id: &'static str,
}

impl Signer {
    fn new(id: &'static str) -> Self {
        Self {
            pair: Pair::ec("P-256"),
            id,
        }
    }

    fn jwk(&self) -> Value {
        let mut jwk = self.pair.jwk();
        jwk["kid"] = self.id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    fn token(&self) -> String {
        self.pair.sign("ES256", &json!({"sub": "ada"}), self.id)
    }
}

fn config(server: &KeyServer) -> Jwt {
    Jwt {
        algorithms: vec![JwtAlgorithm::Es256, JwtAlgorithm::Hs256],
        keys: Vec::new(),
        jwks_url: Some(Url::parse(&server.url()).unwrap()),
        issuer: String::new(),
        audience: String::new(),
        leeway: Duration::ZERO,
        require_exp: true,
        key_grace: GRACE,
        subject_claim: "sub".into(),
        session_claim: String::new(),
    }
}

/// The parts of a daemon that read a key set.
struct Scene {
    clock: Clock,
    fetcher: Fetcher,
    metrics: Arc<Metrics>,
    server: KeyServer,
}

impl Scene {
    async fn start() -> Self {
        let clock = Clock::manual(NOW);
        Self {
            metrics: Metrics::new(&clock, DropCounter::default()),
            fetcher: Fetcher::new(Handle::current(), None),
            server: KeyServer::start().await,
            clock,
        }
    }

    fn verifier(&self, config: &Jwt, previous: Option<&Verifier>) -> Verifier {
        let before = previous.and_then(Verifier::key_set);
        let set = KeySet::of(config, before, &self.fetcher, &self.metrics, &self.clock);
        Verifier::new(config, previous, &self.clock).with_key_set(
            set,
            previous,
            config.key_grace,
            &self.clock,
        )
    }

    async fn verdict(&self, verifier: &Verifier, token: &str) -> Result<String, JwtError> {
        let due = timer_now() + WINDOW;
        let identified = within("a verdict", verifier.identify(token, &self.clock, due)).await;
        identified.map(|claims| claims.subject.into())
    }

    async fn accepts(&self, verifier: &Verifier, token: &str) {
        assert_eq!(self.verdict(verifier, token).await.unwrap(), "ada");
    }

    async fn refuses(&self, verifier: &Verifier, token: &str, error: JwtError) {
        assert_eq!(self.verdict(verifier, token).await, Err(error));
    }

    /// Makes the daemon's look of every second until the set is up, or down.
    async fn until(&self, verifier: &Verifier, up: bool) {
        let set = verifier.key_set().unwrap();
        within("the set's next state", async {
            while set.is_up() != up {
                self.clock.advance(Duration::from_secs(1));
                set.keep_fresh();
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|found| found == line)
    }
}

#[tokio::test]
async fn the_first_token_waits_for_the_first_read_and_later_ones_for_none() {
    let scene = Scene::start().await;
    let signer = Signer::new("one");
    scene.server.serve(&[signer.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    for _ in 0..3 {
        scene.accepts(&verifier, &signer.token()).await;
    }
    assert_eq!(scene.server.asked(), 1);
    assert!(scene.metric("renewd_source_up{source=\"jwks\"} 1"));
    assert!(scene.metric("renewd_source_lookups_total{source=\"jwks\",outcome=\"hit\"} 3"));
    assert!(scene.metric("renewd_source_lookups_total{source=\"jwks\",outcome=\"miss\"} 1"));
}

#[tokio::test]
async fn a_rotated_key_is_believed_at_once_and_the_old_one_for_the_grace_period() {
    let scene = Scene::start().await;
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    scene.server.serve(&[old.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    scene.accepts(&verifier, &old.token()).await;
    scene.server.serve(&[new.jwk()]);
    scene.accepts(&verifier, &new.token()).await;
    scene.accepts(&verifier, &old.token()).await;
    scene.clock.advance(ALMOST);
    scene.accepts(&verifier, &old.token()).await;
    scene.clock.advance(Duration::from_millis(1));
    scene
        .refuses(&verifier, &old.token(), JwtError::Signature)
        .await;
    scene.accepts(&verifier, &new.token()).await;
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_once_in_thirty_seconds() {
    let scene = Scene::start().await;
    let (signer, stranger, other) = (Signer::new("a"), Signer::new("b"), Signer::new("c"));
    scene.server.serve(&[signer.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    scene.accepts(&verifier, &signer.token()).await;
    scene
        .refuses(&verifier, &stranger.token(), JwtError::Signature)
        .await;
    assert_eq!(scene.server.asked(), 2);
    // The set may have the key by now and can't be read yet: a refusal would log the token's owner out.
    for signer in [&stranger, &other, &stranger] {
        scene
            .refuses(&verifier, &signer.token(), JwtError::KeyUnknown)
            .await;
    }
    scene.server.serve(&[signer.jwk(), other.jwk()]);
    scene.clock.advance(WINDOW);
    scene.accepts(&verifier, &other.token()).await;
    assert_eq!(scene.server.asked(), 3);
}

#[tokio::test]
async fn a_key_asked_for_in_vain_is_fetched_as_soon_as_it_may_be() {
    let scene = Scene::start().await;
    let (signer, next) = (Signer::new("a"), Signer::new("b"));
    scene.server.serve(&[signer.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    scene
        .refuses(&verifier, &Signer::new("x").token(), JwtError::Signature)
        .await;
    scene.clock.advance(Duration::from_secs(1));
    scene
        .refuses(&verifier, &next.token(), JwtError::KeyUnknown)
        .await;
    scene.server.serve(&[signer.jwk(), next.jwk()]);
    let before = scene.server.asked();
    verifier.key_set().unwrap().keep_fresh();
    scene.clock.advance(WINDOW);
    verifier.key_set().unwrap().keep_fresh();
    scene.server.asked_times(before + 1).await;
    scene.accepts(&verifier, &next.token()).await;
    assert_eq!(scene.server.asked(), before + 1);
}

#[tokio::test]
async fn a_storm_of_unknown_keys_is_one_read() {
    let scene = Arc::new(Scene::start().await);
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    scene.server.serve(&[old.jwk()]);
    let verifier = Arc::new(scene.verifier(&config(&scene.server), None));
    scene.accepts(&verifier, &old.token()).await;
    scene.server.serve(&[new.jwk()]);
    let token = new.token();
    let asking: Vec<_> = (0..1000)
        .map(|_| {
            let (scene, verifier, token) =
                (Arc::clone(&scene), Arc::clone(&verifier), token.clone());
            tokio::spawn(async move { scene.accepts(&verifier, &token).await })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap();
    }
    assert_eq!(scene.server.asked(), 2);
}

#[tokio::test]
async fn known_keys_outlive_an_outage_of_a_day_and_unknown_ones_are_not_refused() {
    let scene = Scene::start().await;
    let (signer, new) = (Signer::new("a"), Signer::new("b"));
    scene.server.serve(&[signer.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    scene.accepts(&verifier, &signer.token()).await;
    scene
        .server
        .answer("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    scene.clock.advance(GRACE);
    scene.until(&verifier, false).await;
    assert!(scene.metric("renewd_source_up{source=\"jwks\"} 0"));
    scene.accepts(&verifier, &signer.token()).await;
    scene
        .refuses(&verifier, &new.token(), JwtError::KeyUnknown)
        .await;
    let stale = "renewd_source_lookups_total{source=\"jwks\",outcome=\"stale\"} 1";
    assert!(scene.metric(stale), "{}", scene.metrics.render());
    scene.clock.advance(Duration::from_hours(23));
    scene.accepts(&verifier, &signer.token()).await;
    scene.clock.advance(Duration::from_hours(1));
    scene
        .refuses(&verifier, &signer.token(), JwtError::NoKeys)
        .await;
    scene.server.serve(&[new.jwk()]);
    scene.until(&verifier, true).await;
    scene.accepts(&verifier, &new.token()).await;
}

#[tokio::test]
async fn what_is_no_key_set_changes_nothing() {
    let large = "x".repeat(300 * 1024);
    for answer in [
        plane::ok("{\"keys\":[]}"),
        plane::ok("<html>sign in</html>"),
        plane::ok(&large),
        "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\n{\"keys\":[]}".to_owned(),
        "SSH-2.0-x\r\n\r\n".to_owned(),
    ] {
        let scene = Scene::start().await;
        let signer = Signer::new("a");
        scene.server.serve(&[signer.jwk()]);
        let verifier = scene.verifier(&config(&scene.server), None);
        scene.accepts(&verifier, &signer.token()).await;
        scene.server.answer(&answer);
        scene
            .refuses(&verifier, &Signer::new("b").token(), JwtError::KeyUnknown)
            .await;
        scene.accepts(&verifier, &signer.token()).await;
    }
}

#[tokio::test]
async fn a_set_that_was_never_read_refuses_no_login_and_leaves_shared_secrets_alone() {
    let scene = Scene::start().await;
    scene
        .server
        .answer("HTTP/1.1 503 Wait\r\nContent-Length: 0\r\n\r\n");
    let mut config = config(&scene.server);
    config.keys = vec![JwtKey {
        id: String::new(),
        algorithm: None,
        material: KeyMaterial::Secret(Secret::new(b"correct horse battery staple".to_vec())),
    }];
    let verifier = scene.verifier(&config, None);
    let signer = Signer::new("a");
    scene
        .refuses(&verifier, &signer.token(), JwtError::NoKeys)
        .await;
    let shared = Pair {
        private: "correct horse battery staple".into(),
        public: String::new(),
    };
    let token = |pair: &Pair| pair.sign("HS256", &json!({"sub": "ada"}), "a");
    scene.accepts(&verifier, &token(&shared)).await;
    let guessed = Pair {
        private: "another secret of somebody".into(),
        ..shared
    };
    scene
        .refuses(&verifier, &token(&guessed), JwtError::Signature)
        .await;
}

#[tokio::test]
async fn a_token_brings_no_key_of_its_own() {
    let scene = Scene::start().await;
    let elsewhere = KeyServer::start().await;
    let (signer, forger) = (Signer::new("a"), Signer::new("a"));
    scene.server.serve(&[signer.jwk()]);
    elsewhere.serve(&[forger.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    scene.accepts(&verifier, &signer.token()).await;
    // The token is signed by a foreign key, under the name of a known one, and its header carries that key and says
    // where to find it.
    let header = json!({
        "alg": "ES256", "kid": "a", "jwk": forger.jwk(), "jku": elsewhere.url(), "x5u": elsewhere.url(),
    });
    let forged = forger.pair.sign_with(&header, &json!({"sub": "eve"}));
    scene.refuses(&verifier, &forged, JwtError::Signature).await;
    assert_eq!((scene.server.asked(), elsewhere.asked()), (2, 0));
}

#[tokio::test]
async fn tokens_without_a_key_id_find_their_key_and_a_new_one() {
    let scene = Scene::start().await;
    let (mut old, mut new) = (Signer::new("old"), Signer::new("new"));
    scene.server.serve(&[old.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    (old.id, new.id) = ("", "");
    scene.accepts(&verifier, &old.token()).await;
    scene.server.serve(&[new.jwk()]);
    scene.accepts(&verifier, &new.token()).await;
    assert_eq!(scene.server.asked(), 2);
}

#[tokio::test]
async fn a_key_changed_under_its_old_name_five_seconds_after_a_read_is_believed_at_once() {
    for id in ["login", ""] {
        let scene = Scene::start().await;
        let (old, new) = (Signer::new(id), Signer::new(id));
        scene.server.serve(&[old.jwk()]);
        let verifier = scene.verifier(&config(&scene.server), None);
        scene.accepts(&verifier, &old.token()).await;
        scene.clock.advance(Duration::from_secs(5));
        scene.server.serve(&[new.jwk()]);
        scene.accepts(&verifier, &new.token()).await;
        assert_eq!(scene.server.asked(), 2, "{id:?}");
        // Logins from before the change go on for the grace period.
        scene.accepts(&verifier, &old.token()).await;
    }
}

#[tokio::test]
async fn a_known_name_is_refused_only_on_keys_read_since_the_request_came() {
    let scene = Scene::start().await;
    let (signer, forger) = (Signer::new("a"), Signer::new("a"));
    scene.server.serve(&[signer.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    scene.accepts(&verifier, &signer.token()).await;
    let forged = forger.token();
    scene.refuses(&verifier, &forged, JwtError::Signature).await;
    // Inside the interval renewd can't know whether the key has changed since.
    for _ in 0..3 {
        scene
            .refuses(&verifier, &forged, JwtError::KeyUnknown)
            .await;
    }
    scene.clock.advance(WINDOW);
    scene.refuses(&verifier, &forged, JwtError::Signature).await;
    assert_eq!(scene.server.asked(), 3);
    // While the set can't be read, renewd can't know either.
    scene
        .server
        .answer("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    scene.clock.advance(WINDOW);
    for _ in 0..3 {
        scene
            .refuses(&verifier, &forged, JwtError::KeyUnknown)
            .await;
    }
    scene.accepts(&verifier, &signer.token()).await;
}

#[tokio::test]
async fn a_read_that_began_before_the_request_refuses_no_login() {
    let scene = Arc::new(Scene::start().await);
    let (first, second) = (Signer::new("a"), Signer::new("a"));
    let verifier = Arc::new(scene.verifier(&config(&scene.server), None));
    // The first read hangs, and may have been answered already with the keys of that time.
    scene.server.asked_times(1).await;
    let token = second.token();
    let asking = {
        let (scene, verifier) = (Arc::clone(&scene), Arc::clone(&verifier));
        tokio::spawn(async move { scene.accepts(&verifier, &token).await })
    };
    scene
        .server
        .serve_in_turn(&[&[first.jwk()], &[second.jwk()]]);
    within("both reads", asking).await.unwrap();
    assert_eq!(scene.server.asked(), 2);
}

#[tokio::test]
async fn a_minute_of_forged_tokens_is_three_reads_and_a_new_key_waits_no_longer_than_thirty_seconds()
 {
    let scene = Scene::start().await;
    let (signer, next) = (Signer::new("a"), Signer::new("b"));
    scene.server.serve(&[signer.jwk()]);
    let verifier = scene.verifier(&config(&scene.server), None);
    scene.accepts(&verifier, &signer.token()).await;
    let before = scene.server.asked();
    // The tokens come under a known name, under names of their own or under none, most with a signature that is quickly
    // seen to be invalid.
    let unnamed = Signer::new("");
    let signed = [
        Signer::new("a").token(),
        Signer::new("x").token(),
        unnamed.token(),
    ];
    let unsigned = signed.clone().map(|token| {
        let (content, _) = token.rsplit_once('.').unwrap();
        format!("{content}.AAAA")
    });
    let (published, genuine) = (7, next.token());
    let known = signer.token();
    let mut believed = None;
    for second in 0..60 {
        if second == published {
            scene.server.serve(&[signer.jwk(), next.jwk()]);
        }
        for count in 0..1000 {
            let kind = if count % 100 == 0 { &signed } else { &unsigned };
            let verdict = scene.verdict(&verifier, &kind[count % 3]).await;
            assert!(
                matches!(verdict, Err(JwtError::Signature | JwtError::KeyUnknown)),
                "{verdict:?}"
            );
        }
        if second >= published && believed.is_none() {
            match scene.verdict(&verifier, &genuine).await {
                Ok(_) => believed = Some(second),
                Err(error) => assert_eq!(error, JwtError::KeyUnknown),
            }
        }
        scene.accepts(&verifier, &known).await;
        scene.clock.advance(Duration::from_secs(1));
        verifier.key_set().unwrap().keep_fresh();
    }
    assert!(
        scene.server.asked() - before <= 3,
        "{}",
        scene.server.asked()
    );
    assert!(believed.unwrap() - published <= 30, "{believed:?}");
}

#[tokio::test]
async fn keys_without_use_or_algorithm_and_two_of_one_name_verify() {
    let scene = Scene::start().await;
    let (one, other, plain) = (Signer::new("a"), Signer::new("a"), Signer::new("b"));
    let mut bare = plain.jwk();
    bare.as_object_mut().unwrap().remove("use");
    assert!(bare.get("alg").is_none());
    let mut bound = other.jwk();
    bound["alg"] = "ES256".into();
    scene.server.serve(&[one.jwk(), bound, bare]);
    let verifier = scene.verifier(&config(&scene.server), None);
    for signer in [&one, &other, &plain] {
        scene.accepts(&verifier, &signer.token()).await;
    }
    assert_eq!(scene.server.asked(), 1);
    // One of the two changes.
    let changed = Signer::new("a");
    scene.server.serve(&[one.jwk(), changed.jwk()]);
    for signer in [&changed, &one, &other] {
        scene.accepts(&verifier, &signer.token()).await;
    }
    assert_eq!(scene.server.asked(), 2);
}

#[tokio::test]
async fn a_reload_keeps_the_set_and_a_change_of_its_url_keeps_its_keys_for_the_grace_period() {
    let scene = Scene::start().await;
    let signer = Signer::new("a");
    scene.server.serve(&[signer.jwk()]);
    let first = scene.verifier(&config(&scene.server), None);
    scene.accepts(&first, &signer.token()).await;
    let second = scene.verifier(&config(&scene.server), Some(&first));
    scene.accepts(&second, &signer.token()).await;
    assert_eq!(scene.server.asked(), 1);

    let elsewhere = KeyServer::start().await;
    let other = Signer::new("b");
    elsewhere.serve(&[other.jwk()]);
    let third = scene.verifier(&config(&elsewhere), Some(&second));
    scene.accepts(&third, &other.token()).await;
    scene.accepts(&third, &signer.token()).await;
    let fourth = scene.verifier(&config(&elsewhere), Some(&third));
    scene.clock.advance(ALMOST);
    scene.accepts(&fourth, &signer.token()).await;
    scene.clock.advance(Duration::from_millis(1));
    scene
        .refuses(&fourth, &signer.token(), JwtError::Signature)
        .await;
    assert_eq!(scene.server.asked(), 1);
}
