"""The load: `whimbrel bench`, run against a server, and what it reports."""

import json
import subprocess
import sys
from dataclasses import dataclass
from statistics import median as middle


@dataclass
class Size:
    """How much is measured."""

    # Rounds of Whimbrel and the floor, and of servers that only stand beside.
    rounds: int
    rounds_beside: int
    connections: int
    devices: int
    device_rate: int
    # Of one publishing phase, one trial of a search, one idle phase and the churn.
    seconds: int
    trial: int
    idle: int
    churn: int
    growth: tuple

    @staticmethod
    def full(rounds, churn):
        return Size(rounds, max(1, (rounds + 1) // 2), 10_000, 5_000, 2_000, 6, 2, 60, churn, (1_000, 5_000, 10_000, 20_000))

    @staticmethod
    def quick():
        return Size(1, 1, 1_000, 500, 500, 2, 1, 5, 10, (100, 500, 1_000, 2_000))


def bench(programs, server, **flags):
    """One run; its report, or what went wrong. Flags are those of `whimbrel bench`; True stands alone."""
    words = [programs.whimbrel, "bench", "--json", "--dialect", server.dialect, "--pid", ",".join(map(str, server.pids))]
    for url in server.urls:
        words += ["--url", url]
    if server.redis:
        words += ["--redis-pid", str(server.redis.pid)]
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        print(f"  failed: {' '.join(map(str, words[1:]))}: {done.stderr.strip()}", file=sys.stderr)
        return {"failed": done.stderr.strip()}
    return json.loads(done.stdout)


def figure(report, path):
    """A figure of a report by its path, such as `publishing/latency/p99`; None where there is none."""
    for name in path.split("/"):
        report = report.get(name) if isinstance(report, dict) else None
    return report


def median(reports, path):
    """The median of a figure over rounds; None where no round has it."""
    figures = [value for value in (figure(report, path) for report in reports or []) if value is not None]
    return middle(figures) if figures else None
