//! TLS towards clients, with the certificate, the protocols and the authorities of client certificates, and towards
//! servers, with the authorities that verify them.
//!
//! Keeps true: all cryptography is aws-lc-rs'; a [`ServerIdentity`] is complete and usable, or there is none.
//! Must not know: files, sockets, when a certificate is replaced.

mod expiry;
mod trust;

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::config::model::ServerTls;

pub use trust::Trust;

/// The ALPN name of HTTP/2 (RFC 9113 §3.1).
pub const HTTP2: &[u8] = b"h2";
/// The ALPN name of HTTP/1.1 (RFC 7301 §6).
pub const HTTP1: &[u8] = b"http/1.1";

/// The certificate that clients see, its key, and the authorities of the certificates that clients need.
#[derive(Clone)]
pub struct ServerIdentity {
    config: Arc<ServerConfig>,
    expires: u64,
}

/// Why there is no [`ServerIdentity`]: each variant names the input that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The certificate chain.
    #[error("{0}")]
    Certificate(String),
    /// The private key.
    #[error("{0}")]
    Key(String),
    /// The authority of client certificates.
    #[error("{0}")]
    ClientCa(String),
}

/// Makes aws-lc-rs the default cryptography of this process. Later calls change nothing.
pub fn install_provider() {
    // An error means that a provider is installed already.
    let _ = aws_lc_rs::default_provider().install_default();
}

impl ServerIdentity {
    /// Reads PEM; the private key is PKCS #8, PKCS #1 or SEC 1.
    pub fn new(files: &ServerTls) -> Result<Self, IdentityError> {
        let chain = files.certificate.expose();
        let certificates = certificates(chain).map_err(IdentityError::Certificate)?;
        let expires = certificates
            .iter()
            .map(|certificate| expiry::not_after(certificate))
            .min()
            .flatten()
            .ok_or_else(|| {
                IdentityError::Certificate("the file holds no X.509 certificate".into())
            })?;
        let private =
            PrivateKeyDer::from_pem_slice(files.private_key.expose()).map_err(|error| {
                IdentityError::Key(format!("the file holds no private key: {error}"))
            })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| IdentityError::Key(error.to_string()))?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let roots = Arc::new(roots(authorities.expose())?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|error| IdentityError::ClientCa(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder
            .with_single_cert(certificates, private)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    IdentityError::Key("the private key doesn't belong to the certificate".into())
                }
                rustls::Error::InvalidCertificate(_) => {
                    IdentityError::Certificate(error.to_string())
                }
                _ => IdentityError::Key(error.to_string()),
            })?;
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        // Sessions are resumed by tickets that every worker can open, so that no session is stored.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer =
            aws_lc_rs::Ticketer::new().map_err(|error| IdentityError::Key(error.to_string()))?;
        Ok(Self {
            config: Arc::new(config),
            expires,
        })
    }

    /// The configuration that connections are accepted with.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// When the first certificate of the chain expires, in seconds since the Unix epoch.
    pub(crate) fn expires(&self) -> u64 {
        self.expires
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServerIdentity")
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// The process's provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not a PEM file: {error}"))?;
    if certificates.is_empty() {
        return Err("the file holds no certificate".to_owned());
    }
    Ok(certificates)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem).map_err(IdentityError::ClientCa)? {
        roots
            .add(certificate)
            .map_err(|error| IdentityError::ClientCa(error.to_string()))?;
    }
    Ok(roots)
}
