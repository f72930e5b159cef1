"""What the scripts beside this file share: the release build, a configuration, renewd as a child, a raw client.

Keeps true: whatever a script starts is ended when the script ends, however that happens.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
JWT_SECRET = "a-secret-for-benchmarks-of-enough-bytes"
CHANNEL = "live_show"
# What the installed apps ask for; the subject is in the bearer token.
TOKEN_REQUEST = b'{"channelName":"live_show","uid":0}'

CONFIGURATION = """\
[server]
listen = ["127.0.0.1:0"]
workers = {workers}
max_connections = 20000
h2c = {h2c}

[admin]
listen = "127.0.0.1:0"

[upstream]
servers = ["{upstream}"]

[agora]
app_id = "970ca35de60c44645bbae8a215061b33"
app_certificate = "5cfd2fd1755d40ecb72977518be15d3b"

[token]
zero_uid = "allow"

[auth.jwt]
secret = "{secret}"

[streams]
file = "streams.toml"

[state]
directory = "state"

{limits}
[log]
format = "json"
access = false
audit = "off"
"""

LIMITS = """\
# Every limit is on and none is reached.
[rate_limit]
subject = { requests = 1_000_000, per = "1s", burst = 1_000_000 }
address = { requests = 1_000_000, per = "1s", burst = 1_000_000 }
channel = { requests = 1_000_000, per = "1s", burst = 1_000_000 }
global = { requests = 1_000_000, per = "1s", burst = 1_000_000 }
"""

STREAMS = f"""\
[[stream]]
channel = "{CHANNEL}"
owner = "owner"
live = true
"""


def fail(message):
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {message}")


def need(*programs):
    """Says which of the programs are missing, and ends."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        fail(f"please install: {' '.join(missing)}")


