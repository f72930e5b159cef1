//! JWT verification, case by case.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::mac::KeyedMac;
use super::*;
use crate::config::model::{JwtKey, KeyMaterial};
use crate::config::secret::Secret;

const NOW: u64 = 1_700_000_000;

fn key(id: &str, algorithm: Option<JwtAlgorithm>, secret: &str) -> JwtKey {
    JwtKey {
        id: id.into(),
        algorithm,
        material: KeyMaterial::Secret(Secret::new(secret.into())),
    }
}

fn config(keys: &[JwtKey]) -> Jwt {
    Jwt {
        algorithms: vec![JwtAlgorithm::Hs256],
        keys: keys.to_vec(),
        jwks_url: None,
        issuer: String::new(),
        audience: String::new(),
        leeway: Duration::ZERO,
        require_exp: true,
        key_grace: Duration::from_mins(10),
        subject_claim: "sub".into(),
        session_claim: String::new(),
    }
}

/// Signs with the code under test; `tests/logins/jwt_parity.rs` shows that the code signs as Node does.
fn token(header: &[u8], payload: &[u8], algorithm: JwtAlgorithm, secret: &str) -> String {
    let signed = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signed = signed.join(".");
    let signature = match KeyedMac::new(algorithm, secret.as_bytes()).unwrap() {
        KeyedMac::Sha256(state) => encoded(state, &signed),
        KeyedMac::Sha384(state) => encoded(state, &signed),
        KeyedMac::Sha512(state) => encoded(state, &signed),
    };
    format!("{signed}.{signature}")
}

fn encoded(state: impl hmac::Mac, signed: &str) -> String {
    URL_SAFE_NO_PAD.encode(state.chain_update(signed).finalize().into_bytes())
}

fn hs256(payload: &str, secret: &str) -> String {
    token(
        br#"{"alg":"HS256"}"#,
        payload.as_bytes(),
        JwtAlgorithm::Hs256,
        secret,
    )
}

fn with_key_id(id: &str, secret: &str) -> String {
    let header = format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
    token(
        header.as_bytes(),
        br#"{"sub":"ada"}"#,
        JwtAlgorithm::Hs256,
        secret,
    )
}

