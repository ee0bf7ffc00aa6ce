"""The table as Markdown, and its way into the documents."""

import os
import re

from .results import ROOT
from .rows import rows

# What the README shows; the rest is in docs/performance.md.
README_ROWS = ("idle connection, SSE, one topic", "CPU per delivery, SSE", "fan-out as fast as it goes, SSE", "publishing over REST", "reconnect storm, 10,000 clients 10 events behind, sse")


def markdown(measured):
    found = rows(measured)
    met = sum(row["verdict"] == "met" for row in found)
    lines = [f"{met} of {len(found)} targets met.", "", *_table(found), "", *_profile(measured.get("profile", {})), *_circumstances(measured)]
    return "\n".join(lines) + "\n"


def into_documents(measured):
    """Puts the table between the marks in docs/performance.md, and its head and the plot into the README."""
    picture = "![Deliveries, memory and CPU beside others, from bench/run](bench/results/latest.svg)"
    short = [row for row in rows(measured) if row["what"].startswith(README_ROWS) and "nothing in memory" not in row["what"]]
    _between_marks("docs/performance.md", picture.replace("(", "(../") + "\n\n" + markdown(measured))
    _between_marks("README.md", picture + "\n\n" + "\n".join(_table(short)) + "\n")


def _table(found):
    lines = ["| what | target | measured | beside it | |", "|---|---|---|---|---|"]
    return lines + [f"| {row['what']} | {row['target']} | {row['measured']} | {row['beside']} | {row['verdict']} |" for row in found]


def _profile(part):
    """Where the CPU of fan-out goes."""
    if "by_object" not in part:
        return []
    objects = ", ".join(f"{name} {share:.0f}%" for share, name in part["by_object"] if share >= 0.5)
    lines = [f"The CPU of unbatched fan-out over SSE, by where it is spent: {objects}. The largest of it:", "", "| share | where |", "|---|---|"]
    return [*lines, *(f"| {share:.1f}% | `{name}` |" for share, name in part["by_symbol"]), ""]


def _circumstances(measured):
    """Where and when, once for all parts that share it."""
    groups = {}
    for name, part in measured.items():
        groups.setdefault((part["machine"], part["commit"], part["at"].split()[0]), []).append((name, part))
    for (machine, commit, day), parts in groups.items():
        loads = max(part["load_average"][0] for _, part in parts)
        names = ", ".join(name for name, _ in parts)
        yield f"Measured on {day} at commit `{commit}`, on {machine} (load average at most {loads}): {names}."


def _between_marks(name, text):
    path = ROOT / name
    old = path.read_text()
    new, count = re.subn(r"(<!-- bench/run writes this -->\n).*?(<!-- until here -->)", lambda match: match[1] + text + match[2], old, flags=re.S)
    if count != 1:
        raise RuntimeError(f"{name} has no place for the table")
    path.with_name(path.name + ".new").write_text(new)
    os.replace(path.with_name(path.name + ".new"), path)