def release_binary(lines=False):
    """Builds renewd as it ships and returns the binary's path; with `lines` it also knows the lines of its source, which
    changes none of its instructions."""
    command = ["cargo", "build", "--release", "--locked", "--message-format=json-render-diagnostics", "--bin=renewd"]
    for setting in ('debug="line-tables-only"', 'strip="none"') if lines else ():
        command += ["--config", f"profile.release.package.renewd.{setting}"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            return message["executable"]
    fail("cargo built no binary")


def bearer(subject, **claims):
    """A login token that does not expire while a script runs."""
    encode = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")
    header = encode(b'{"alg":"HS256","typ":"JWT"}')
    payload = encode(json.dumps({"sub": subject, "exp": int(time.time()) + 86400, **claims}).encode())
    signed = header + b"." + payload
    mac = hmac.new(JWT_SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + encode(mac)).decode()


def free_port():
    """A port for a server that can't tell which one it got."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def end(child):
    """SIGTERM, then SIGKILL."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class Renewd:
    """The daemon on free ports, started by `prefix` (taskset, valgrind, …); `upstream` is a port of this machine, or what
    `upstream.servers` takes. `environment` is added to the script's own, and it may take `patience`
    seconds to start."""

    def __init__(
        self,
        binary,
        upstream,
        prefix=(),
        workers=1,
        tls=None,
        h2c=False,
        extra="",
        limits=LIMITS,
        streams=STREAMS,
        environment=(),
        patience=60,
    ):
        self.directory = tempfile.TemporaryDirectory(prefix="renewd-bench-")
        home = pathlib.Path(self.directory.name)
        address = f"http://127.0.0.1:{upstream}" if isinstance(upstream, int) else upstream
        text = CONFIGURATION.format(workers=workers, upstream=address, secret=JWT_SECRET, h2c=str(h2c).lower(), limits=limits)
        text += extra
        if tls:
            text += f'\n[server.tls]\ncertificate_file = "{tls[0]}"\nprivate_key_file = "{tls[1]}"\n'
        for name, content in [("config.toml", text), ("streams.toml", streams)]:
            with open(os.open(home / name, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                file.write(content)
        # A file, so that nobody has to read a pipe while it runs.
        self.log = home / "log"
        command = [*prefix, binary, "run", "--config", str(home / "config.toml")]
        with open(self.log, "w") as log:
            self.child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **dict(environment)}
            )
        self.port, self.admin = self._ports(patience)

    def _ports(self, patience):
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and self.child.poll() is None:
            found = {}
            for line in self.log.read_text().splitlines():
                if line.startswith("{"):
                    entry = json.loads(line)
                    found[entry.get("msg")] = entry
            if "ready" in found:
                return [int(found[line]["address"].rsplit(":", 1)[1]) for line in ("listening", "admin listening")]
            time.sleep(0.05)
        log = self.log.read_text()
        self.close()
        fail(f"renewd does not start:\n{log}")

    def close(self):
        end(self.child)
        self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def request(method, path, fields=(), body=b""):
    """A request's bytes, with the fields that a browser or an app sends."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: live.example.com",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate, br",
        "Accept-Language: en-US,en;q=0.5",
        *fields,
    ]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_message(stream):
    """Reads a head and as much body as its Content-Length says; the status line, or b'' at the end of the stream."""
    start = stream.readline()
    length = 0
    while True:
        line = stream.readline()
        if line in (b"", b"\r\n"):
            break
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    stream.read(length)
    return start


class Client:
    """A connection that sends a request's bytes and wants 200 for each."""

    def __init__(self, port):
        self.connection = socket.create_connection(("127.0.0.1", port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.connection.makefile("rb")

    def send(self, raw):
        self.connection.sendall(raw)

    def receive(self):
        status = read_message(self.stream)
        if b" 200 " not in status:
            fail(f"expected 200, got {status!r}")

    def close(self):
        self.stream.close()
        self.connection.close()


def call(port, raw, before, times, counting, reconnect=False, clients=1):
    """Sends a request `before` times and then `times` times over each of the connections, every one of which waits for its
    answer before all send the next; with `reconnect` each request has a connection of its own. `counting` is told when
    those that count begin and when they have ended; one more comes after them."""
    connections = []

    def ask(count):
        while len(connections) < count:
            connections.append(Client(port))
        for client in connections[:count]:
            client.send(raw)
        for client in connections[:count]:
            client.receive()
        while reconnect and connections:
            connections.pop().close()

    for _ in range(before):
        ask(clients)
    counting(True)
    for _ in range(times):
        ask(clients)
    counting(False)
    ask(1)
    for client in connections:
        client.close()


class Upstream:
    """A backend in a thread that answers every request with the same kilobyte."""

    ANSWER = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\n"
        b'ETag: W/"400-abcdefghijklmnopqrstuvwxyz0"\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n'
        b"Content-Length: 1024\r\n\r\n" + b"x" * 1024
    )

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        poll = select.epoll()
        poll.register(self.listener, select.EPOLLIN)
        connections = {}
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self.listener.fileno():
                    connection, _ = self.listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    connections[connection.fileno()] = [connection, b""]
                    poll.register(connection, select.EPOLLIN)
                elif not self._answer(connections[descriptor]):
                    # A process that is being started holds a copy until it runs its own program: closing alone would
                    # leave the connection in the poll, and the next event would be of a descriptor that is nobody's.
                    poll.unregister(descriptor)
                    connections.pop(descriptor)[0].close()

    def _answer(self, entry):
        """Answers what has come whole; false at the connection's end."""
        connection = entry[0]
        try:
            received = connection.recv(65536)
            entry[1] += received
            while (end := entry[1].find(b"\r\n\r\n") + 4) > 3:
                length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", entry[1][:end])
                end += int(length[1]) if length else 0
                if len(entry[1]) < end:
                    break
                entry[1] = entry[1][end:]
                connection.sendall(self.ANSWER)
        except OSError:
            return False
        return bool(received)