#[test]
fn claims_are_the_subject_and_the_expiry_as_written() {
    let clock = Clock::manual(NOW);
    let verifier = Verifier::new(&config(&[key("", None, "s")]), None, &clock);
    assert_eq!(
        verifier.verify(&hs256(r#"{"sub":"ada","exp":1700000000.5}"#, "s"), &clock),
        Ok(JwtClaims {
            subject: "ada".into(),
            session: None,
            expires_at: Some(1_700_000_000.5),
            all: r#"{"sub":"ada","exp":1700000000.5}"#.into(),
        })
    );
    let unending = verifier.verify(&hs256(r#"{"sub":"ada"}"#, "s"), &clock);
    assert_eq!(unending.unwrap().expires_at, None);
}

#[test]
fn each_refusal_has_its_reason_and_only_expiry_its_own_code() {
    let clock = Clock::manual(NOW);
    let mut config = config(&[key("", None, "s")]);
    config.issuer = "me".into();
    config.audience = "us".into();
    let verifier = Verifier::new(&config, None, &clock);
    let verify = |payload: &str| verifier.verify(&hs256(payload, "s"), &clock);
    let rows = [
        (verifier.verify("", &clock), JwtError::Malformed),
        (verifier.verify("e30.e30.x", &clock), JwtError::Algorithm),
        (verifier.verify("e30.e30.", &clock), JwtError::Signature),
        (
            verifier.verify(&hs256("{}", "other"), &clock),
            JwtError::Signature,
        ),
        (verify(r#"{"exp":"1"}"#), JwtError::Time),
        (verify(r#"{"nbf":"1"}"#), JwtError::Time),
        (verify(r#"{"nbf":1700000001}"#), JwtError::NotYetValid),
        (verify(r#"{"exp":1700000000}"#), JwtError::Expired),
        (verify(r#"{"iss":"me"}"#), JwtError::Audience),
        (verify(r#"{"aud":"us"}"#), JwtError::Issuer),
        (verify(r#"{"aud":"us","iss":"me"}"#), JwtError::Subject),
    ];
    for (verdict, reason) in rows {
        assert_eq!(verdict, Err(reason));
        let code = if reason == JwtError::Expired {
            "token_expired"
        } else {
            "unauthenticated"
        };
        assert_eq!(reason.outcome().as_str(), code);
        // Installed clients take the word for a suspended account.
        assert!(!reason.to_string().to_lowercase().contains("suspend"));
    }
}

#[test]
fn by_a_clock_that_is_not_set_a_login_is_neither_good_nor_expired() {
    let clock = Clock::manual(NOW);
    let verifier = Verifier::new(&config(&[key("", None, "s")]), None, &clock);
    for time in [0, 1_577_836_799, 4_102_444_800, u64::MAX] {
        clock.set(time);
        for payload in [
            r#"{"sub":"ada"}"#,
            r#"{"sub":"ada","exp":1}"#,
            r#"{"sub":"ada","nbf":5000000000}"#,
        ] {
            let verdict = verifier.verify(&hs256(payload, "s"), &clock);
            assert_eq!(verdict, Err(JwtError::NoTime), "{payload} at {time}");
        }
        // The signer of a token can be told at any time.
        let forged = verifier.verify(&hs256(r#"{"sub":"ada"}"#, "other"), &clock);
        assert_eq!(forged, Err(JwtError::Signature));
    }
    assert_eq!(JwtError::NoTime.outcome().as_str(), "unavailable");
}

#[test]
fn any_configured_key_verifies_under_its_own_algorithm_only() {
    let clock = Clock::manual(NOW);
    let mut config = config(&[
        key("a", Some(JwtAlgorithm::Hs256), "first"),
        key("b", Some(JwtAlgorithm::Hs512), "second"),
    ]);
    config.algorithms = vec![JwtAlgorithm::Hs256, JwtAlgorithm::Hs512];
    let verifier = Verifier::new(&config, None, &clock);
    let verdict = |name: &str, algorithm, secret: &str| {
        let header = format!(r#"{{"alg":"{name}"}}"#);
        let token = token(header.as_bytes(), br#"{"sub":"ada"}"#, algorithm, secret);
        verifier.verify(&token, &clock).is_ok()
    };
    assert!(verdict("HS256", JwtAlgorithm::Hs256, "first"));
    assert!(verdict("HS512", JwtAlgorithm::Hs512, "second"));
    assert!(!verdict("HS512", JwtAlgorithm::Hs512, "first"));
    assert!(!verdict("HS256", JwtAlgorithm::Hs256, "second"));
    assert!(!verdict("HS384", JwtAlgorithm::Hs384, "first"));
}

#[test]
fn a_key_id_selects_where_both_sides_have_one() {
    let clock = Clock::manual(NOW);
    let keys = [key("a", None, "first"), key("", None, "second")];
    let verifier = Verifier::new(&config(&keys), None, &clock);
    let verdict = |token: &str| verifier.verify(token, &clock).is_ok();
    assert!(verdict(&with_key_id("a", "first")));
    assert!(!verdict(&with_key_id("b", "first")));
    assert!(verdict(&with_key_id("b", "second")));
    assert!(verdict(&hs256(r#"{"sub":"ada"}"#, "first")));
}

#[test]
fn replaced_keys_verify_for_the_grace_period_and_no_longer() {
    let clock = Clock::manual(NOW);
    let old = hs256(r#"{"sub":"ada"}"#, "old");
    let first = Verifier::new(&config(&[key("", None, "old")]), None, &clock);
    let second = Verifier::new(&config(&[key("", None, "new")]), Some(&first), &clock);
    assert!(
        second
            .verify(&hs256(r#"{"sub":"ada"}"#, "new"), &clock)
            .is_ok()
    );
    assert!(second.verify(&old, &clock).is_ok());
    clock.advance(Duration::from_secs(400));
    // A reload that changes nothing prolongs nothing.
    let third = Verifier::new(&config(&[key("", None, "new")]), Some(&second), &clock);
    clock.advance(Duration::from_millis(199_999));
    assert!(second.verify(&old, &clock).is_ok());
    assert!(third.verify(&old, &clock).is_ok());
    clock.advance(Duration::from_millis(1));
    assert_eq!(second.verify(&old, &clock), Err(JwtError::Signature));
    assert_eq!(third.verify(&old, &clock), Err(JwtError::Signature));
    let fourth = Verifier::new(&config(&[key("", None, "new")]), Some(&third), &clock);
    assert!(
        fourth.ring.retired.is_empty(),
        "its secret is dropped and wiped"
    );
}

#[test]
fn a_shorter_grace_period_applies_to_keys_already_replaced() {
    let clock = Clock::manual(NOW);
    let old = hs256(r#"{"sub":"ada"}"#, "old");
    let first = Verifier::new(&config(&[key("", None, "old")]), None, &clock);
    let second = Verifier::new(&config(&[key("", None, "new")]), Some(&first), &clock);
    let mut at_once = config(&[key("", None, "new")]);
    at_once.key_grace = Duration::ZERO;
    let third = Verifier::new(&at_once, Some(&second), &clock);
    assert_eq!(third.verify(&old, &clock), Err(JwtError::Signature));
}

#[test]
fn a_key_that_comes_back_is_not_on_grace() {
    let clock = Clock::manual(NOW);
    let old = hs256(r#"{"sub":"ada"}"#, "old");
    let first = Verifier::new(&config(&[key("", None, "old")]), None, &clock);
    let second = Verifier::new(&config(&[key("", None, "new")]), Some(&first), &clock);
    let third = Verifier::new(&config(&[key("", None, "old")]), Some(&second), &clock);
    clock.advance(Duration::from_mins(100));
    assert!(third.verify(&old, &clock).is_ok());
}

#[test]
fn the_new_allow_list_and_issuer_bind_replaced_keys_too() {
    let clock = Clock::manual(NOW);
    let first = Verifier::new(&config(&[key("", None, "old")]), None, &clock);
    let mut stricter = config(&[key("", None, "new")]);
    stricter.issuer = "me".into();
    let second = Verifier::new(&stricter, Some(&first), &clock);
    let without = second.verify(&hs256(r#"{"sub":"ada"}"#, "old"), &clock);
    assert_eq!(without, Err(JwtError::Issuer));
    stricter.algorithms = vec![JwtAlgorithm::Hs512];
    let third = Verifier::new(&stricter, Some(&second), &clock);
    let weaker = third.verify(&hs256(r#"{"sub":"ada","iss":"me"}"#, "old"), &clock);
    assert_eq!(weaker, Err(JwtError::Algorithm));
    let header = br#"{"alg":"HS512"}"#;
    let stronger = token(
        header,
        br#"{"sub":"ada","iss":"me"}"#,
        JwtAlgorithm::Hs512,
        "old",
    );
    assert!(third.verify(&stronger, &clock).is_ok());
}

#[test]
fn debug_shows_no_key() {
    let clock = Clock::manual(NOW);
    let verifier = Verifier::new(&config(&[key("", None, "hunter2")]), None, &clock);
    assert_eq!(
        format!("{verifier:?}"),
        "Verifier { algorithms: [Hs256], keys: 1, retired: 0, .. }"
    );
}

fn arbitrary_json() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "\"alg\":\"HS256\"",
        "\"sub\":",
        "\"exp\":",
        "\\u",
        "\\ud800",
        "1e999",
        "-",
        "null",
        "\"ada\"",
        "\u{0}",
        "é",
        " ",
    ]);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

proptest! {
    #[test]
    fn no_text_panics(text in ".*", dotted in r"[A-Za-z0-9_-]{0,60}(\.[A-Za-z0-9_-]{0,60}){0,3}") {
        let clock = Clock::manual(NOW);
        let verifier = Verifier::new(&config(&[key("", None, "s")]), None, &clock);
        prop_assert!(verifier.verify(&text, &clock).is_err());
        prop_assert!(verifier.verify(&dotted, &clock).is_err());
    }

    #[test]
    fn no_authentic_bytes_panic_and_no_subject_is_empty_or_too_long(
        header in prop_oneof![Just(br#"{"alg":"HS256","typ":"JWT"}"#.to_vec()), arbitrary_json()],
        payload in arbitrary_json(),
    ) {
        let clock = Clock::manual(NOW);
        let verifier = Verifier::new(&config(&[key("", None, "s")]), None, &clock);
        let token = token(&header, &payload, JwtAlgorithm::Hs256, "s");
        if let Ok(claims) = verifier.verify(&token, &clock) {
            prop_assert!((1..=LONGEST_SUBJECT).contains(&claims.subject.len()));
        }
    }
}
