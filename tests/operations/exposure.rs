//! A backend that listens on every address is reachable past renewd: warned, exported, and over once it is mended.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::prometheus::{Prometheus, agree};
use crate::support::node;
use crate::support::pages::INSTALL;
use crate::support::renewd::{Renewd, Settings};
use crate::support::test_name;
use rustix::process::Signal;

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
        .arg(test_name(module_path!(), test))
        .env("RENEWD_TEST_IN_NAMESPACE", "1")
        .status();
    assert!(status.expect("a shell").success());
}

/// The value of `renewd_upstream_exposed` for this backend.
fn exposed(renewd: &Renewd, backend: SocketAddr) -> f64 {
    renewd.metric(&format!(
        "renewd_upstream_exposed{{server=\"http://{backend}\"}}"
    ))
}

fn says(renewd: &Renewd, what: &str) -> usize {
    let lines = renewd.log().lines();
    let said = lines.iter().filter_map(|line| line["msg"].as_str());
    said.filter(|message| message.contains(what)).count()
}

/// A backend that listens on every address, and the one at which renewd asks it.
fn exposed_backend() -> (TcpListener, SocketAddr) {
    let everywhere = TcpListener::bind(("0.0.0.0", 0)).expect("a free port");
    let port = everywhere.local_addr().expect("an address").port();
    (everywhere, SocketAddr::from(([127, 0, 0, 1], port)))
}

#[test]
fn a_backend_on_every_address_is_reported_once_and_taken_back_when_mended() {
    const WARNING: &str = "clients can reach the backend without renewd";
    const MENDED: &str = "can no longer reach the backend without renewd";
    if !has_an_address() {
        again_in_a_namespace(
            "a_backend_on_every_address_is_reported_once_and_taken_back_when_mended",
        );
        return;
    }
    let (everywhere, backend) = exposed_backend();
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
    assert!(
        addresses.contains(&format!(":{}", backend.port())) && !addresses.contains("127.0.0.1")
    );

    // Another look finds nothing new.
    renewd.signal(Signal::HUP);
    renewd.eventually("a reload", |_| reloads() == 1);
    drop(everywhere);
    let _loopback = TcpListener::bind(backend).expect("the port just left");
    renewd.signal(Signal::HUP);
    renewd.eventually("relief", |renewd| says(renewd, MENDED) == 1);
    assert_eq!((exposed().as_str(), says(&renewd, WARNING)), ("0", 1));
}

#[test]
fn an_exposed_backend_is_alerted_and_shown_alike() {
    if !has_an_address() {
        again_in_a_namespace("an_exposed_backend_is_alerted_and_shown_alike");
        return;
    }
    let (everywhere, backend) = exposed_backend();
    let renewd = Renewd::start(&Settings {
        backend: Some(backend),
        ..Settings::default()
    });
    let prometheus = Prometheus::start(renewd.admin);
    agree(&prometheus, &renewd, &["RenewdUpstreamExposed"]);
    drop(everywhere);
    let _loopback = TcpListener::bind(backend).expect("the port just left");
    renewd.signal(Signal::HUP);
    agree(&prometheus, &renewd, &[]);
}

#[test]
fn a_backend_that_comes_after_renewd_is_looked_at_when_it_comes() {
    if !has_an_address() {
        again_in_a_namespace("a_backend_that_comes_after_renewd_is_looked_at_when_it_comes");
        return;
    }
    let backend = node::nobody();
    let renewd = Renewd::start(&Settings {
        backend: Some(backend),
        ..Settings::default()
    });
    assert_eq!(exposed(&renewd, backend).to_bits(), 0.0_f64.to_bits());
    let _everywhere = TcpListener::bind(("0.0.0.0", backend.port())).expect("the port just left");
    // The first request reaches the backend; no answer is needed.
    let mut client = TcpStream::connect(renewd.public).expect("renewd");
    let request = b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n";
    client.write_all(request).expect("renewd");
    renewd.eventually("the warning", |renewd| {
        says(renewd, "clients can reach the backend without renewd") == 1
    });
    assert_eq!(exposed(&renewd, backend).to_bits(), 1.0_f64.to_bits());
}

#[test]
fn an_exposure_that_is_acknowledged_is_neither_warned_of_nor_exported() {
    if !has_an_address() {
        again_in_a_namespace("an_exposure_that_is_acknowledged_is_neither_warned_of_nor_exported");
        return;
    }
    let (_everywhere, backend) = exposed_backend();
    let settings = |ok: bool| Settings {
        backend: Some(backend),
        upstream: format!("exposed_ok = {ok}"),
        ..Settings::default()
    };
    let renewd = Renewd::start(&settings(false));
    renewd.eventually("the warning", |renewd| exposed(renewd, backend) > 0.0);
    renewd.reconfigure(&settings(true));
    renewd.eventually("the acknowledgement", |renewd| {
        exposed(renewd, backend) < 1.0
    });
    assert_eq!(
        says(&renewd, "clients can reach the backend without renewd"),
        1
    );
}

/// The firewall rule of docs/install.md, for another port.
fn rule(port: u16) -> String {
    let rule = INSTALL.split("```").find(|block| {
        let block = block.trim_start();
        block.starts_with("table inet renewd_backend")
    });
    rule.expect("the rule").replace("3001", &port.to_string())
}

#[test]
fn the_documented_firewall_rule_closes_the_port_to_all_but_loopback() {
    const TEST: &str = "the_documented_firewall_rule_closes_the_port_to_all_but_loopback";
    const ADDRESS: [u8; 4] = [198, 51, 100, 1];
    // The namespace has a firewall of its own, whatever this machine has.
    if std::env::var_os("RENEWD_TEST_IN_NAMESPACE").is_none() {
        again_in_a_namespace(TEST);
        return;
    }
    let everywhere = TcpListener::bind(("::", 0)).expect("a free port");
    let port = everywhere.local_addr().expect("an address").port();
    let reached = |address: IpAddr| TcpStream::connect((address, port)).is_ok();
    assert!(reached(ADDRESS.into()));

    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft (Debian: nftables), which tests/run installs");
    let mut stdin = nft.stdin.take().expect("a pipe");
    stdin.write_all(rule(port).as_bytes()).expect("nft");
    drop(stdin);
    assert!(nft.wait().expect("a child").success(), "{}", rule(port));

    assert!(!reached(ADDRESS.into()));
    assert!(reached(Ipv4Addr::LOCALHOST.into()) && reached(Ipv6Addr::LOCALHOST.into()));
    let backend = SocketAddr::from(([127, 0, 0, 1], port));
    let renewd = Renewd::start(&Settings {
        backend: Some(backend),
        ..Settings::default()
    });
    renewd.reconfigure(&Settings {
        backend: Some(backend),
        token: "lifetime = \"30m\"".to_owned(),
        ..Settings::default()
    });
    assert_eq!(
        says(&renewd, "clients can reach the backend without renewd"),
        0
    );
    assert_eq!(exposed(&renewd, backend).to_bits(), 0.0_f64.to_bits());
}
