//! Running out of file descriptors. Alone in its file, for the limit is the whole process's.

use crate::support::plane::{Backend, Proxy, Setup, get};
use renewd::server::Event;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[tokio::test]
async fn without_descriptors_accepting_pauses_and_goes_on_when_there_are_some() {
    let backend = Backend::start().await;
    let proxy = Proxy::start(backend.address(), Setup::default());
    let before = getrlimit(Resource::Nofile);
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let tight = Rlimit {
        // Room for this side of some connections, and not for all of the other side.
        current: Some(u64::try_from(used).unwrap() + 8),
        maximum: before.maximum,
    };
    setrlimit(Resource::Nofile, tight).unwrap();
    let mut clients = Vec::new();
    while let Ok(client) = std::net::TcpStream::connect(proxy.tcp()) {
        clients.push(client);
    }
    proxy
        .log
        .wait("accept failing", |log| log.count(Event::AcceptFailed) > 0)
        .await;
    setrlimit(Resource::Nofile, before).unwrap();
    proxy
        .log
        .wait("everybody being let in", |log| {
            log.count(Event::Opened) == clients.len()
        })
        .await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let _server = backend.answer(&mut client, "a").await;
}
