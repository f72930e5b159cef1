//! Certificates made by openssl for one test, and TLS clients that see renewd's side.

#![allow(dead_code)] // each test file uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // what fails here fails a test

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use renewd::config::model::ServerTls;
use renewd::config::secret::Secret;
use renewd::io::tls;
use renewd::io::tls::ServerIdentity;
use renewd::io::transport::Transport;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The name in every server certificate.
pub const NAME: &str = "live.example";

/// A certificate authority in a directory of its own.
pub struct Authority {
    directory: tempfile::TempDir,
}

/// A certificate and its key, as PEM files.
#[derive(Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    pub fn identity(&self, client_ca: Option<&Path>) -> ServerIdentity {
        let read = |path: &Path| Secret::new(std::fs::read(path).unwrap());
        ServerIdentity::new(&ServerTls {
            certificate: read(&self.certificate),
            private_key: read(&self.key),
            client_ca: client_ca.map(read),
        })
        .unwrap()
    }
}

impl Authority {
    pub fn new() -> Self {
        let authority = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        authority.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 \
             -subj /CN=authority -addext keyUsage=critical,keyCertSign",
        );
        authority
    }

    /// Its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for [`NAME`] and 127.0.0.1, good for so many days.
    pub fn issue(&self, file: &str, days: u32) -> Pair {
        std::fs::write(
            self.directory.path().join("extensions"),
            format!("subjectAltName=DNS:{NAME},IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n"),
        )
        .unwrap();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout {file}.key -out {file}.csr -subj /CN={file}"
        ));
        self.openssl(&format!(
            "x509 -req -in {file}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile extensions -out {file}.pem"
        ));
        let path = |suffix: &str| self.directory.path().join(format!("{file}.{suffix}"));
        Pair {
            certificate: path("pem"),
            key: path("key"),
        }
    }

    /// A client that trusts this authority, offers these protocols, and shows a certificate if it has one.
    pub fn connector(&self, protocols: &[&[u8]], own: Option<&Pair>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(self.certificate()).unwrap();
        roots.add(certificate).unwrap();
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_file_iter(&pair.certificate).unwrap();
                let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_file(&pair.key).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments}: {said}");
    }
}

/// Shakes hands with the server at this address.
pub async fn connect(connector: &TlsConnector, address: SocketAddr) -> std::io::Result<Transport> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(NAME).unwrap();
    let stream = connector.connect(name, Transport::Tcp(stream)).await?;
    Ok(Transport::Tls(Box::new(stream.into())))
}

/// The server's choice from the offered protocols.
pub fn chosen(transport: &Transport) -> Option<Vec<u8>> {
    let Transport::Tls(stream) = transport else {
        panic!("not TLS");
    };
    stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec)
}

/// The server's own certificate.
pub fn shown(transport: &Transport) -> Vec<u8> {
    let Transport::Tls(stream) = transport else {
        panic!("not TLS");
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].to_vec()
}
