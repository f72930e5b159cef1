//! What the benchmarks count with is right itself: a budget that fails now and then would hold nothing.

use std::process::Command;

/// A child that was forked holds a copy of the backend's connection while the backend closes its own.
const CLOSE_WHILE_A_CHILD_HOLDS_A_COPY: &str = r#"
import os, socket, stage, threading
threading.excepthook = lambda thread: os._exit(3)
backend = stage.Upstream()
raw = stage.request("GET", "/")
client = stage.Client(backend.port)
client.send(raw)
client.receive()
kept, ours = os.pipe()
if os.fork() == 0:
    os.close(ours)
    os.read(kept, 1)
    os._exit(0)
client.connection.shutdown(socket.SHUT_RDWR)
for _ in range(20):
    another = stage.Client(backend.port)
    another.connection.settimeout(20)
    another.send(raw)
    another.receive()
    another.close()
"#;

#[test]
fn the_backend_of_the_counts_outlives_a_connection_that_a_starting_process_holds() {
    let output = Command::new("python3")
        .args(["-c", CLOSE_WHILE_A_CHILD_HOLDS_A_COPY])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/benches"))
        .output()
        .expect("python3");
    assert!(
        output.status.success(),
        "{:?}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
