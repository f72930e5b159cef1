"""Which phase of a request spends what, from callgrind's profile with addresses and the binary's lines.

An instruction belongs to the phase that the innermost function of ours is in, among those that were inlined into one
another there. What belongs to none (the allocator, copying, the runtime, containers) belongs to the phases of its callers,
in proportion to what they let it spend. The table is complete: its rows add up to the whole request.
"""

import collections
import re
import subprocess

import callgrind

OTHER = "between: futures, the exchange's state, the worker's loop and timers"
# The first rule that fits a function decides: phase, pattern of its file, pattern of its name.
RULES = [
    (phase, re.compile(file), re.compile(name))
    for phase, file, name in [
        ("account", r"src/(telemetry/|server/service/tally)", ""),
        ("accept, open, close", r"src/server/(listen|permits|seats|open|linger|proxy_header|h1/connection)\.rs", ""),
        ("parse the request", r"src/http1/parse_request\.rs", ""),
        ("parse the request", r"src/server/h1/socket\.rs", r"poll_(head|fill|frame|end)|look_ahead|begin|standing"),
        ("parse the request", r"src/exchange/request_body\.rs", ""),
        ("parse the response", r"src/http1/parse_response\.rs", ""),
        ("parse the response", r"src/forward/connection\.rs", r"poll_head|poll_frame|poll_fill|recycled|reusable|poll_over"),
        ("rewrite fields", r"src/(http/(hop|forwarded|http2)|exchange/raw_fields|server/service/(answer|date))\.rs", ""),
        ("write the request", r"src/http1/write_request\.rs", ""),
        ("write the request", r"src/forward/connection\.rs", r"poll_send|poll_gather|poll_write|poll_upload|begin|sent"),
        ("write the response", r"src/http1/write_response\.rs|src/server/h1/body_writer\.rs|src/exchange/pace\.rs", ""),
        ("write the response", r"src/server/h1/socket\.rs", r"write_head|queue|poll_flush|poll_write|has_room|send_interim"),
        ("write the response", r"src/server/h1/requests\.rs", r"respond"),
        ("choose a server, pool", r"src/forward/", ""),
        ("decide on a token", r"src/(decision|sessions|limit|logins|agora|revocation|sources|pki)/", ""),
        # What phases share belongs to the caller: buffers, framing, the lines of fields, deadlines, the clock.
        (None, r"src/(http1/|http/request_fields|io/|terms/|server/stall)", ""),
        ("route", r"src/(http/|server/service/|reissue/|snapshot/)", ""),
        (OTHER, r"(^|/)src/(server|exchange|daemon|main)", ""),
    ]
]
# Where the standard library's and the crates' sources are.
LIBRARY = re.compile(r"^/rustc/|/registry/src/|/lib/rustlib/|^library/|^\?\?")
ORDER = list(dict.fromkeys(phase for phase, _, _ in RULES if phase))


def phase_of(frames):
    """`frames`: (function, file) from the innermost outwards."""
    for name, file in frames:
        for phase, in_file, named in RULES:
            if in_file.search(file) and named.search(name):
                if phase is None:
                    break
                return phase
    return None


def frames_of(binary, addresses):
    """Address → its functions with their files, from the innermost outwards."""
    asked = sorted(addresses)
    command = ["addr2line", "-a", "-i", "-f", "-C", "-e", str(binary)]
    said = subprocess.run(command, input="\n".join(asked), stdout=subprocess.PIPE, text=True, check=True).stdout
    found, at, name = {}, None, None
    for line in said.splitlines():
        if re.fullmatch(r"0x[0-9a-f]{16}", line):
            at, name = int(line, 16), None
            found[at] = []
        elif name is None:
            name = line
        else:
            file = line.rpartition(":")[0]
            found[at].append((name, "library" if LIBRARY.search(file) else file))
            name = None
    return {address: found.get(int(address, 16), []) for address in asked}


def attribute(profile, binary):
    """Phase → [instructions, allocations, clock reads, bytes that came from beyond the first level of the data cache]."""
    addresses = {address for _, address in profile.own} | {address for _, address, _ in profile.calls}
    of_address = {address: phase_of(frames) for address, frames in frames_of(binary, addresses).items()}
    callers = collections.defaultdict(list)
    for (caller, address, callee), (calls, cost) in profile.calls.items():
        if cost > 0 and caller != callee:
            callers[callee].append((caller, of_address.get(address), cost))
    # What a function without a phase spends, by phase: from its callers, and theirs, until nothing changes any more.
    shares = {function: {OTHER: 1.0} for function in {function for function, _ in profile.own} | callers.keys()}
    for _ in range(60):
        for callee, edges in callers.items():
            whole = sum(cost for _, _, cost in edges)
            mixed = collections.Counter()
            for caller, phase, cost in edges:
                for name, share in ({phase: 1.0} if phase else shares.get(caller, {OTHER: 1.0})).items():
                    mixed[name] += share * cost / whole
            shares[callee] = mixed
    result = {phase: [0.0, 0.0, 0.0, 0.0] for phase in ORDER}
    misses = [profile.events.index(event) for event in ("D1mr", "D1mw")]

    def add(function, address, column, amount):
        phase = of_address.get(address)
        for name, share in ({phase: 1.0} if phase else shares.get(function, {OTHER: 1.0})).items():
            result[name][column] += share * amount

    for (function, address), costs in profile.own.items():
        if not str(profile.objects.get(function)).endswith(callgrind.PRELOADED):
            add(function, address, 0, costs[0])
            add(function, address, 3, callgrind.LINE * sum(costs[miss] for miss in misses))
    for column, pattern in ((1, callgrind.ALLOCATOR), (2, callgrind.CLOCK)):
        for caller, address, calls in profile.entries(pattern):
            add(caller, address, column, calls)
    return result


def table(name, profile, binary, requests):
    """Markdown lines."""
    lines = [f"| phase of a {name} | instructions | allocations | clock reads | bytes fetched |", "|---|---|---|---|---|"]

    def row(phase, amounts):
        instructions, allocations, clocks, fetched = (amount / requests for amount in amounts)
        if instructions >= 0.5:
            lines.append(f"| {phase} | {instructions:,.0f} | {allocations:.1f} | {clocks:.1f} | {fetched:,.0f} |")

    found = attribute(profile, binary)
    for phase, amounts in found.items():
        row(phase, amounts)
    row("all", [sum(amounts) for amounts in zip(*found.values())])
    return lines
