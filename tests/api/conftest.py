"""The same database five ways: on disk, in memory, asynchronously, over gRPC, and over gRPC asynchronously; and spread
over the shards of a cluster, 1, 2 and 5.

With clusters the suite is slow, but for a part of it with two shards; what cannot hold for a cluster, and why, is
listed in tests/support/cluster/api_suite.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.support.cluster.api_suite import mark_cluster_test
from tests.support.cluster.in_process import InProcessCluster
from tests.support.server.awaiting import Loop, Waiting
from tests.support.server.driver import Running
from vecdb.embedded.open import open_database
from vecdb_server.config import Config

WAYS = ("disk", "memory", "threads", "grpc", "aio")
CLUSTERS = {"cluster-1": 1, "cluster-2": 2, "cluster-5": 5}  # way: shards


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        way = getattr(getattr(item, "callspec", None), "params", {}).get("way")
        if way in CLUSTERS:
            mark_cluster_test(item, CLUSTERS[way])


@pytest.fixture(scope="session")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], InProcessCluster]]:
    """clusters(way): the servers of a way, started when they are wanted first."""
    made: dict[str, InProcessCluster] = {}

    def of(way: str) -> InProcessCluster:
        if way not in made:
            made[way] = InProcessCluster(tmp_path_factory.mktemp(way), CLUSTERS[way])
        return made[way]

    yield of
    for one in made.values():
        one.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    config = Config(
        path=str(folder / "db"),
        listen="127.0.0.1:0",
        backups=str(folder / "backups"),
        durability="relaxed",
        grace_s=5.0,
    )
    running = Running(config)
    yield running
    running.close()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture(params=[*WAYS, *CLUSTERS])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opening(way: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], Any]:
    """opening() opens the database of this test; a server's is the same each time."""
    if way == "disk":
        return lambda: open_database(tmp_path / "db", durability="relaxed")
    if way == "memory":
        return lambda: open_database(":memory:")
    if way == "threads":
        threads: Loop = request.getfixturevalue("loop")
        return lambda: Waiting(threads.run(vecdb.aio.open(tmp_path / "db", durability="relaxed")), threads)
    if way in CLUSTERS:
        return request.getfixturevalue("clusters")(way).open
    url = f"grpc://{request.getfixturevalue('server').address}"
    if way == "grpc":
        return lambda: vecdb.open(url)
    loop: Loop = request.getfixturevalue("loop")
    return lambda: Waiting(loop.run(vecdb.aio.open(url)), loop)


@pytest.fixture
def db(opening: Callable[[], Any]) -> Iterator[Any]:
    """Empty."""
    opened = opening()
    for name in opened.collections():
        opened.drop_collection(name)
    yield opened
    opened.close()


@pytest.fixture
def twin() -> Iterator[Any]:
    """An embedded database, to compare with."""
    with open_database(":memory:", maintenance=False) as opened:
        yield opened
