//! The authorities that verify servers' certificates when renewd is the client: those of the system.
//!
//! Keeps true: a server's certificate is always verified, its name included.
//! Must not know: which servers there are.

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsConnector, TlsStream};

use super::{HTTP1, provider};
use crate::io::transport::Transport;

/// Certificate authorities, read once, and TLS sessions to resume.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Reads the system's authorities: `SSL_CERT_FILE` and `SSL_CERT_DIR` where set, otherwise the distribution's.
    /// Blocks on files. Certificates that can't be read are logged and left out.
    pub(crate) fn of_the_system() -> Result<Self, rustls::Error> {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate authority of this system can't be read");
        }
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            tracing::error!(
                "this system has no certificate authorities, so that no https:// server can be verified: install \
                 ca-certificates, or set SSL_CERT_FILE"
            );
        }
        Self::of(roots)
    }

    /// Trusts these authorities and no others.
    pub fn of(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![HTTP1.to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// The same authorities, for servers that don't speak HTTP.
    pub(crate) fn without_protocol(&self) -> Self {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols.clear();
        Self(Arc::new(config))
    }

    /// Does the TLS handshake on `transport` with the server of this name or address.
    pub(crate) async fn connect(&self, host: &str, transport: Transport) -> io::Result<Transport> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        let stream = connector.connect(name, transport).await?;
        Ok(Transport::Tls(Box::new(TlsStream::Client(stream))))
    }
}
