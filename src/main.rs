//! Arguments in, exit code out.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use renewd::daemon::systemd;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    renewd::io::tls::install_provider();
    // Before anything else opens descriptors: these come by number.
    match systemd::take_listeners() {
        Ok(inherited) => renewd::cli::main(inherited),
        Err(error) => {
            eprintln!("renewd: {error}");
            ExitCode::FAILURE
        }
    }
}
