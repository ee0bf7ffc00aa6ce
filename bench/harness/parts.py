"""What is measured, part by part. Each returns raw reports of `whimbrel bench`, kept as they are.

Servers that are compared take turns, so that whatever changes on the machine meanwhile meets all alike.
"""

import ast
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from . import servers
from .load import bench

# Bytes of an event's data, and of the whole message that carries it to a node.
EVENT_BYTES = 128
MESSAGE_BYTES = 228

# Memory for the newest events while connections churn: full after a minute or two. With the default of 64 MiB
# it would fill for hours, and what connections leave behind could not be told from it.
CHURN_RING_BYTES = 64 * 1024

BATCH = 500
STORM_EVENTS = 10

CONNECTED = 'whimbrel_connections{transport="sse"}'


def fan_out(programs, size):
    """memory of idle connections, and the CPU of a delivery at 5 events a second to one topic"""
    reports = {}
    for turn in range(size.rounds):
        for name, (start, transport, is_beside) in SUBJECTS.items():
            if is_beside and turn >= size.rounds_beside:
                continue
            _tell(f"{name}, round {turn + 1}")
            with start(programs) as server:
                report = bench(programs, server, connections=size.connections, transport=transport, rate=5,
                               size=EVENT_BYTES, seconds=size.seconds)
            reports.setdefault(name, []).append(report)
    return {"reports": reports}


def peak(programs, size):
    """the highest rate at which one topic's events reach everyone, 99% within 250 ms"""
    reports = {}
    for turn in range(size.rounds_beside):
        for name, (start, transport, is_beside) in SUBJECTS.items():
            # The ratio is Whimbrel's to nchan's; the other is reported once.
            if name.startswith("floor") or turn > 0 and name.startswith("socket.io"):
                continue
            _tell(f"{name}, round {turn + 1}")
            with start(programs) as server:
                report = bench(programs, server, connections=size.connections, transport=transport, rate="find",
                               within=250, size=EVENT_BYTES, seconds=size.trial)
                if server.dialect == "whimbrel":
                    report["metrics"] = server.metrics()
            reports.setdefault(name, []).append(report)
    return {"reports": reports}


def devices(programs, size):
    """device push over Redis, published one by one over REST; and a bare PUBLISH at the same rate"""
    reports, bare = {}, []
    subjects = [("whimbrel", servers.whimbrel, "sse"), ("nchan", servers.nchan, "sse"),
                ("socket.io", servers.socket_io, "websocket")]
    for turn in range(size.rounds):
        for name, start, transport in subjects:
            if name != "whimbrel" and turn >= size.rounds_beside:
                continue
            _tell(f"{name}, round {turn + 1}")
            with servers.redis(programs) as redis, start(programs, redis=redis) as server:
                report = bench(programs, server, pattern="devices", connections=size.devices, transport=transport,
                               rate=size.device_rate, size=EVENT_BYTES, seconds=size.seconds)
            reports.setdefault(name, []).append(report)
        _tell(f"bare PUBLISH, round {turn + 1}")
        with servers.redis(programs) as redis:
            before = redis.cpu_seconds()
            words = [programs.bare_publish, redis.url, size.device_rate, size.seconds, MESSAGE_BYTES]
            done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
            bare.append({"redis_cpu_us": (redis.cpu_seconds() - before) * 1e6 / int(done.stdout)})
    return {"reports": reports, "bare_publish": bare, "rate": size.device_rate, "devices": size.devices}


def publishing(programs, size):
    """publishing over REST in batches, against the same script alone in redis-benchmark"""
    reports, alone = [], []
    for turn in range(size.rounds):
        _tell(f"round {turn + 1}")
        with servers.redis(programs) as redis, servers.whimbrel(programs, redis=redis) as server:
            reports.append(bench(programs, server, connections=0, rate="max", batch=BATCH, size=EVENT_BYTES,
                                 seconds=size.seconds))
            command = _publish_command(programs, server, redis)
            # About as long as the above.
            number = size.seconds * 25_000
            words = ["redis-benchmark", "-p", str(redis.port), "-P", "32", "-c", "4", "-n", str(number), "-q", *command]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            alone.append({"per_second": float(re.findall(r"([\d.]+) requests per second", done.stdout)[-1])})
    return {"reports": reports, "script_alone": alone, "batch": BATCH}


