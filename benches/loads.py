"""What asks the proxies: each load runs on its CPU for some seconds, and says how many requests were answered and how fast.

A load is called with the bench, the port and the seconds, and gives (requests, median, 99th percentile), times in seconds
or None.
"""

import re
import subprocess

import peers
import running
import stage

# For loads at a rate: as many clients as a rate is shared by.
PACED = 32
POST_LUA = """\
wrk.method = "POST"
wrk.body = {body}
wrk.headers["Content-Type"] = "application/json"
"""


def run(command):
    pinned = running.pinned(running.LOAD_CPU, *command)
    done = subprocess.run(pinned, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        stage.fail(f"{command[0]} failed:\n{done.stdout}")
    return done.stdout


def wrk(path, connections=64, body=None, fields=(), scheme="http"):
    """`body` is Lua, and makes it a POST."""

    def load(bench, port, seconds):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", "--latency"]
        for field in fields:
            command += ["-H", field]
        if body:
            command += ["-s", bench.file("wrk.lua", POST_LUA.format(body=body))]
        return peers.read_wrk(run([*command, f"{scheme}://127.0.0.1:{port}{path}"]))

    return load


def token(bench, port, seconds):
    """A token request, for renewd's configuration and for the account of `express.js`."""
    login = stage.bearer("owner", astrologerId="65f000000000000000000001", sessionId="benchmark")
    body = f"[[{stage.TOKEN_REQUEST.decode()}]]"
    return wrk("/api/live/agora-token", body=body, fields=[f"Authorization: Bearer {login}"])(bench, port, seconds)


def websocket(size):
    def load(bench, port, seconds):
        count, median, slow = run([stage.sys.executable, peers.__file__, "ask", port, seconds, size]).split()
        return int(count), float(median), float(slow)

    return load


def pushed(size, together=1):
    """Texts from the backend, so many of them in one write."""

    def load(bench, port, seconds):
        arguments = ["listen", port, seconds, size, together]
        return int(run([stage.sys.executable, peers.__file__, *arguments])), None, None

    return load


def h2load(scheme):
    def load(bench, port, seconds):
        output = run(["h2load", "-t1", "-c16", "-m8", f"--duration={seconds}", f"{scheme}://127.0.0.1:{port}/1k"])
        return int(re.search(r"(\d+) succeeded", output)[1]), None, None

    return load


def paced(rate):
    """GETs of 1 KiB at so many a second, whatever the answers take."""

    def load(bench, port, seconds):
        log = bench.home / "paced.log"
        log.unlink(missing_ok=True)
        command = ["h2load", "--h1", "-t1", f"-c{PACED}", f"--rps={rate / PACED:.1f}", f"--duration={seconds}"]
        run([*command, f"--log-file={log}", f"http://127.0.0.1:{port}/1k"])
        rows = [line.split("\t") for line in log.read_text().splitlines()]
        took = sorted(int(row[2]) / 1e6 for row in rows if row[1] == "200")
        if len(took) < len(rows) or not took:
            stage.fail(f"{len(took)} of {len(rows)} paced requests were answered by 200")
        return len(took), took[len(took) // 2], took[len(took) * 99 // 100]

    return load


def handshakes(bench, port, seconds):
    """Full handshakes, one request each."""
    output = run(["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-www", "/1k", "-time", seconds, "-tls1_3"])
    # Its own CPU second, then the one of the clock.
    connections = re.findall(r"(\d+) connections in", output)
    return int(connections[0]), None, None
