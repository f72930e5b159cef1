//! A new certificate is taken without a restart and without touching a connection; one that doesn't fit its key is not.

use crate::support;

use std::fs;
use std::path::Path;

use crate::support::plane::{Backend, Wire, get};
use crate::support::renewd::{Renewd, Settings, now};
use crate::support::tls::{Authority, Pair, connect, shown};
use renewd::io::tls::HTTP1;

const EXPIRY: &str = "renewd_certificate_expiry_timestamp_seconds";
const RELOADED: &str = "renewd_config_last_reload_successful";

/// Installs a file as a renewal does: the new one is written beside the old one, then moved over it.
fn install(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    fs::copy(from, &beside).unwrap();
    fs::rename(&beside, to).unwrap();
}

fn der(pair: &Pair) -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let certificate = CertificateDer::from_pem_file(&pair.certificate).unwrap();
    certificate.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_taken_and_half_of_one_is_not() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let (old, new) = (authority.issue("old", 30), authority.issue("new", 60));
    let files = tempfile::tempdir().unwrap();
    let used = Pair {
        certificate: files.path().join("tls.pem"),
        key: files.path().join("tls.key"),
    };
    install(&old.certificate, &used.certificate);
    install(&old.key, &used.key);
    let renewd = Renewd::start(&Settings {
        backend: Some(backend.address()),
        tables: format!(
            "[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
            used.certificate.display(),
            used.key.display()
        ),
        ..Settings::default()
    });
    let connector = authority.connector(&[HTTP1], None);
    let stream = connect(&connector, renewd.public).await.unwrap();
    assert_eq!(shown(&stream), der(&old));
    let mut kept = Wire::over(stream);
    kept.send(get("/")).await;
    let mut server = backend.accept_request().await;
    let today = f64::from(u32::try_from(now() / 86_400).unwrap());
    let days = |renewd: &Renewd| renewd.metric(EXPIRY) / 86_400.0 - today;
    assert!((29.9..=31.1).contains(&days(&renewd)), "{}", days(&renewd));

    // The certificate alone is new, and doesn't fit the key.
    install(&new.certificate, &used.certificate);
    renewd.eventually("the refusal", |renewd| renewd.metric(RELOADED) < 0.5);
    renewd.log().wait("why", |line| {
        let said = line["msg"].as_str()?;
        said.contains("doesn't belong to the certificate")
            .then_some(())
    });
    let connector = authority.connector(&[HTTP1], None);
    let stream = connect(&connector, renewd.public).await.unwrap();
    assert_eq!(shown(&stream), der(&old));
    assert!((29.9..=31.1).contains(&days(&renewd)));

    install(&new.key, &used.key);
    renewd.eventually("the reload", |renewd| renewd.metric(RELOADED) > 0.5);
    let stream = connect(&connector, renewd.public).await.unwrap();
    assert_eq!(shown(&stream), der(&new));
    assert!((59.9..=61.1).contains(&days(&renewd)), "{}", days(&renewd));

    // The connection that was open all the time goes on.
    server.finish(&mut kept, "first").await;
    kept.send(get("/again")).await;
    server.answer(&mut kept, "second").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_can_be_switched_on_for_a_listener_that_is_open() {
    let (backend, authority) = (Backend::start().await, Authority::new());
    let settings = Settings {
        backend: Some(backend.address()),
        ..Settings::default()
    };
    let renewd = Renewd::start(&settings);
    assert!(renewd.metric(EXPIRY).is_nan());
    let clear = tokio::net::TcpStream::connect(renewd.public).await.unwrap();
    let mut clear = Wire::new(clear);
    clear.send(get("/")).await;
    let mut server = backend.accept_request().await;

    let pair = authority.issue("a", 30);
    let config = fs::read_to_string(renewd.file("config.toml")).unwrap();
    let tls = format!(
        "\n[server.tls]\ncertificate_file = \"{}\"\nprivate_key_file = \"{}\"\n",
        pair.certificate.display(),
        pair.key.display()
    );
    support::renewd::private_file(&renewd.file("config.toml"), &(config + &tls));
    renewd.eventually("the reload", |renewd| !renewd.metric(EXPIRY).is_nan());
    let connector = authority.connector(&[HTTP1], None);
    connect(&connector, renewd.public).await.unwrap();
    server.finish(&mut clear, "a").await;
}