def storm(programs, size):
    """all connections are cut at once and come back, some events behind on one topic"""
    reports = {}
    # A node whose memory holds the newest events needs no read at all; one that may keep none in memory
    # stands for the node that a client has never been at.
    for name, transport, connections, options in [
        ("sse", "sse", size.connections, ()),
        ("websocket", "websocket", size.connections, ()),
        ("sse, nothing in memory", "sse", size.connections, ("--ring-bytes", "0")),
        ("sse, nothing in memory, a tenth of the clients", "sse", size.connections // 10, ("--ring-bytes", "0")),
    ]:
        for turn in range(size.rounds_beside):
            _tell(f"{name}, round {turn + 1}")
            with servers.redis(programs) as redis, servers.whimbrel(programs, redis=redis, options=options) as server:
                before = server.metrics()
                report = bench(programs, server, connections=connections, transport=transport, size=EVENT_BYTES,
                               rate=5, seconds=1, storm=STORM_EVENTS)
                report["page_reads"] = _grown(before, server.metrics(), "whimbrel_page_reads_total")
            reports.setdefault(name, []).append(report)
    return {"reports": reports}


def idle(programs, size):
    """what idle connections with an inbox each cost over time, in memory and in CPU of node and Redis"""
    reports = {}
    for transport in ("sse", "websocket"):
        for turn in range(size.rounds):
            _tell(f"{transport}, round {turn + 1}")
            # Memory is read in every round; a long look at the CPU is taken once.
            with servers.redis(programs) as redis, servers.whimbrel(programs, redis=redis) as server:
                report = bench(programs, server, pattern="devices", connections=size.connections,
                               transport=transport, seconds=0, idle=size.idle if turn == 0 else 0)
            reports.setdefault(transport, []).append(report)
    return {"reports": reports}


def churn(programs, size):
    """whether memory stays where it is while connections come and go"""
    _tell(f"{size.churn} s")
    options = ("--ring-bytes", str(CHURN_RING_BYTES))
    with servers.redis(programs) as redis, servers.whimbrel(programs, redis=redis, options=options) as server:
        report = bench(programs, server, connections=size.connections, rate=2, size=EVENT_BYTES, seconds=0,
                       churn=size.churn, churn_rate=50)
    return {"reports": [report]}


def growth(programs, size):
    """deliveries a second and bytes a connection as connections grow, the most of them over two nodes"""
    reports = []
    for connections in size.growth:
        nodes = 2 if connections == size.growth[-1] else 1
        _tell(f"{connections} connections, {nodes} node(s)")
        with servers.redis(programs) as redis, servers.whimbrel(programs, redis=redis, nodes=nodes) as server:
            report = bench(programs, server, connections=connections, processes=2, rate="find", within=250,
                           size=EVENT_BYTES, seconds=size.trial)
        reports.append({**report, "connections": connections, "nodes": nodes})
    return {"reports": reports}


def profile(programs, size):
    """where the CPU of fan-out goes, as perf sees it; left out where there is no perf"""
    if not shutil.which("perf"):
        return {"missing": "perf is not installed"}
    data = programs.folder / "perf.data"
    with servers.whimbrel(programs) as server, ThreadPoolExecutor() as pool:
        load = pool.submit(bench, programs, server, connections=size.connections, rate=5, size=EVENT_BYTES,
                           seconds=size.seconds + 2)
        while not load.done() and server.metrics().get(CONNECTED, 0) < size.connections:
            time.sleep(0.1)
        time.sleep(3.5)  # the bench lets the server come to rest before it publishes
        words = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-o", data, "-p", server.pids[0], "--", "sleep", size.seconds]
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if "failed" in load.result():
            return {"missing": "the load failed"}
    if done.returncode:
        return {"missing": done.stderr.strip()}
    return {"by_object": _perf_report(data, "dso"), "by_symbol": _perf_report(data, "dso,sym")[:12]}


ALL = {part.__name__: part for part in (fan_out, peak, devices, publishing, storm, idle, growth, churn, profile)}

# Who gets one topic's events: how it starts, how it is listened to, and whether it only stands beside.
SUBJECTS = {
    "floor sse": (servers.floor, "sse", False),
    "whimbrel sse": (servers.whimbrel, "sse", False),
    "floor websocket": (servers.floor, "websocket", False),
    "whimbrel websocket": (servers.whimbrel, "websocket", False),
    "nchan sse": (servers.nchan, "sse", True),
    "nchan websocket": (servers.nchan, "websocket", True),
    "socket.io websocket": (servers.socket_io, "websocket", True),
}


def _tell(line):
    print(f"  {line}", file=sys.stderr)


def _grown(before, after, name):
    return after.get(name, 0) - before.get(name, 0)


def _perf_report(data, sort):
    """Shares in percent, the largest first: `[share, name]`."""
    words = ["perf", "report", "-i", str(data), "--stdio", "-q", "-g", "none", "--no-children", "-F", f"overhead,{sort}", "-t", "|"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    shares = [line.split("|") for line in done.stdout.splitlines() if "%" in line]
    return [[float(share.strip(" %")), " ".join(" ".join(names).split())] for share, *names in shares]


def _publish_command(programs, server, redis):
    """The command with which a node publishes an event, as Redis saw it: so it is the same script with the
    same arguments, whatever they are by now."""
    with subprocess.Popen(["redis-cli", "-p", str(redis.port), "monitor"], stdout=subprocess.PIPE, text=True) as monitor:
        try:
            monitor.stdout.readline()  # OK: from here on it sees everything
            report = bench(programs, server, connections=0, rate=1, size=EVENT_BYTES, seconds=1)
            if "failed" in report:
                raise RuntimeError("nothing could be published")
            end = time.monotonic() + 10
            while time.monotonic() < end:
                line = monitor.stdout.readline()
                # Lines that scripts cause name no address but `lua`.
                words = [ast.literal_eval(f"b{word}").decode() for word in re.findall(r'"(?:[^"\\]|\\.)*"', line)]
                if words and words[0].upper() == "EVALSHA" and any("due" in word for word in words) and " lua]" not in line:
                    return words
        finally:
            monitor.kill()
    raise RuntimeError("the publish was not seen")
