"""The servers that `compare` measures, running: each on its CPU, with what it has spent so far.

Keeps true: the proxies share one CPU, the load and the backends another; whatever was started is ended by `Bench.close`.
"""

import os
import pathlib
import resource
import signal
import subprocess
import tempfile

import peers
import stage

PROXY_CPU, LOAD_CPU = 0, 1
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# What a row's contender can have beside its program.
VARIANTS = ("tls", "h2c", "tuned", "socket", "unix", "key")


def pinned(cpu, *command):
    return ["taskset", "--cpu-list", str(cpu), *map(str, command)]


class Processes:
    """A server's process and its children, which nginx has."""

    def __init__(self, child):
        self.child = child

    def pids(self):
        pids = [self.child.pid]
        for pid in pids:
            for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                pids += map(int, path.read_text().split())
        return pids

    def spent(self):
        """Seconds of CPU time so far, and how many ticks of it the kernel saw in user space and in itself. The ticks divide
        the time; by themselves they are too coarse."""
        seconds, user, kernel = 0, 0, 0
        for pid in self.pids():
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            user += int(fields[11])
            kernel += int(fields[12])
        return seconds, user, kernel

    def rss(self):
        """Bytes."""
        pages = (int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self.pids())
        return sum(pages) * PAGE


def loads_spent():
    """Seconds of CPU time of all loads that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def busy(cpu):
    """Seconds for which the CPU has worked for anybody, or was taken away by the machine that this one runs on."""
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{cpu}":
            user, nice, system, _, _, interrupts, soft, steal = map(int, fields[:8])
            return (user + nice + system + interrupts + soft + steal) / TICK
    return stage.fail(f"no CPU {cpu}")


def machine():
    """The processor and the kernel, for who reads the figures."""
    models = [line for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    model = models[0].partition(": ")[2] if models else os.uname().machine
    memory = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GiB, Linux {os.uname().release}"


class Bench:
    """Everything that was started; ended by `close`."""

    def __init__(self, binaries):
        self.children = []
        self.renewds = []
        self.directory = tempfile.TemporaryDirectory(prefix="renewd-compare-")
        self.home = pathlib.Path(self.directory.name)
        # nginx's worker may run as somebody else.
        self.home.chmod(0o755)
        self.binaries = binaries

    def start(self, name, cpu, command, address, environment=()):
        log = open(self.home / f"{name}.log", "w")
        child = subprocess.Popen(
            pinned(cpu, *command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.home,
            env={**os.environ, **dict(environment)},
            start_new_session=True,
        )
        self.children.append(child)
        if not peers.listens(address, child):
            stage.fail(f"{name} does not start:\n{(self.home / f'{name}.log').read_text()}")
        return Processes(child)

    def file(self, name, text):
        path = self.home / name
        path.write_text(text)
        return path

    def nginx(self, name, cpu, text, address):
        path = self.file(f"{name}.conf", text)
        return self.start(name, cpu, ["nginx", "-p", self.home, "-c", path, "-e", self.home / f"{name}.log"], address)

    def haproxy(self, name, cpu, text, port):
        return self.start(name, cpu, ["haproxy", "-q", "-f", self.file(f"{name}.cfg", text)], port)

    def script(self, name, *arguments, address):
        """One of the servers of `peers.py`."""
        return self.start(name, LOAD_CPU, [stage.sys.executable, peers.__file__, *arguments], address)

    def node(self, name, cpu, script, address, **environment):
        path = pathlib.Path(__file__).with_name(script)
        return self.start(name, cpu, ["node", path], address, {"NODE_ENV": "production", **environment})

    def renewd(self, program, upstream, workers=1, tls=None, h2c=False, extra=""):
        renewd = stage.Renewd(self.binaries[program], upstream, pinned(PROXY_CPU), workers, tls, h2c, extra)
        self.renewds.append(renewd)
        return Processes(renewd.child), renewd.port

    def close(self):
        for renewd in self.renewds:
            renewd.close()
        for child in self.children:
            stage.end(child)
            # Whatever it left behind in its session.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.directory.cleanup()


class Field:
    """The servers that rows need: contender and backend → processes and port. Each is started when it is first asked for."""

    def __init__(self, bench):
        self.bench = bench
        self.running = {}
        self.backends = {}

    def backend(self, name):
        """(processes, address); the address is a port, or the path of a unix socket."""
        if name not in self.backends:
            bench, port = self.bench, stage.free_port()
            path = bench.home / f"{name.replace(' ', '-')}.sock"
            if name in ("static", "static unix"):
                for size, count in [("1k", 1024), ("64k", 65536), ("1m", 1048576)]:
                    (bench.home / size).write_bytes(b"x" * count)
                address = path if name.endswith("unix") else port
                text = peers.nginx_static(bench.home, address)
                processes = bench.nginx(name.replace(" ", "-"), LOAD_CPU, text, address)
            elif name in ("node", "node unix"):
                address = path if name.endswith("unix") else port
                processes = bench.node(name.replace(" ", "-"), LOAD_CPU, "backend.js", address, LISTEN=str(address))
            elif name == "reader":
                address, processes = port, bench.haproxy("reader", LOAD_CPU, peers.haproxy_reader(port), port)
            else:
                address, processes = port, bench.script(name, name, str(port), address=port)
            self.backends[name] = processes, address
        return self.backends[name]

    def contender(self, contender, backend):
        """(processes, port)"""
        if (contender, backend) not in self.running:
            self.running[contender, backend] = self._start(contender, backend)
        return self.running[contender, backend]

    def _start(self, contender, backend):
        program, _, variant = contender.partition(" ")
        if program == "backend":
            return self.backend(backend)
        bench, port = self.bench, stage.free_port()
        name = f"{program}-{variant or 'plain'}-{backend}".replace(" ", "-")
        if program == "express":
            # Its secret as a string, or as the `KeyObject` that its library would make of it for every token.
            environment = {"PORT": str(port), "JWT_SECRET": stage.JWT_SECRET, "KEY_OBJECT": "1" if variant == "key" else ""}
            return bench.node(name, PROXY_CPU, "express.js", port, **environment), port
        upstream = self.backend(self.backend_of(contender, backend))[1]
        tls = peers.certificate(bench.home) if variant == "tls" else None
        h2c = variant == "h2c"
        if program in bench.binaries:
            extra = '\n[[reissue.socket]]\npath = "/socket"\n' if variant == "socket" else ""
            address = upstream if isinstance(upstream, int) else f"unix:{upstream}"
            return bench.renewd(program, address, tls=tls, h2c=h2c, extra=extra)
        if program == "nginx":
            text = peers.nginx_proxy(bench.home, port, upstream, tuned=variant == "tuned", tls=tls, h2c=h2c)
            return bench.nginx(name, PROXY_CPU, text, port), port
        return bench.haproxy(name, PROXY_CPU, peers.haproxy_proxy(port, upstream, tls=tls, h2c=h2c), port), port

    @staticmethod
    def backend_of(contender, backend):
        return f"{backend} unix" if contender.endswith(" unix") else backend
