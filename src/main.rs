//! The program: runs the command line and exits with its status.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use renewd::daemon::systemd;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    renewd::io::tls::install_provider();
    // The inherited descriptors are known by number, so they are taken before any other is opened.
    match systemd::take_listeners() {
        Ok(inherited) => renewd::cli::main(inherited),
        Err(error) => {
            eprintln!("renewd: {error}");
            ExitCode::FAILURE
        }
    }
}
