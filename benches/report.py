"""What `compare` has measured, as text, as a page's tables, and as a plot.

Keeps true: every figure is a median over the rounds and comes with its range; ratios are taken within a round.
"""

import datetime
import math
import statistics

import stage

# Above these shares of a CPU taken by others, a row is not to be trusted, or is worth nothing.
DISTURBED, WORTHLESS = 0.05, 0.2


def middle(values):
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def spread(values, digits):
    return f"{middle(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def micros(value, digits=1):
    return "-" if value is None else f"{value * 1e6:.{digits}f}"


class Result:
    """A row's samples: contender → one for each round."""

    def __init__(self, name, about, samples, bases, connections, load_average):
        self.name, self.about, self.samples, self.bases = name, about, samples, bases
        self.connections, self.load_average = connections, load_average

    def costs(self, contender):
        return [sample.cost for sample in self.samples[contender]]

    def ratios(self, contender, base):
        """How many requests the contender answers with the CPU time that the base takes for one, round by round."""
        return [other / own for own, other in zip(self.costs(contender), self.costs(base))]

    def user_shares(self, contender, base):
        return [own.user / other.user for own, other in zip(self.samples[contender], self.samples[base]) if other.user]

    def added(self, contender):
        """Median and 99th percentile beyond those of the backend asked directly, round by round."""
        pairs = list(zip(self.samples[contender], self.samples["backend"]))
        return [own.median - other.median for own, other in pairs], [own.slow - other.slow for own, other in pairs]

    def others(self):
        """The largest share of the proxies' CPU, and of the load's, that others took in a turn."""
        samples = [sample for rows in self.samples.values() for sample in rows]
        return max(sample.others[0] for sample in samples), max(sample.others[1] for sample in samples)

    def verdict(self):
        worst = max(self.others())
        return "" if worst < DISTURBED else "  DISTURBED" if worst < WORTHLESS else "  WORTHLESS"

    def show(self):
        names = "".join(f"{'× ' + base:>26}{'user':>6}" for base in self.bases)
        print(f"  {'µs CPU a request':16}{'user':>8}{'kernel':>8}{'all':>8}{'lowest':>8}{'highest':>8}{names}", end="")
        print(f"{'p50 µs':>9}{'p99 µs':>9}{'a second':>10}{'CPU':>6}{'backend':>9}")
        for contender, rows in self.samples.items():
            costs = self.costs(contender)
            line = [micros(middle([row.user for row in rows])), micros(middle([row.kernel for row in rows]))]
            line += [micros(middle(costs)), micros(min(costs)), micros(max(costs))]
            text = f"  {contender:16}" + "".join(f"{value:>8}" for value in line)
            for base in self.bases:
                shares = self.user_shares(contender, base)
                text += f"{spread(self.ratios(contender, base), 2):>26}{f'{middle(shares):.2f}' if shares else '-':>6}"
            for value in (middle([row.median for row in rows]), middle([row.slow for row in rows])):
                text += f"{micros(value, 0):>9}"
            text += f"{middle([row.rate for row in rows]):10.0f}{middle([row.share for row in rows]):6.0%}"
            print(text + f"{micros(middle([row.backend for row in rows])):>9}")
        if "backend" in self.samples:
            for contender in list(self.samples)[1:]:
                median, slow = self.added(contender)
                added = f"adds {micros(middle(median), 0)} µs to the median, {micros(middle(slow), 0)} to the 99th percentile"
                print(f"  {contender:16}{added}")
        proxies, load = self.others()
        print(f"  others took up to {proxies:.0%} of the proxies' CPU, {load:.0%} of the load's; ", end="")
        print(f"load average {self.load_average:.1f}{self.verdict()}", flush=True)


# === The page ===


