"""What renewd is compared with, and what plays the backend: configurations of nginx and haproxy, a WebSocket echo and
its client, WebSockets down which the backend sends all the time and their client, a backend that never answers,
connections and tunnels that only stay. As a program: `peers.py echo PORT`, `peers.py push PORT`, `peers.py hold PORT`,
`peers.py ask PORT SECONDS BYTES`, and `peers.py listen PORT SECONDS BYTES TOGETHER`.
"""

import contextlib
import re
import resource
import select
import socket
import ssl
import subprocess
import sys
import time

import stage

WEBSOCKETS = 64
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
# The accept value is the RFC's own for its own key; haproxy checks it.
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
# What chats send, over and over: JSON with an event's name, ids, times and text.
TEXT = b'42["chat:message",{"from":"65f000000000000000000001","at":1764451234567,"text":"Hello to you all \xc3\xa9"}],'


def listens(address, child):
    """Waits until somebody accepts on the port or unix socket; false if the child ended instead."""
    for _ in range(400):
        if child.poll() is not None:
            return False
        by_port = isinstance(address, int)
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET if by_port else socket.AF_UNIX) as probe:
            probe.connect(("127.0.0.1", address) if by_port else str(address))
            return True
        time.sleep(0.05)
    return False


def certificate(home):
    """A self-signed P-256 certificate and its key, as two files and as one."""
    chain, key, both = home / "certificate.pem", home / "key.pem", home / "both.pem"
    if not both.exists():
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
        subprocess.run(
            [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", chain],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        both.write_text(chain.read_text() + key.read_text())
    return chain, key, both


NGINX = """\
daemon off;
worker_processes 1;
pid {pid};
error_log stderr crit;
worker_rlimit_nofile {descriptors};
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  keepalive_timeout 75s;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  {rest}
}}
"""

# What a backend needs to know, and WebSockets to pass.
NGINX_LOCATION = """\
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection $upstream_connection;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Request-ID $request_id;
      add_header X-Request-ID $request_id always;
      proxy_read_timeout 60s;
"""


# Both halves of 4,096 connections at once, twice over.
DESCRIPTORS = 20_000
KEPT = 4096
# What lets nginx pass bodies on best: a whole body of 64 KiB in few buffers, and never a file between client and backend.
# `sendfile` is for files alone, and a proxy has none to send.
TUNED = (
    "proxy_buffering on; proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k; "
    "proxy_max_temp_file_size 0;"
)


def nginx(home, name, rest):
    return NGINX.format(pid=home / f"{name}.pid", home=home, rest=rest, descriptors=DESCRIPTORS)


def nginx_static(home, address):
    """The backend: files."""
    listen = f"127.0.0.1:{address}" if isinstance(address, int) else f"unix:{address}"
    name = "backend" if isinstance(address, int) else "backend-unix"
    server = f"server {{ listen {listen} backlog=4096; root {home}; }}"
    return nginx(home, name, f"sendfile on; tcp_nopush on; open_file_cache max=100; {server}")


def nginx_proxy(home, port, upstream, tuned=False, tls=None, h2c=False):
    """The contender; tuned for bodies."""
    # nginx 1.22 offers TLS 1.3 only where it is asked to.
    protocols = "ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:s:10m;"
    secure = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]}; {protocols}" if tls else ""
    server = f"127.0.0.1:{upstream}" if isinstance(upstream, int) else f"unix:{upstream}"
    rest = f"""
  map $http_upgrade $upstream_connection {{ default upgrade; '' ''; }}
  upstream backend {{ server {server}; keepalive {KEPT}; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096 {'ssl http2' if tls else 'http2' if h2c else ''};
    {secure}
    {TUNED if tuned else ''}
    location / {{
{NGINX_LOCATION}
    }}
  }}"""
    return nginx(home, f"proxy-{port}", rest)


HAPROXY = """\
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 60s
  timeout tunnel 1h
  timeout http-request 10s
  http-reuse always
"""


def haproxy_reader(port):
    """The backend for uploads: reads the whole body, then answers."""
    return (
        HAPROXY
        + f"""
frontend reader
  bind 127.0.0.1:{port}
  http-request wait-for-body time 5s
  http-request return status 200 content-type application/json string '{{"success":true}}'
"""
    )


def haproxy_proxy(port, upstream, tls=None, h2c=False):
    """The contender."""
    secure = f"ssl crt {tls[2]} alpn h2,http/1.1" if tls else "proto h2" if h2c else ""
    return (
        HAPROXY
        + f"""
frontend front
  bind 127.0.0.1:{port} {secure}
  unique-id-format %[uuid()]
  http-request set-header X-Request-ID %[unique-id]
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Proto {'https' if tls else 'http'}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-after-response set-header X-Request-ID %[unique-id]
  default_backend back
backend back
  server only 127.0.0.1:{upstream} pool-max-conn {KEPT}
"""
    )


