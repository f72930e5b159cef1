//! `renewd demo`: sidecar, backend and a live stream on one machine, with throw-away secrets, until Ctrl-C.
//!
//! Keeps true: nothing is left behind, and no other user can read the files.
//! Must not know: how the daemon serves.

mod backend;
mod script;

use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::ExitCode;

use self::script::{CHANNEL, DemoSecrets};
use crate::daemon::{self, BoundAddresses, Options};
use crate::terms::clock::{Clock, Entropy};

/// `renewd demo` takes none.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArguments {}

/// Serves until Ctrl-C.
pub(crate) fn run(_arguments: &DemoArguments) -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("renewd demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let secrets = DemoSecrets {
        app_id: hexadecimal()?,
        certificate: hexadecimal()?,
        jwt: hexadecimal()?,
        admin: hexadecimal()?,
    };
    let directory = Directory::new()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("demo-backend")
        .enable_all()
        .build()?;
    let backend = runtime.block_on(backend::start(CHANNEL.to_owned()))?;
    let path = directory.0.as_path();
    let now = Clock::system().unix_seconds();
    for (file, content) in script::files(&secrets, backend, path, now) {
        private_file(&path.join(file), &content)?;
    }
    let options = Options {
        config: path.join(script::CONFIGURATION),
        fallback: false,
        state_directory: None,
        inherited: daemon::systemd::PassedSockets::new(),
    };
    let announce = |bound: &BoundAddresses| {
        if let (Some(public), Some(admin)) = (bound.public.first(), bound.admin) {
            let text = script::announcement(&script::DemoProgram {
                public: *public,
                admin,
                backend,
                directory: path,
                admin_token: &secrets.admin,
                bold: stdout().is_terminal(),
            });
            // The demo serves even if its output is closed.
            let _ = stdout().write_all(text.as_bytes());
        }
    };
    daemon::run(options, announce)?;
    Ok(())
}

fn hexadecimal() -> Result<String, crate::terms::clock::EntropyError> {
    Ok(format!(
        "{:016x}{:016x}",
        Entropy::System.u64()?,
        Entropy::System.u64()?
    ))
}

/// A directory that is removed when the demo ends.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new() -> Result<Self, Box<dyn std::error::Error>> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path =
            std::env::temp_dir().join(format!("renewd-demo-{:08x}", Entropy::System.u64()? >> 32));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A directory that stays does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a file that only its owner can read, because the configuration holds secrets.
fn private_file(path: &std::path::Path, content: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?
        .write_all(content.as_bytes())
}
