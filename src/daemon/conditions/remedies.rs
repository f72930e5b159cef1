//! The line that puts a condition right, where one line does: of the configuration, or of the shell.
//!
//! Must not know: whether the condition holds.

use std::net::IpAddr;
use std::path::Path;

/// The line for an alert; `None` where it depends on the cause, which the runbook tells apart. `file` is the
/// configuration file, `proxy` a private peer whose forwarded headers were dropped.
pub(crate) fn remedy(alert: &str, file: &Path, proxy: Option<IpAddr>) -> Option<String> {
    let line = match alert {
        // Until the cause is found, the backend answers as it did before.
        "RenewdLoginsRefused" => "[decision] mode = \"off\"",
        "RenewdNotEnforcing" => "[decision] mode = \"enforce\", enforce_percent = 100",
        "RenewdRestartRequired" => "systemctl restart renewd",
        "RenewdUpstreamExposed" => {
            "[upstream] exposed_ok = true (only if a firewall closes the port)"
        }
        "RenewdWildcardTokensIssued" => {
            "[token] zero_uid = \"reject\" (as soon as every client sends its uid)"
        }
        "RenewdReloadFailed" | "RenewdFallbackConfiguration" => {
            return Some(format!("renewd check --config {}", file.display()));
        }
        "RenewdForwardedHeadersDropped" => {
            return proxy.map(|proxy| format!("[server] trusted_proxies = [\"{proxy}\"]"));
        }
        _ => return None,
    };
    Some(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_the_file_and_the_peer() {
        let file = Path::new("/etc/renewd/config.toml");
        let peer = Some(IpAddr::from([10, 0, 0, 5]));
        assert_eq!(
            remedy("RenewdReloadFailed", file, None).unwrap(),
            "renewd check --config /etc/renewd/config.toml"
        );
        assert_eq!(
            remedy("RenewdForwardedHeadersDropped", file, peer).unwrap(),
            "[server] trusted_proxies = [\"10.0.0.5\"]"
        );
        assert_eq!(remedy("RenewdForwardedHeadersDropped", file, None), None);
        assert_eq!(remedy("RenewdSourceDown", file, peer), None);
    }
}
