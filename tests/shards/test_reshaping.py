"""A cluster gets another number of shards: every record is in one new shard, as it was, however often the job is killed
and whatever is written meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.support.shards.written_cluster import WrittenCluster
from vecdb.cli.cluster.servers import reshaping_of
from vecdb.cluster.placement import Placement
from vecdb.shards.holding import is_held
from vecdb.shards.reshaping import steps
from vecdb.shards.reshaping.job import ReshapeState
from vecdb.shards.reshaping.steps import ReshapeOptions, abandon, reshape_cluster
from vecdb.shards.reshaping.workers import InThisProcess


class Killed(Exception):
    pass


class Watched(InThisProcess):
    """Calls `before(number of the call, method)` before each call."""

    def __init__(self, before: Callable[[int, str], None]) -> None:
        self._before = before
        self.calls: list[str] = []

    def call(self, worker: Any, method: str, *args: Any, returns: int = 1) -> Any:
        self._before(len(self.calls), method)
        self.calls.append(method)
        return super().call(worker, method, *args, returns=returns)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[WrittenCluster]:
    made = WrittenCluster(tmp_path, 2)
    made.create()
    made.upsert(list(range(60)))
    made.upsert(list(range(20)), owner="ann")
    made.upsert(list(range(100, 110)), bare=True)
    made.upsert(list(range(200, 220)), tenants=["a", "b"])
    yield made
    made.close()


def options(tmp_path: Path) -> ReshapeOptions:
    return ReshapeOptions(str(tmp_path / "work"), drain_s=0.0, servers_s=0.0)


def write_some(cluster: WrittenCluster, number: int) -> None:
    """A few writes of every kind, other ones for other numbers."""
    first = 1_000 + 20 * number
    cluster.upsert([*range(first, first + 5), number % 60])
    cluster.upsert([first + 6], owner="ann")
    cluster.delete([first, (number + 7) % 60 + 500, (3 * number + 1) % 60])
    cluster.set_fields(first + 1, number)
    cluster.grant(first + 2, "c")


@pytest.mark.parametrize("shards", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_every_record_is_in_one_new_shard(cluster: WrittenCluster, tmp_path: Path, shards: int) -> None:
    cluster.open(0).set_alias("other", "docs")
    cluster.open(1).set_alias("other", "docs")
    for number in (0, 1):
        cluster.open(number)["docs"].create_tenant("idle", records_max=7)
    made = reshape_cluster(cluster.url, shards, InThisProcess(), options(tmp_path))
    assert made["shards"] == list(range(2, 2 + shards)) == list(cluster.placement.serving)
    assert made["records"] == len(cluster.records)
    assert cluster.found() == cluster.records
    cluster.give_up_writers()
    new = cluster.open(2)
    assert new.aliases() == {"other": "docs"} and new["docs"].stats(tenant="idle")["records_max"] == 7
    cluster.upsert([5_000, 5_001])
    cluster.close()
    assert cluster.found() == cluster.records
    assert ReshapeState.read(cluster.bucket) is None and not is_held(cluster.bucket, 0)


def test_what_is_written_between_any_two_steps_is_kept(cluster: WrittenCluster, tmp_path: Path) -> None:
    def before(number: int, method: str) -> None:
        assert set(cluster.placement.shards) == {0, 1} or is_held(cluster.bucket, 2)  # a server would claim it
        if not is_held(cluster.bucket, 0):
            write_some(cluster, number)
        elif method == "fence":
            cluster.give_up_writers()

    workers = Watched(before)
    reshape_cluster(cluster.url, 3, workers, options(tmp_path))
    assert {"page", "changes", "fence"} <= set(workers.calls) and len(cluster.records) > 150
    assert cluster.found() == cluster.records


def test_a_writer_that_does_not_keep_to_the_placement_is_refused(cluster: WrittenCluster, tmp_path: Path) -> None:
    stubborn = cluster.open(0)
    reshape_cluster(cluster.url, 3, InThisProcess(), options(tmp_path))
    before = dict(cluster.records)
    with pytest.raises(vecdb.VecdbError, match="another writer has taken over"):
        stubborn["docs"].upsert([9_999], [[0.0] * 8])
    assert cluster.found() == before


def kill_at(cluster: WrittenCluster, tmp_path: Path, at: int) -> bool:
    """Reshape to 3, killed before the call `at`; then old shards go on, then again. Returns whether it was killed."""

    def before(number: int, method: str) -> None:
        if number == at:
            raise Killed

    killed = False
    try:
        reshape_cluster(cluster.url, 3, Watched(before), options(tmp_path))
    except Killed:
        killed = True
    if killed and not is_held(cluster.bucket, 0):
        write_some(cluster, at)
    cluster.give_up_writers()
    reshape_cluster(cluster.url, 3, InThisProcess(), options(tmp_path))
    return killed


_FAST = (45,)


@pytest.mark.parametrize(
    "at", [one if one in _FAST else pytest.param(one, marks=pytest.mark.slow) for one in range(1, 62)]
)
def test_killed_at_a_step_it_goes_on(cluster: WrittenCluster, tmp_path: Path, at: int) -> None:
    assert kill_at(cluster, tmp_path, at)
    assert cluster.found() == cluster.records


def test_abandoned_the_old_shards_are_written_again(cluster: WrittenCluster, tmp_path: Path) -> None:
    Placement.change(cluster.bucket, lambda now: now.with_writer(0, "grpc://a:1").with_writer(1, "grpc://b:1"))

    def before(number: int, method: str) -> None:
        if method == "counts" and is_held(cluster.bucket, 0):
            raise Killed

    with pytest.raises(Killed):
        reshape_cluster(cluster.url, 3, Watched(before), options(tmp_path))
    assert cluster.placement.shards[0].writer is None and set(cluster.placement.shards) == {0, 1, 2, 3, 4}
    assert reshaping_of(cluster.url) == {"from": [0, 1], "to": [2, 3, 4], "step": "fenced"}
    with pytest.raises(vecdb.InvalidArgument, match="on its way to 3"):
        reshape_cluster(cluster.url, 4, InThisProcess(), options(tmp_path))
    cluster.close()
    abandon(cluster.url)
    assert [one.writer for one in cluster.placement.shards.values()] == ["grpc://a:1", "grpc://b:1"]
    assert not is_held(cluster.bucket, 0)
    write_some(cluster, 1)
    assert cluster.found() == cluster.records
    logs = {key.partition("/")[0] for key, _ in cluster.bucket.list()}
    assert not {one for one in logs if one.startswith("shard-")} - {"shard-0", "shard-1"}
    with pytest.raises(vecdb.NotFound):
        abandon(cluster.url)


def test_commits_that_a_log_lacks_keep_it_from_switching(
    cluster: WrittenCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the bucket was away while a writer stopped."""
    Placement.change(cluster.bucket, lambda now: now.with_writer(0, "grpc://a:1"))

    def steps_down(address: str, options: ReshapeOptions) -> int:
        return cluster.open(0).sequence() + 1

    def before(number: int, method: str) -> None:
        Placement.change(cluster.bucket, lambda now: now.with_copies(0, ("grpc://a:1",)))

    monkeypatch.setattr(steps, "sequence_at", steps_down)
    with pytest.raises(vecdb.Unavailable, match="the bucket was away when its writer stopped"):
        reshape_cluster(cluster.url, 3, Watched(before), options(tmp_path))
    assert cluster.placement.serving == (0, 1)
    abandon(cluster.url)
    write_some(cluster, 2)
    assert cluster.placement.shards[0].writer == "grpc://a:1" and cluster.found() == cluster.records


def test_a_vacuum_and_a_cleared_collection_are_caught_up_with(cluster: WrittenCluster, tmp_path: Path) -> None:
    done: list[str] = []

    def before(number: int, method: str) -> None:
        if method == "changes" and not done:
            done.append(method)
            cluster.delete(list(range(40)))
            for shard in (0, 1):
                cluster.open(shard)["docs"].vacuum()
            write_some(cluster, 4)
            cluster.open(0).create_collection("late", 4, "l2").upsert([1, 2], [[1.0] * 4, [2.0] * 4])
            cluster.open(1).create_collection("late", 4, "l2")
        if method == "fence":
            cluster.give_up_writers()

    reshape_cluster(cluster.url, 3, Watched(before), options(tmp_path))
    assert done and cluster.found() == cluster.records
    late = [cluster.open(number)["late"].count() for number in cluster.placement.serving]
    assert sum(late) == 2


def test_the_same_number_is_refused(cluster: WrittenCluster, tmp_path: Path) -> None:
    with pytest.raises(vecdb.InvalidArgument, match="has 2 shards already"):
        reshape_cluster(cluster.url, 2, InThisProcess(), options(tmp_path))
    assert ReshapeState.read(cluster.bucket) is None
