"""The servers. Each lives for one measurement, so that none pays for what came before."""

import os
import re
import resource
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from .results import ROOT
from .install import NCHAN

START_SECONDS = 20

_numbers = count()


@dataclass
class Server:
    """A running server, as `whimbrel bench` wants to know it."""

    urls: list
    pids: list
    dialect: str = "whimbrel"
    redis: "Redis" = None

    def metrics(self):
        """Whimbrel's counters, those of all nodes added up."""
        sums = {}
        for url in self.urls:
            with urllib.request.urlopen(f"{url}/metrics") as answer:
                for line in answer.read().decode().splitlines():
                    if not line.startswith("#"):
                        name, value = line.rsplit(" ", 1)
                        sums[name] = sums.get(name, 0.0) + float(value)
        return sums


@dataclass
class Redis:
    port: int
    pid: int
    url: str = field(init=False)

    def __post_init__(self):
        self.url = f"redis://127.0.0.1:{self.port}"

    def cpu_seconds(self):
        """User and system time since the start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def redis(programs):
    port = _free_port()
    # As docs/several-nodes.md asks for it, without persistence: what is measured is the work, not the disk.
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--stream-node-max-bytes", "512",
               "--maxmemory-policy", "noeviction", "--maxclients", "1000", "--dir", str(programs.folder)]
    with _process(["redis-server", *options], programs, "redis") as (process, log):
        _wait_for_port(port, process, log)
        yield Redis(port, process.pid)


@contextmanager
def whimbrel(programs, redis=None, nodes=1, options=()):
    with _several(lambda: _whimbrel(programs, redis, options), nodes) as started:
        yield Server([url for url, _ in started], [pid for _, pid in started], redis=redis)


@contextmanager
def _whimbrel(programs, redis, options):
    command = [programs.whimbrel, "serve", "--listen", "127.0.0.1:0", *options]
    command += ["--redis-url", redis.url] if redis else []
    with _process(command, programs, "whimbrel") as (process, log):
        yield _address(process, log), process.pid


@contextmanager
def floor(programs):
    with _process([programs.floor], programs, "floor") as (process, log):
        yield Server([_address(process, log)], [process.pid])


@contextmanager
def socket_io(programs, redis=None):
    environment = {"NODE_ENV": "production", **({"REDIS_URL": redis.url} if redis else {})}
    with _process(["node", programs.socket_io / "server.mjs"], programs, "socket-io", environment) as (process, log):
        yield Server([_address(process, log)], [process.pid], "socket-io", redis)


@contextmanager
def nchan(programs, redis=None):
    port = _free_port()
    folder = programs.folder / f"nchan-{next(_numbers)}"
    folder.mkdir()
    fill = {
        "MODULE": f"/{NCHAN}",
        "WORKERS": os.cpu_count(),
        "DESCRIPTORS": _descriptors(),
        "CONNECTIONS": _descriptors() - 100,
        "DIR": folder,
        "PORT": port,
        "REDIS": f"upstream redis {{ nchan_redis_server {redis.url}; }}" if redis else "",
        "PASS": "nchan_redis_pass redis;" if redis else "",
    }
    text = (ROOT / "bench/nchan.conf").read_text()
    config = folder / "nginx.conf"
    config.write_text(re.sub("@([A-Z]+)@", lambda match: str(fill[match[1]]), text))
    with _process(["nginx", "-c", config, "-e", folder / "error.log"], programs, "nchan") as (process, log):
        # It takes connections before its own to Redis are there.
        _until(lambda: _is_taken(f"http://127.0.0.1:{port}/pub/ready"), process, log)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = _until(lambda: len(found := children.read_text().split()) >= fill["WORKERS"] and found, process, log)
        yield Server([f"http://127.0.0.1:{port}"], [process.pid, *map(int, workers)], "nchan", redis)


@contextmanager
def _several(start, number):
    if number == 0:
        yield []
        return
    with start() as first, _several(start, number - 1) as others:
        yield [first, *others]


@contextmanager
def _process(command, programs, name, environment=None):
    """A process that ends with the block; its output goes to a file."""
    log = programs.folder / f"{name}-{next(_numbers)}.log"
    with open(log, "wb") as output:
        process = subprocess.Popen([str(word) for word in command], stdout=output, stderr=output,
                                   stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    try:
        yield process, log
    finally:
        # Nobody drains here: all clients are gone.
        process.send_signal(signal.SIGTERM if name in ("nchan", "redis") else signal.SIGKILL)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process, log):
    """Where a server says that it listens. The first line of Whimbrel's log names the place before it does."""
    return _until(lambda: re.search(r"listening.* (http://127\.0\.0\.1:\d+)", log.read_text()), process, log)[1]


def _wait_for_port(port, process, log):
    def answers():
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", port)) == 0

    _until(answers, process, log)


def _is_taken(url):
    """Whether an event can be published."""
    try:
        # A worker of nchan that has no Redis yet may keep the request for ever.
        with urllib.request.urlopen(url, data=b"{}", timeout=1):
            return True
    except OSError:
        return False


def _until(found, process, log):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if result := found():
            return result
        time.sleep(0.02)
    raise RuntimeError(f"did not start: {process.args}\n{log.read_text()}")


def _free_port():
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        return attempt.getsockname()[1]


def _descriptors():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