class Outcome:
    """All that one run has measured."""

    def __init__(self, machine, binaries):
        self.machine, self.binaries = machine, binaries
        self.rows, self.memory = {}, {}

    def machine_was(self):
        """How loaded the machine was."""
        if not self.rows:
            return "no row was measured"
        others = [result.others() for result in self.rows.values()]
        proxies, load = [max(shares) for shares in zip(*others)]
        averages = [result.load_average for result in self.rows.values()]
        bad = [result.name for result in self.rows.values() if result.verdict()]
        text = f"load average {min(averages):.1f} to {max(averages):.1f}, of which what is measured is up to 2; others took up "
        text += f"to {proxies:.0%} of the proxies' CPU and {load:.0%} of the load's in a turn"
        return text + (f"; disturbed: {', '.join(bad)}" if bad else "")

    def tables(self):
        """Markdown."""
        build = "renewd" if "renewd" in self.binaries else next(iter(self.binaries))
        lines = [f"Measured on {datetime.date.today():%Y-%m-%d}: {self.machine}; {self.machine_was()}.", ""]
        head = ["work", "against", "its µs: user + kernel", "renewd's µs", "ratio (lowest to highest)", "of its user time"]
        lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
        for result in self.rows.values():
            own = next(name for name in result.samples if name.split(" ")[0] == build)
            for base in result.bases:
                if base.split(" ")[0] in self.binaries:
                    continue
                shares = result.user_shares(own, base)
                cells = [result.about, base, self._cost(result, base), self._cost(result, own)]
                cells += [spread(result.ratios(own, base), 2), f"{middle(shares):.2f}" if shares else "-"]
                lines.append("| " + " | ".join(cells) + " |")
        if any(result.connections for result in self.rows.values()):
            lines += ["", "![CPU time of a GET over the number of connections](connections.svg)"]
        unix = [result for result in self.rows.values() if f"{build} unix" in result.samples]
        if unix:
            lines += ["", "| renewd's µs and the backend's | over TCP | over a unix socket |", "|---|---|---|"]
        for result in unix:
            cells = [result.about, self._both(result, build), self._both(result, f"{build} unix")]
            lines.append("| " + " | ".join(cells) + " |")
        delays = [result for result in self.rows.values() if "backend" in result.samples]
        if delays:
            lines += ["", "| added to a direct request | µs, median | µs, 99th percentile |", "|---|---|---|"]
        for result in delays:
            for contender in list(result.samples)[1:]:
                cells = [f"{result.about}: {contender}", *(micros(middle(values), 0) for values in result.added(contender))]
                lines.append("| " + " | ".join(cells) + " |")
        if self.memory:
            programs = [program for program in (build, "nginx", "haproxy")]
            lines += ["", f"| KiB a connection | {' | '.join(programs)} |", "|---" * 4 + "|"]
        for name, found in self.memory.items():
            values = {contender.split(" ")[0]: value for contender, value in found.items()}
            about = f"{name.removesuffix('-tls')}, {'TLS' if name.endswith('-tls') else 'clear'}"
            lines.append(f"| {about} | {' | '.join(f'{values[program]:.1f}' for program in programs)} |")
        return "\n".join(lines)

    @staticmethod
    def _cost(result, contender):
        rows = result.samples[contender]
        user, kernel, cost = (middle([getattr(row, part) for row in rows]) for part in ("user", "kernel", "cost"))
        return f"{micros(user)} + {micros(kernel)} = {micros(cost)}"

    @staticmethod
    def _both(result, contender):
        cost, backend = (middle([getattr(row, part) for row in result.samples[contender]]) for part in ("cost", "backend"))
        return f"{micros(cost)} + {micros(backend)}"

    def write(self, path):
        replace_section(path, "compare", self.tables())
        print(f"wrote {path.relative_to(stage.ROOT)}")

    def draw(self, path):
        points = {}
        for result in self.rows.values():
            for contender in result.samples if result.connections else ():
                points.setdefault(contender, []).append((result.connections, result.samples[contender]))
        if not points:
            stage.fail("nothing to draw: the series was not measured")
        # haproxy has one row only.
        longest = max(map(len, points.values()))
        points = {name: series for name, series in points.items() if len(series) == longest}
        path.write_text(plot(points, f"{self.machine}, {datetime.date.today():%Y-%m-%d}"))
        print(f"wrote {path}")


