"""The picture for the README, drawn from the JSON by matplotlib in an environment of its own."""

import json
import subprocess
from pathlib import Path


def draw(python, place):
    """Draws it in the environment that `python` belongs to."""
    code = "import sys; sys.path.insert(0, sys.argv[3]); from harness import plot; plot.picture(sys.argv[1], sys.argv[2])"
    subprocess.run([python, "-Bc", code, place.json, place.svg, Path(__file__).resolve().parents[1]], check=True)


def picture(source, target):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    from .load import median

    # Text stays text, and the same figures make the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "whimbrel", "font.size": 9, "font.family": "sans-serif"})
    measured = json.loads(Path(source).read_text())
    fan_out, peak = (measured.get(name, {}).get("reports", {}) for name in ("fan_out", "peak"))
    panels = [
        ("idle connection, KiB", fan_out, "server/bytes_per_connection", 1 / 1024),
        ("CPU per delivery, µs", fan_out, "publishing/server/cpu_us_per_delivery", 1),
        ("best, 1,000 deliveries/s", peak, "publishing/received_per_second", 1 / 1000),
    ]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(10, 2.8), layout="constrained")
    for axis, (title, reports, path, scale) in zip(axes, panels):
        # SSE first, then WebSocket: compared is what is spoken alike.
        ordered = sorted(reports.items(), key=lambda subject: subject[0].split()[::-1])
        bars = [(name, median(runs, path)) for name, runs in ordered]
        bars = [(name.replace("websocket", "WebSocket").replace("sse", "SSE"), value * scale) for name, value in bars if value is not None]
        bars.reverse()
        colours = ["#2a6f97" if name.startswith("whimbrel") else "#b8c4cc" for name, _ in bars]
        drawn = axis.barh([name for name, _ in bars], [value for _, value in bars], color=colours)
        axis.bar_label(drawn, fmt=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.1f}", padding=2)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_xticks([])
        axis.margins(x=0.18)
        for side in ("top", "right", "bottom"):
            axis.spines[side].set_visible(False)
    figure.savefig(target, metadata={"Date": None})
