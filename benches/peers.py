"""What renewd is compared with, and what plays the backend: configurations of nginx and haproxy, a WebSocket echo and
its client, a backend that never answers, connections that only stay. As a program: `peers.py echo PORT`,
`peers.py hold PORT`, and `peers.py ask PORT SECONDS BYTES`.
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


@contextlib.contextmanager
def staying(port, count, tls=False, answered=True):
    """Connections that had one request each and stay open; where they are not `answered`, they wait for their answer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count + 200)), hard))
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
    """A text of 126 bytes to 64 KiB (RFC 6455 §5.2), masked with zeros as a client's, or not, as a server's."""
    text = (TEXT * (size // len(TEXT) + 1))[:size]
    return bytes([0x81, (0x80 if mask else 0) | 126]) + size.to_bytes(2, "big") + mask + text


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
                held.pop(descriptor).close()


def ask(port, seconds, size):
    """Sends a frame down each tunnel as soon as the one before has come back; prints count, median and 99th percentile."""
    fields = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
    ]
    question, answer = text_frame(size, mask=bytes(4)), len(text_frame(size))
    poll = select.epoll()
    tunnels, sent = {}, {}
    for _ in range(WEBSOCKETS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(stage.request("GET", "/socket", fields))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = connection.recv(4096)
            if not received:
                stage.fail(f"no tunnel: {head!r}")
            head += received
        if b" 101 " not in head:
            stage.fail(f"no tunnel: {head!r}")
        tunnels[connection.fileno()] = [connection, 0]
        poll.register(connection, select.EPOLLIN)
    took = []
    end = time.perf_counter() + seconds
    for descriptor, (connection, _) in tunnels.items():
        sent[descriptor] = time.perf_counter()
        connection.sendall(question)
    while (now := time.perf_counter()) < end:
        for descriptor, _ in poll.poll(1):
            tunnel = tunnels[descriptor]
            tunnel[1] += len(tunnel[0].recv(65536))
            if tunnel[1] >= answer:
                tunnel[1] = 0
                took.append(now - sent[descriptor])
                sent[descriptor] = now
                tunnel[0].sendall(question)
    took.sort()
    print(len(took), took[len(took) // 2], took[len(took) * 99 // 100])


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo(int(sys.argv[2]))
    elif sys.argv[1] == "hold":
        hold(int(sys.argv[2]))
    else:
        ask(int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
