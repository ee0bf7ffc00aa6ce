"""Two nodes on one Redis, for each file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from world import Node, free_port, redis_server


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    with redis_server(tmp_path_factory.mktemp("redis")) as redis:
        started: list[Node] = []
        try:
            started += [Node(redis, free_port()) for _ in range(2)]
            yield started
        finally:
            for node in started:
                node.kill()
