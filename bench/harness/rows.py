"""The rows of the table: raw figures against targets."""

from .load import figure, median

KIB = 1024


def rows(measured):
    """All rows whose parts were measured: dicts of what, target, measured, beside and verdict."""
    makers = {"fan_out": _fan_out, "peak": _peak, "devices": _devices, "publishing": _publishing, "storm": _storm,
              "idle": _idle, "churn": _churn, "growth": _growth}
    return [row for part, make in makers.items() if part in measured for row in make(measured[part])]


def row(runs, what, target, measured, met, beside=""):
    """`met` is None where something could not be measured, and a word where it can't be judged. `runs` are
    Whimbrel's own: one of them that failed, or lost something, misses every target."""
    failed = sum(not _is_whole(run) for run in runs)
    if failed:
        measured, met = f"{measured}; {failed} of {len(runs)} rounds lost something or failed", False
    verdict = met if isinstance(met, str) else "not measured" if met is None else "met" if met else "missed"
    return {"what": what, "target": target, "measured": measured, "beside": beside, "verdict": verdict}


def _is_whole(report):
    # A search tries rates that are not kept; the best of those that were is what counts.
    published = report.get("publishing", {})
    return "failed" not in report and published.get("received") == published.get("expected")


def judged(test, *figures):
    return None if any(value is None for value in figures) else test(*figures)


def text(value, form, unit=""):
    return "-" if value is None else f"{value:{form}}{unit}"


def ratio(one, other):
    return one / other if one is not None and other else None


def _kib(value):
    return None if value is None else value / KIB


def beside(figures, form, unit):
    """Other servers' figures, those that there are, and the ratio of ours to each."""
    return "; ".join(f"{name} {value:{form}}{unit}" for name, value in figures if value is not None)


def _fan_out(part):
    reports, memory, cpu = part["reports"], "server/bytes_per_connection", "publishing/server/cpu_us_per_delivery"
    found = []
    for transport, others in TRANSPORTS:
        own = reports.get(f"whimbrel {transport}", [])
        mine = _kib(median(own, memory))
        theirs = [(name, _kib(median(reports.get(f"{name} {transport}"), memory))) for name in ["floor", *others]]
        found.append(row(own, f"idle connection, {NAMES[transport]}, one topic", "≤ 2.5 KiB", text(mine, ".2f", " KiB"),
                         judged(lambda mine: mine <= 2.5, mine), beside(theirs, ".1f", " KiB")))
    for transport, others in TRANSPORTS:
        own = reports.get(f"whimbrel {transport}", [])
        mine = median(own, cpu)
        least = median(reports.get(f"floor {transport}"), cpu)
        theirs = [(name, median(reports.get(f"{name} {transport}"), cpu)) for name in ["floor", *others]]
        times = ratio(mine, least)
        found.append(row(own, f"CPU per delivery, {NAMES[transport]}, one topic, 5 events/s", "≤ 1.25 × the floor",
                         f"{text(mine, '.1f', ' µs')}, {text(times, '.2f')} × the floor",
                         judged(lambda times: times <= 1.25, times), beside(theirs, ".1f", " µs")))
    return found


def _peak(part):
    reports, path, latency = part["reports"], "publishing/received_per_second", "publishing/latency/p99"
    found = []
    for transport, others in TRANSPORTS:
        own = reports.get(f"whimbrel {transport}", [])
        mine, p99 = median(own, path), median(own, latency)
        theirs = [(name, median(reports.get(f"{name} {transport}"), path)) for name in others]
        times = ratio(mine, dict(theirs)["nchan"])
        # Over the whole search: what clients got when they connected is in it too.
        shared = median([{"ratio": ratio(figure(report, "metrics/whimbrel_frames_written_total"),
                                         figure(report, "metrics/whimbrel_socket_writes_total"))} for report in own], "ratio")
        measured = (f"{text(mine, ',.0f')} deliveries/s, {text(times, '.2f')} × nchan's; p99 {text(p99, '.0f', ' ms')}; "
                    f"{text(shared, '.1f')} frames a write over the search")
        found.append(row(own, f"fan-out as fast as it goes, {NAMES[transport]}", "≥ 3 × nchan's deliveries/s, all delivered, p99 ≤ 250 ms",
                         measured, judged(lambda times, p99: times >= 3 and p99 <= 250, times, p99), beside(theirs, ",.0f", "/s")))
    return found


def _devices(part):
    reports = part["reports"]
    each = {name: {what: median(reports.get(name), path) for what, path in [
        ("node", "publishing/server/cpu_us_per_publish"), ("redis", "publishing/redis/cpu_us_per_publish"),
        ("p99", "publishing/latency/p99")]} for name in ("whimbrel", "nchan", "socket.io")}
    own = reports.get("whimbrel", [])
    mine, peers = each["whimbrel"], ("nchan", "socket.io")
    bare = median(part["bare_publish"], "redis_cpu_us")
    times = ratio(mine["redis"], bare)
    what = f"device push over Redis, {part['devices']:,} devices, {part['rate']:,} events/s"
    theirs = lambda name, form, unit: beside([(peer, each[peer][name]) for peer in peers], form, unit)  # noqa: E731
    return [
        row(own, f"{what}: node CPU an event", "≤ 60 µs", text(mine["node"], ".0f", " µs"),
            judged(lambda cpu: cpu <= 60, mine["node"]), theirs("node", ".0f", " µs")),
        row(own, "… Redis CPU an event", "≤ 2 × a bare PUBLISH, alike in rate and pipelining",
            f"{text(mine['redis'], '.1f', ' µs')}, {text(times, '.2f')} × bare PUBLISH",
            judged(lambda times: times <= 2, times),
            "; ".join(filter(None, [f"bare PUBLISH {text(bare, '.1f', ' µs')}", theirs("redis", ".1f", " µs")]))),
        row(own, "… p99 of the latency", "≤ nchan's", text(mine["p99"], ".1f", " ms"),
            judged(lambda p99, other: p99 <= other, mine["p99"], each["nchan"]["p99"]), theirs("p99", ".1f", " ms")),
    ]


