"""Where results are kept, and under what circumstances they came about."""

import json
import os
import platform
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Place:
    """The files of a run. A quick one leaves what was measured in full alone."""

    def __init__(self, quick):
        folder = ROOT / ("target/bench/quick" if quick else "bench/results")
        folder.mkdir(parents=True, exist_ok=True)
        self.json = folder / "latest.json"
        self.markdown = folder / "latest.md"
        self.svg = folder / "latest.svg"


def load(place):
    return json.loads(place.json.read_text()) if place.json.exists() else {}


def save(place, measured):
    place.json.write_text(json.dumps(measured, indent=1) + "\n")


def stamped(figures):
    """The figures of a part with what one has to know of the circumstances."""
    return {
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "commit": _commit(),
        "machine": _machine(),
        # Of the last minutes: the run's own load is in it, and so is anything else that was going on.
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **figures,
    }


def _commit():
    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    # What a run itself writes does not make the program another one.
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results", ":!docs", ":!README.md")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if changed else "")


def _machine():
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} × {names[0] if names else platform.machine()}, Linux {platform.release()}"