def allow(count):
    """Lets this process have so many sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 200)), hard))


@contextlib.contextmanager
def staying(port, count, tls=False, answered=True):
    """Connections that had one request each and stay open; where they are not `answered`, they wait for their answer."""
    allow(2 * count)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    open_connections = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port))
            if tls:
                connection = context.wrap_socket(connection)
            open_connections.append(connection)
            connection.sendall(stage.request("GET", "/1k"))
            if not answered:
                continue
            stream = connection.makefile("rb")
            if b" 200 " not in stage.read_message(stream):
                stage.fail("a connection that was to stay was refused")
            stream.close()
        yield
    finally:
        for connection in open_connections:
            connection.close()


def read_wrk(output):
    """(requests, median, 99th percentile) as wrk printed them, times in seconds."""
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", output)
    if refused and "connect 0, read 0, write 0, timeout 0" not in refused[0]:
        print(f"    (the load saw: {refused[0]})")
    requests = int(re.search(r"(\d+) requests in", output)[1])
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    at = {share: float(value) * units[unit] for share, value, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)\b", output)}
    return requests, at.get("50"), at.get("99")


# === WebSocket ===


def text_frame(size, mask=b""):
    """A text of less than 64 KiB (RFC 6455 §5.2), masked with zeros as a client's, or not, as a server's."""
    text = (TEXT * (size // len(TEXT) + 1))[:size]
    masked = 0x80 if mask else 0
    head = bytes([0x81, masked | size]) if size < 126 else bytes([0x81, masked | 126]) + size.to_bytes(2, "big")
    return head + mask + text


def tunnel(port, path="/socket"):
    """A WebSocket."""
    fields = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"]
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(stage.request("GET", path, fields))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        # No further: messages may follow at once.
        received = connection.recv(1)
        head += received
        if not received or (head.endswith(b"\r\n\r\n") and b" 101 " not in head):
            stage.fail(f"no tunnel: {head!r}")
    return connection


@contextlib.contextmanager
def tunnels(port, count):
    """WebSockets that stay open, and over which nothing comes."""
    allow(count)
    open_tunnels = []
    try:
        for _ in range(count):
            open_tunnels.append(tunnel(port))
        yield
    finally:
        for connection in open_tunnels:
            connection.close()


def echo(port):
    """Agrees to every handshake, and answers each text by one as long."""
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    tunnels, agreed, answers = {}, {}, {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                tunnels[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            connection = tunnels[descriptor]
            try:
                received = connection.recv(65536)
                if descriptor not in agreed and received:
                    agreed[descriptor] = b""
                    connection.sendall(SWITCHING)
                elif received:
                    agreed[descriptor] += received
                    size = int.from_bytes(agreed[descriptor][2:4], "big")
                    # One text at a time: the client waits for its answer.
                    if len(agreed[descriptor]) >= 8 + size:
                        agreed[descriptor] = b""
                        connection.sendall(answers.setdefault(size, text_frame(size)))
            except OSError:
                received = b""
            if not received:
                poll.unregister(connection)
                agreed.pop(descriptor, None)
                tunnels.pop(descriptor).close()


def push(port):
    """Agrees to every handshake on `/socket?BYTESxTOGETHER`, and sends texts of so many bytes for as long as somebody takes
    them, so many of them in one write."""
    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    # Descriptor → the socket, what is sent over and over, and what of it wasn't taken yet.
    tunnels = {}
    while True:
        for descriptor, event in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                tunnels[connection.fileno()] = [connection, b"", b""]
                poll.register(connection, select.EPOLLIN)
                continue
            entry = tunnels[descriptor]
            connection = entry[0]
            try:
                if event & select.EPOLLIN:
                    received = connection.recv(65536)
                    asked = re.match(rb"GET /socket\?(\d+)x(\d+) ", received)
                    if asked:
                        entry[1] = text_frame(int(asked[1])) * int(asked[2])
                        connection.sendall(SWITCHING)
                        connection.setblocking(False)
                        poll.modify(connection, select.EPOLLIN | select.EPOLLOUT)
                        continue
                    if not received:
                        raise ConnectionResetError
                if event & select.EPOLLOUT:
                    entry[2] = entry[2] or entry[1]
                    entry[2] = entry[2][connection.send(entry[2]) :]
                if event & ~(select.EPOLLIN | select.EPOLLOUT):
                    raise ConnectionResetError
            except BlockingIOError:
                pass
            except OSError:
                poll.unregister(connection)
                tunnels.pop(descriptor)[0].close()


def listen(port, seconds, size, together):
    """Takes what comes down the tunnels; prints how many texts that was."""
    length = len(text_frame(size))
    poll = select.epoll()
    tunnels = {}
    for _ in range(WEBSOCKETS):
        connection = tunnel(port, f"/socket?{size}x{together}")
        tunnels[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
    came = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for descriptor, _ in poll.poll(1):
            received = len(tunnels[descriptor].recv(262144))
            if not received:
                stage.fail("a tunnel has ended")
            came += received
    print(came // length)


def hold(port):
    """Takes every request and answers none, until its client goes away."""
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    held = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                held[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            try:
                gone = not held[descriptor].recv(65536)
            except OSError:
                gone = True
            if gone:
                poll.unregister(descriptor)
                held.pop(descriptor).close()


def ask(port, seconds, size):
    """Sends a frame down each tunnel as soon as the one before has come back; prints count, median and 99th percentile."""
    question, answer = text_frame(size, mask=bytes(4)), len(text_frame(size))
    poll = select.epoll()
    tunnels, sent = {}, {}
    for _ in range(WEBSOCKETS):
        connection = tunnel(port)
        tunnels[connection.fileno()] = [connection, 0]
        poll.register(connection, select.EPOLLIN)
    took = []
    end = time.perf_counter() + seconds
    for descriptor, (connection, _) in tunnels.items():
        sent[descriptor] = time.perf_counter()
        connection.sendall(question)
    while (now := time.perf_counter()) < end:
        for descriptor, _ in poll.poll(1):
            entry = tunnels[descriptor]
            entry[1] += len(entry[0].recv(65536))
            if entry[1] >= answer:
                entry[1] = 0
                took.append(now - sent[descriptor])
                sent[descriptor] = now
                entry[0].sendall(question)
    took.sort()
    print(len(took), took[len(took) // 2], took[len(took) * 99 // 100])


if __name__ == "__main__":
    role, port, *numbers = sys.argv[1:]
    roles = {"echo": echo, "push": push, "hold": hold, "ask": ask, "listen": listen}
    roles[role](int(port), *map(int, numbers))