def _publishing(part):
    mine, alone = median(part["reports"], "publishing/published_per_second"), median(part["script_alone"], "per_second")
    share = ratio(mine, alone)
    errors = sum(figure(report, "publishing/publish_errors") or 0 for report in part["reports"])
    return [row(part["reports"], f"publishing over REST, batches of {part['batch']}", "≥ 60% of `redis-benchmark -P 32`, same script",
                f"{text(mine, ',.0f')} events/s, {text(share, '.0%')}",
                judged(lambda share: share >= 0.6 and errors == 0, share), f"the script alone {text(alone, ',.0f')}/s")]


def _storm(part):
    reports, found = part["reports"], []
    for name, runs in reports.items():
        if "tenth" in name:
            continue
        seconds, clients = median(runs, "storm/seconds"), median(runs, "connections")
        found.append(row(runs, f"reconnect storm, {text(clients, ',.0f')} clients 10 events behind, {name}", "all caught up within 3 s",
                         f"{text(seconds, '.2f', ' s')}; {text(median(runs, 'page_reads'), '.0f')} page reads of Redis",
                         judged(lambda seconds: seconds <= 3, seconds)))
    many, few = (median(reports.get(name), "page_reads") for name in
                 ("sse, nothing in memory", "sse, nothing in memory, a tenth of the clients"))
    clients = median(reports.get("sse, nothing in memory"), "connections")
    # One stream: clients that come in the same moment share a read, and a storm lasts for some moments.
    found.append(row([], "… page reads of Redis for its one stream", "grow with streams, not clients: under 1 read for 100 clients",
                     f"{text(many, '.0f')} with all clients, {text(few, '.0f')} with a tenth of them",
                     judged(lambda many, clients: many < clients / 100, many, clients)))
    return found


def _idle(part):
    found = []
    for transport, runs in part["reports"].items():
        mine = _kib(median(runs, "server/bytes_per_connection"))
        found.append(row(runs, f"idle connection, {NAMES[transport]}, an inbox each", "≤ 4 KiB", text(mine, ".2f", " KiB"),
                         judged(lambda mine: mine <= 4, mine)))
    for transport, runs in part["reports"].items():
        count, node, redis = (median(runs, path) for path in ("connections", "idle/server_cpu_percent", "idle/redis_cpu_percent"))
        seconds = median(runs, "idle/seconds")
        found.append(row(runs, f"CPU of {text(count, ',.0f')} idle connections, {NAMES[transport]}, an inbox each, {text(seconds, '.0f')} s",
                         "≤ 1% of a core, ≤ 5% of Redis", f"node {text(node, '.2f', '%')}, Redis {text(redis, '.2f', '%')}",
                         judged(lambda node, redis: node <= 1 and redis <= 5, node, redis)))
    return found


# Memory counts as flat when it would grow by less than so much in an hour of churn.
FLAT_PERCENT_AN_HOUR = 5
TEN_MINUTES = 599


def _churn(part):
    runs = part["reports"]
    first, last, slope = (median(runs, f"churn/memory/{name}") for name in ("first_mib", "last_mib", "kib_per_minute"))
    seconds, opened, failed = (median(runs, f"churn/{name}") for name in ("seconds", "opened", "failed"))
    an_hour = ratio(slope * 60 / KIB * 100, last) if slope is not None else None
    return [row(runs, f"memory over {text(seconds and seconds / 60, '.0f')} minutes of churn", f"flat: under {FLAT_PERCENT_AN_HOUR}% an hour, ten minutes long",
                f"{text(first, '.1f')} → {text(last, '.1f', ' MiB')}, {text(slope, '+.1f', ' KiB a minute')}; "
                f"{text(opened, ',.0f')} came back, {text(failed, '.0f')} failed",
                judged(lambda an_hour, seconds, failed: "too short to judge" if seconds < TEN_MINUTES else
                       an_hour <= FLAT_PERCENT_AN_HOUR and failed == 0, an_hour, seconds, failed))]


# Less than this part of what fewer connections got is a bend.
BEND = 0.8


def _growth(part):
    found, best = [], None
    for report in part["reports"]:
        rate, memory = figure(report, "publishing/received_per_second"), _kib(figure(report, "server/bytes_per_connection"))
        nodes = "two nodes" if report["nodes"] == 2 else "one node"
        found.append(row([report], f"growth: {report['connections']:,} connections, {nodes}", f"no bend: ≥ {BEND:.0%} of the best with fewer",
                         f"{text(rate, ',.0f')} deliveries/s, {text(memory, '.2f', ' KiB')} a connection",
                         judged(lambda rate: best is None or rate >= BEND * best, rate)))
        best = max(filter(None, (best, rate)), default=None)
    return found


NAMES = {"sse": "SSE", "websocket": "WebSocket"}

# Transports, and who stands beside on them.
TRANSPORTS = [("sse", ["nchan"]), ("websocket", ["nchan", "socket.io"])]
