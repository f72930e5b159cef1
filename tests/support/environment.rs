//! A system for tests of the configuration: these variables, credentials and files, and nothing else.
//!
//! Every secret in it contains "hunter2" or is one of the certificates, so that a leak can be searched for.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use renewd::config::environment::Environment;
use zeroize::Zeroizing;

/// An app certificate.
pub const CERTIFICATE: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e75e";
/// Another app certificate.
pub const OTHER_CERTIFICATE: &str = "0dd5ec4e70dd5ec4e70dd5ec4e70dd5e";
/// A JWT secret.
pub const SECRET: &str = "hunter2-hunter2-hunter2-hunter2";

/// A connection string as Node apps have them.
const MONGODB_URI: &str =
    "mongodb+srv://app:hunter2@cluster0.example.net/live?retryWrites=true&w=majority";

/// A self-signed certificate that outlives the project, its key, and a key without a certificate.
const TLS_CERTIFICATE: &str = include_str!("environment/tls_certificate.pem");
const TLS_KEY: &str = include_str!("environment/tls_key.pem");
const TLS_OTHER_KEY: &str = include_str!("environment/tls_other_key.pem");

/// Public keys of kinds that aren't taken: RSA for PSS alone, a curve without a name.
const RSA_PSS_KEY: &str = include_str!("environment/rsa_pss.pem");
const EXPLICIT_CURVE_KEY: &str = include_str!("environment/explicit_curve.pem");

/// See the module.
#[derive(Clone)]
pub struct FixedEnvironment {
    /// Variables.
    pub variables: BTreeMap<&'static str, String>,
    /// `$CREDENTIALS_DIRECTORY`.
    pub credentials_directory: Option<PathBuf>,
    /// Contents by path.
    pub files: BTreeMap<PathBuf, String>,
    /// The answer about every file.
    pub world_readable: Option<bool>,
}

impl Default for FixedEnvironment {
    fn default() -> Self {
        let files = [
            ("/credentials/agora_certificate", format!("{CERTIFICATE}\n")),
            ("/credentials/jwt_secret", format!("{SECRET}\r\n")),
            ("/credentials/agora_customer_secret", SECRET.to_owned()),
            ("/credentials/short", "hunter2".to_owned()),
            ("/credentials/mongodb_uri", MONGODB_URI.to_owned()),
            (
                "/credentials/other_certificate",
                OTHER_CERTIFICATE.to_owned(),
            ),
            ("/etc/renewd/admin-token", "hunter2-admin\n".to_owned()),
            ("/etc/renewd/empty", "\n".to_owned()),
            ("/etc/renewd/tls.pem", TLS_CERTIFICATE.to_owned()),
            ("/etc/renewd/tls.key", TLS_KEY.to_owned()),
            ("/etc/renewd/other.key", TLS_OTHER_KEY.to_owned()),
            ("/etc/renewd/pss.pem", RSA_PSS_KEY.to_owned()),
            ("/etc/renewd/explicit.pem", EXPLICIT_CURVE_KEY.to_owned()),
        ];
        let variables = [
            ("JWT_SECRET", SECRET),
            ("MONGODB_URI", MONGODB_URI),
            ("PORT", "8080"),
            ("NOT_A_PORT", "hunter2"),
        ];
        let owned = |(name, value): (_, &str)| (name, value.to_owned());
        Self {
            variables: variables.map(owned).into(),
            credentials_directory: Some("/credentials".into()),
            files: files.map(|(path, content)| (path.into(), content)).into(),
            world_readable: Some(false),
        }
    }
}

impl Environment for FixedEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn credentials_directory(&self) -> Option<PathBuf> {
        self.credentials_directory.clone()
    }

    fn read(&self, path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
        let content = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Zeroizing::new(content.clone().into_bytes()))
    }

    fn world_readable(&self, _path: &Path) -> Option<bool> {
        self.world_readable
    }

    fn world_writable(&self, _path: &Path) -> Option<bool> {
        Some(false)
    }

    fn is_directory(&self, _path: &Path) -> Option<bool> {
        None
    }

    fn is_mount_point(&self, _path: &Path) -> Option<bool> {
        Some(false)
    }

    fn cores(&self) -> usize {
        4
    }
}
