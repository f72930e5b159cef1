"""Runs renewd under callgrind, and reads what it counted.

Keeps true: counts are those of the worker's thread, between two requests; `under_valgrind.c` sees to it. What the daemon does
on other threads, no request waits for.
"""

import collections
import pathlib
import re
import subprocess
import tempfile

import stage

# The caches of the processor that is played: a core's first level, and as the last one its second, since the third is
# everybody's. They stand here so that the counts don't depend on the machine. Their lines have LINE bytes.
LINE = 64
CACHES = ["--cache-sim=yes", f"--I1=32768,8,{LINE}", f"--D1=32768,8,{LINE}", f"--LL=2097152,16,{LINE}"]
ALLOCATOR = re.compile(r"^(mi_(heap_)?(m|c|z|re|rec|rez)alloc\w*|malloc|calloc|realloc|posix_memalign|aligned_alloc)$")
INSIDE = re.compile(r"^_?mi_")
CLOCK = re.compile(r"^clock_gettime(@@?GLIBC\S*)?$")
# Seconds in which the daemon starts. What counts instructions gets along with what a busy machine leaves it.
PATIENCE = 900
PRELOADED = "under_valgrind.so"


class Profile:
    """Costs by place. A place is a function's name and, where instructions were dumped, an address."""

    def __init__(self):
        self.events = ()
        # (function, address) → costs in the order of `events`
        self.own = collections.defaultdict(lambda: [0] * len(self.events))
        # (caller, address, callee) → [calls, instructions that the callee and what it calls took]
        self.calls = collections.defaultdict(lambda: [0, 0])
        # function → object file
        self.objects = {}

    def add(self, text):
        """One of callgrind's files (its manual, "Callgrind Format Specification"), positions not compressed."""
        names = {"fn": {}, "ob": {}}

        def name(kind, value):
            number, _, rest = value.partition(" ")
            if rest:
                names[kind][number] = rest.partition("'")[0] if kind == "fn" else rest
            return names[kind][number]

        function, thing, callee, count, width = None, None, None, None, 1
        for line in text.splitlines():
            key, found, value = line.partition("=")
            if line[:1].isdigit():
                numbers = line.split()
                address = numbers[0] if width == 2 else ""
                costs = [int(cost) for cost in numbers[width:]]
                if callee is None:
                    own = self.own[function, address]
                    for index, cost in enumerate(costs):
                        own[index] += cost
                else:
                    edge = self.calls[function, address, callee]
                    edge[0] += count
                    edge[1] += costs[0] if costs else 0
                    callee = None
            elif found and key == "fn":
                function = name("fn", value)
                self.objects[function] = thing
            elif found and key == "ob":
                thing = name("ob", value)
            elif found and key == "cob":
                name("ob", value)
            elif found and key == "cfn":
                callee = name("fn", value)
            elif found and key == "calls":
                count = int(value.split()[0])
            elif line.startswith("events: "):
                self.events = tuple(line.split()[1:])
            elif line.startswith("positions: "):
                width = len(line.split()) - 1

    def total(self, *events):
        """The sum of some events, what is preloaded left out."""
        wanted = [self.events.index(event) for event in events]
        return sum(
            costs[index]
            for (function, _), costs in self.own.items()
            if not str(self.objects.get(function)).endswith(PRELOADED)
            for index in wanted
        )

    def entries(self, pattern):
        """Each (caller, address, calls) of functions that match; the allocator's calls of its own are left out."""
        for (caller, address, callee), (calls, _) in self.calls.items():
            if pattern.match(callee) and not pattern.match(caller) and not INSIDE.match(caller):
                yield caller, address, calls

    def count(self, pattern):
        return sum(calls for _, _, calls in self.entries(pattern))


def run(binary, upstream, requests, caches=False, addresses=False, keep=None):
    """A profile of requests: `requests(port, counting)` sends them, and calls `counting(True)` and then `counting(False)`."""
    with tempfile.TemporaryDirectory(prefix="renewd-callgrind-") as directory:
        home = pathlib.Path(directory)
        source = pathlib.Path(__file__).with_name("under_valgrind.c")
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", home / PRELOADED, source], check=True)
        flag = home / "counting"
        flag.write_bytes(b"\0")
        prefix = [
            "valgrind",
            "--tool=callgrind",
            "--separate-threads=yes",
            f"--callgrind-out-file={home}/out",
            "--compress-pos=no",
            f"--dump-instr={'yes' if addresses else 'no'}",
            # Else threads that only wake each other make the order, and the count, a matter of luck.
            "--fair-sched=yes",
            *(CACHES if caches else []),
        ]
        environment = {"LD_PRELOAD": str(home / PRELOADED), "COUNTING": str(flag)}

        def counting(now):
            # In place: the daemon has mapped the file.
            with open(flag, "r+b", buffering=0) as file:
                file.write(b"\1" if now else b"\0")

        with stage.Renewd(binary, upstream.port, prefix, environment=environment, patience=PATIENCE) as renewd:
            requests(renewd.port, counting)
            # Everything is written, and the end doesn't count.
            renewd.child.kill()
            renewd.child.wait()
            log = renewd.log.read_text()
        written = [path for path in home.glob("out*") if path.stat().st_size]
        if len(written) != 1:
            stage.fail(f"callgrind wrote {len(written)} profiles of the worker:\n{log}")
        profile = Profile()
        profile.add(written[0].read_text())
        if keep:
            keep.write_bytes(written[0].read_bytes())
        return profile
