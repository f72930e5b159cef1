//! A backend that listens on every address is reachable past renewd: warned, exported, and over once it is mended.

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use rustix::process::Signal;
use support::renewd::{Renewd, Settings};

/// Whether this machine, or network namespace, has an IPv4 address beside loopback.
fn has_an_address() -> bool {
    let trie = std::fs::read_to_string("/proc/self/net/fib_trie").unwrap_or_default();
    let lines: Vec<&str> = trie.lines().map(str::trim).collect();
    lines.windows(2).any(|pair| {
        let leaf = pair[0].strip_prefix("|-- ");
        let address = leaf.and_then(|leaf| leaf.parse::<Ipv4Addr>().ok());
        pair[1] == "/32 host LOCAL" && address.is_some_and(|address| !address.is_loopback())
    })
}

/// Runs this test again where the one interface has an address that isn't a loopback one.
fn again_in_a_namespace(test: &str) {
    const SETUP: &str = "ip link set lo up && ip addr add 198.51.100.1/32 dev lo";
    let namespace = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
        command.arg(format!("{SETUP} && {then}"));
        command
    };
    if !namespace("true")
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: no address beside loopback, and no network namespace to make one in");
        return;
    }
    let binary = std::env::current_exe().expect("this test");
    let status = namespace("exec \"$0\" --exact \"$1\"")
        .arg(binary)
        .arg(test)
        .status();
    assert!(status.expect("a shell").success());
}

fn says(renewd: &Renewd, what: &str) -> usize {
    let lines = renewd.log().lines();
    let said = lines.iter().filter_map(|line| line["msg"].as_str());
    said.filter(|message| message.contains(what)).count()
}

#[test]
fn a_backend_on_every_address_is_reported_once_and_taken_back_when_mended() {
    const WARNING: &str = "clients go past renewd";
    const MENDED: &str = "no longer answers past renewd";
    if !has_an_address() {
        again_in_a_namespace(
            "a_backend_on_every_address_is_reported_once_and_taken_back_when_mended",
        );
        return;
    }
    let everywhere = TcpListener::bind(("0.0.0.0", 0)).expect("a free port");
    let port = everywhere.local_addr().expect("an address").port();
    let backend = SocketAddr::from(([127, 0, 0, 1], port));
    let renewd = Renewd::start(&Settings {
        backend: Some(backend),
        ..Settings::default()
    });
    let exposed = || {
        let page = renewd.metrics();
        let series = format!("renewd_upstream_exposed{{server=\"http://{backend}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&series));
        value.expect("the series").to_owned()
    };
    let reloads = || says(&renewd, "configuration reloaded");
    renewd.eventually("the warning", |renewd| says(renewd, WARNING) == 1);
    assert_eq!(exposed(), "1");
    let conditions = renewd.status()["conditions"].to_string();
    assert!(conditions.contains("RenewdUpstreamExposed"), "{conditions}");
    let lines = renewd.log().lines();
    let warning = lines
        .iter()
        .find(|line| line["level"] == "warn")
        .expect("a warning");
    let addresses = warning["addresses"].as_str().expect("addresses");
    assert!(addresses.contains(&format!(":{port}")) && !addresses.contains("127.0.0.1"));

    // Looked at again, nothing new.
    renewd.signal(Signal::HUP);
    renewd.eventually("a reload", |_| reloads() == 1);
    drop(everywhere);
    let _loopback = TcpListener::bind(backend).expect("the port just left");
    renewd.signal(Signal::HUP);
    renewd.eventually("relief", |renewd| says(renewd, MENDED) == 1);
    assert_eq!((exposed().as_str(), says(&renewd, WARNING)), ("0", 1));
}
