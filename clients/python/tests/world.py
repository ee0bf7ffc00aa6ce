"""The real parts that tests run against: nodes, a Redis, a proxy. All on free ports, all ended with the test."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

PROGRAM = os.environ.get("WHIMBREL_PROGRAM", str(Path(__file__).parents[3] / "target/debug/whimbrel"))
PATIENCE = 30.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def eventually(what: str, probe: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.02)


def answers(url: str) -> bool:
    with suppress(OSError):
        return bool(urllib.request.urlopen(url).status == 200)
    return False


class Node:
    """A node that can be killed and started again on its port."""

    def __init__(self, redis: str, port: int, **settings: str) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WHIMBREL_")}
        self.environment |= {
            "WHIMBREL_LISTEN": f"127.0.0.1:{port}",
            "WHIMBREL_REDIS_URL": redis,
            "WHIMBREL_RETENTION": "topic:short*=5/3600 *=100000/3600",
            "WHIMBREL_PING_SECONDS": "1",
            **settings,
        }
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen([PROGRAM, "serve"], env=self.environment, stderr=subprocess.DEVNULL)
        eventually("the node answers", lambda: answers(f"{self.url}/health/ready"))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    port = free_port()
    arguments = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class Proxy:
    """Passes connections on to one of the nodes. By ``mode`` it hangs, is deaf to answers, answers with HTML, or refuses
    one of the ways to listen."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.mode = "pass"
        self.connections = 0
        self.upgrades = 0
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        head = b""
        if self.mode in ("no-sse", "no-websocket"):
            with suppress(asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
            self.upgrades += b" /v1/ws?" in head
        refused = {"no-sse": b" /v1/sse", "no-websocket": b" /v1/ws"}.get(self.mode)
        if self.mode == "html" or (refused and refused in head):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-type: text/html\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>")
            await writer.drain()
            writer.close()
            return
        for node in self.nodes:
            with suppress(OSError):
                far = await asyncio.open_connection("127.0.0.1", node.port)
                self.writers |= {writer, far[1]}
                far[1].write(head)
                await asyncio.gather(self.copy(reader, far[1], "out"), self.copy(far[0], writer, "in"))
                return
        writer.close()

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if self.mode != "hang" and (self.mode, way) != ("deaf", "in"):
                    writer.write(data)
        writer.close()

    def cut(self) -> None:
        for writer in self.writers:
            writer.close()
        self.writers.clear()


@asynccontextmanager
async def proxy(nodes: list[Node]) -> AsyncIterator[tuple[Proxy, str]]:
    made = Proxy(nodes)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    try:
        yield made, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        made.cut()
        server.close()


async def until(what: str, probe: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not probe():
        assert time.monotonic() < end, f"never came true: {what}"
        await asyncio.sleep(0.01)


async def take(listener: AsyncIterator[T], count: int) -> list[T]:
    """So many of what an iterator gives."""

    async def all() -> list[T]:
        return [await anext(listener) for _ in range(count)]

    return await asyncio.wait_for(all(), PATIENCE)