def replace_section(path, name, text):
    """Puts a text between the comments that name its script."""
    begin, end = f"<!-- benches/{name} writes from here -->\n", f"\n<!-- benches/{name} writes to here -->"
    before, found, rest = path.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        stage.fail(f"{path} has no place for what benches/{name} writes")
    path.write_text(before + begin + text + end + after)


# === The plot ===

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 130, 44, 66
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f; } .small { font-size: 11px; fill: #57606a; }
.grid { stroke: #d0d7de; } .bar { stroke-width: 1; opacity: 0.6; } path { fill: none; stroke-width: 2; }
.user { stroke-dasharray: 5 4; }
.c0 { stroke: #0969da; } .c1 { stroke: #bc4c00; } .c2 { stroke: #1a7f37; } .c3 { stroke: #8250df; }
text.c0, text.c1, text.c2, text.c3 { stroke: none; } text.c0 { fill: #0969da; } text.c1 { fill: #bc4c00; }
text.c2 { fill: #1a7f37; } text.c3 { fill: #8250df; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .small { fill: #9198a1; } .grid { stroke: #3d444d; }
.c0 { stroke: #58a6ff; } .c1 { stroke: #f0883e; } .c2 { stroke: #3fb950; } .c3 { stroke: #bc8cff; }
text.c0 { fill: #58a6ff; } text.c1 { fill: #f0883e; } text.c2 { fill: #3fb950; } text.c3 { fill: #bc8cff; }
}
"""


def plot(points, machine):
    """CPU time over connections as SVG, readable on light and dark pages: a line for all of it with the range of the rounds,
    a dashed one for its part in user space."""
    counts = sorted({count for series in points.values() for count, _ in series})
    highest = max(sample.cost for series in points.values() for _, samples in series for sample in samples) * 1e6
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1e6) if highest / step <= 8)
    top = (highest // step + 1) * step
    decades = max(math.log(counts[-1] / counts[0]), 1)
    at = {count: LEFT + (WIDTH - LEFT - RIGHT) * math.log(count / counts[0]) / decades for count in counts}
    height = lambda seconds: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * seconds * 1e6 / top
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    out += ["<title>CPU time of a GET of 1 KiB over the number of connections</title>", f"<style>{STYLE}</style>"]
    out.append(f'<text x="{LEFT}" y="22">µs of CPU time a request; dashed: in user space</text>')
    value = 0
    while value <= top:
        y = height(value / 1e6)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="small" text-anchor="end" x="{LEFT - 8}" y="{y + 4:.1f}">{value:.0f} µs</text>')
        value += step
    for count, x in at.items():
        out.append(f'<text class="small" text-anchor="middle" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}">{count:,}</text>')
    centre = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text text-anchor="middle" x="{centre}" y="{HEIGHT - BOTTOM + 38}">keep-alive connections</text>')
    out.append(f'<text class="small" x="{LEFT}" y="{HEIGHT - 8}">GET of 1 KiB, proxy alone on one CPU. {machine}</text>')
    ends = []
    for index, (contender, series) in enumerate(points.items()):
        series, colour = sorted(series, key=lambda point: point[0]), f"c{index % 4}"
        for kind, part in (("", "cost"), (" user", "user")):
            line = [(at[count], height(middle([getattr(sample, part) for sample in samples]))) for count, samples in series]
            out.append(f'<path class="{colour}{kind}" d="M{" L".join(f"{x:.1f} {y:.1f}" for x, y in line)}"/>')
            if not kind:
                ends.append([line[-1][1], contender, colour])
        for count, samples in series:
            low, high = (height(pick(sample.cost for sample in samples)) for pick in (min, max))
            out.append(f'<line class="{colour} bar" x1="{at[count]:.1f}" x2="{at[count]:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
    # Names stand beside the lines' ends, and not on each other.
    lowest = -1.0
    for y, contender, colour in sorted(ends):
        lowest = max(y + 4, lowest + 16)
        out.append(f'<text class="{colour}" x="{WIDTH - RIGHT + 8}" y="{lowest:.1f}">{contender}</text>')
    return "\n".join([*out, "</svg>", ""])
