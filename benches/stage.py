"""What the scripts beside this file share: the release build, a configuration, renewd as a child, a raw client.

Keeps true: whatever a script starts is ended when the script ends, however that happens.
"""

import base64
import hashlib
import hmac
import json
import os
import pathlib
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
servers = ["http://127.0.0.1:{upstream}"]

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


def release_binary():
    """Builds renewd as it ships and returns the binary's path."""
    command = ["cargo", "build", "--release", "--locked", "--message-format=json-render-diagnostics", "--bin=renewd"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            return message["executable"]
    fail("cargo built no binary")


def bearer(subject):
    """A login token that does not expire while a script runs."""
    encode = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")
    header = encode(b'{"alg":"HS256","typ":"JWT"}')
    payload = encode(json.dumps({"sub": subject, "exp": int(time.time()) + 86400}).encode())
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
    """The daemon on free ports, started by `prefix` (taskset, valgrind, …)."""

    def __init__(
        self, binary, upstream_port, prefix=(), workers=1, tls=None, h2c=False, extra="", limits=LIMITS, streams=STREAMS
    ):
        self.directory = tempfile.TemporaryDirectory(prefix="renewd-bench-")
        home = pathlib.Path(self.directory.name)
        text = CONFIGURATION.format(
            workers=workers, upstream=upstream_port, secret=JWT_SECRET, h2c=str(h2c).lower(), limits=limits
        )
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
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.port, self.admin = self._ports()

    def _ports(self):
        deadline = time.monotonic() + 60
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


def call(port, requests, reconnect=False):
    """Sends requests one after the other and wants 200 for each."""
    connection = None
    for raw in requests:
        if connection is None:
            connection = socket.create_connection(("127.0.0.1", port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = connection.makefile("rb")
        connection.sendall(raw)
        status = read_message(stream)
        if b" 200 " not in status:
            fail(f"expected 200, got {status!r}")
        if reconnect:
            stream.close()
            connection.close()
            connection = None
    if connection is not None:
        stream.close()
        connection.close()


class Upstream:
    """A backend in a thread that answers every request with the same kilobyte."""

    ANSWER = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nDate: Mon, 23 Nov 2026 10:00:00 GMT\r\n"
        b'ETag: W/"400-abcdefghijklmnopqrstuvwxyz0"\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n'
        b"Content-Length: 1024\r\n\r\n" + b"x" * 1024
    )

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        stream = connection.makefile("rb")
        try:
            while read_message(stream):
                connection.sendall(self.ANSWER)
        except OSError:
            pass
        connection.close()
