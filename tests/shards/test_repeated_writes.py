"""A write that is repeated under its request id after the cluster got other shards is done once, or refused, and never
twice. Oracle: what the records hold, the first answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.cluster.in_process import InProcessCluster
from tests.support.shards.written_cluster import WrittenCluster
from vecdb import limits, validate
from vecdb.cluster.placement import Placement
from vecdb.cluster.slots import slots_of
from vecdb.shards.reshaping.steps import ReshapeOptions, reshape_cluster
from vecdb.shards.reshaping.workers import InThisProcess

ONE, TWO = np.ones((1, 8), np.float32), np.full((1, 8), 2, np.float32)
REFUSED = "before the cluster got other shards, and this one was not carried out"


class Killed(Exception):
    pass


class KilledAt(InThisProcess):
    """A job that dies at the nth call of a method."""

    def __init__(self, method: str, nth: int) -> None:
        self._method, self._left = method, nth

    def call(self, worker: Any, method: str, *args: Any, returns: int = 1) -> Any:
        if method == self._method:
            if not self._left:
                raise Killed
            self._left -= 1
        return super().call(worker, method, *args, returns=returns)


def options(tmp_path: Path) -> ReshapeOptions:
    return ReshapeOptions(str(tmp_path / "work"), drain_s=0.0, servers_s=0.0)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[WrittenCluster]:
    made = WrittenCluster(tmp_path, 2)
    made.create()
    made.upsert(list(range(60)))
    yield made
    made.close()


def ids_of(placement: Placement, shard: int, count: int) -> list[int]:
    """Ids of records of a shard, from 1,000 on."""
    ids = np.arange(1_000, 2_000)
    return [int(one) for one in ids[placement.shards_of(slots_of(validate.ids(ids))) == shard][:count]]


def at(cluster: WrittenCluster, id: int) -> Any:
    """The collection of the shard that has a record."""
    (number,) = cluster.placement.shards_of(slots_of(validate.ids([id]))).tolist()
    return cluster.open(number)["docs"]


def reshape(cluster: WrittenCluster, tmp_path: Path, shards: int) -> None:
    cluster.close()
    reshape_cluster(cluster.url, shards, InThisProcess(), options(tmp_path))


WRITES: dict[str, Callable[[Any, int, str], Any]] = {
    "put": lambda docs, id, name: docs.upsert([id], ONE, request_id=name),
    "update": lambda docs, id, name: docs.update(id, ONE[0], request_id=name),
    "delete": lambda docs, id, name: docs.delete([id, 77_777], request_id=name),
    "grant": lambda docs, id, name: docs.grant([id], "t", request_id=name),
}


def test_what_names_its_records_is_answered_as_before(cluster: WrittenCluster, tmp_path: Path) -> None:
    ids = dict(zip(WRITES, [*ids_of(cluster.placement, 0, 2), *ids_of(cluster.placement, 1, 2)], strict=True))
    for id in ids.values():
        at(cluster, id).upsert([id], TWO)
    first = {name: write(at(cluster, ids[name]), ids[name], name) for name, write in WRITES.items()}
    assert first == {"put": 1, "update": 1, "delete": 1, "grant": 1}
    for shards in (3, 2):  # an answer goes on to the shards behind those as well
        reshape(cluster, tmp_path, shards)
        for name, write in WRITES.items():
            docs = at(cluster, ids[name])
            docs.upsert([ids[name]], TWO, [{"later": shards}], tenants=[[]])
            assert write(docs, ids[name], name) == first[name]
            found = docs.get(ids[name], include_vectors=True)
            assert (
                found.fields == {"later": shards} and found.tenants == [] and found.vector.tolist() == TWO[0].tolist()
            )
            with pytest.raises(vecdb.InvalidArgument, match=REFUSED):
                docs.upsert([ids[name]], ONE * 3, request_id=name)
        assert all(cluster.open(number).check() == [] for number in cluster.placement.serving)


def test_what_was_done_in_parts_is_refused_whole(cluster: WrittenCluster, tmp_path: Path) -> None:
    ids = [ids_of(cluster.placement, shard, 40) for shard in (0, 1)]
    for shard in (0, 1):
        docs = cluster.open(shard)["docs"]
        docs.upsert(ids[shard], np.repeat(TWO, 40, 0), [{"n": 5_000}] * 40, request_id="whole")
        docs.delete(filter="n = 7777", request_id="matching")
    cluster.open(1)["docs"].upsert(ids[1], np.repeat(TWO, 40, 0), request_id="half")
    reshape(cluster, tmp_path, 3)
    before = sum(cluster.open(number).stats()["sequence"] for number in cluster.placement.serving)
    for number in cluster.placement.serving:
        docs, some = cluster.open(number)["docs"], ids_of(cluster.placement, number, 5)
        for name in ("whole", "half"):
            with pytest.raises(vecdb.InvalidArgument, match=REFUSED):
                docs.upsert(some, np.repeat(ONE, 5, 0), request_id=name)
        with pytest.raises(vecdb.InvalidArgument, match=REFUSED):
            docs.delete(filter="n = 7777", request_id="matching")
        with pytest.raises(vecdb.InvalidArgument, match=REFUSED):
            docs.create_tenant("x", request_id="matching")
    assert before == sum(cluster.open(number).stats()["sequence"] for number in cluster.placement.serving)
    docs, some = cluster.open(2)["docs"], ids_of(cluster.placement, 2, 5)
    assert docs.upsert(some, np.repeat(ONE, 5, 0), request_id="another") == 5


@pytest.mark.parametrize("nth", [0, 1, 2])
def test_answers_are_given_on_by_a_job_that_goes_on(cluster: WrittenCluster, tmp_path: Path, nth: int) -> None:
    (id,) = ids_of(cluster.placement, 0, 1)
    at(cluster, id).upsert([id], ONE, request_id="once")
    cluster.close()
    with pytest.raises(Killed):
        reshape_cluster(cluster.url, 3, KilledAt("carry", nth), options(tmp_path))
    reshape_cluster(cluster.url, 3, InThisProcess(), options(tmp_path))
    at(cluster, id).upsert([id], TWO)
    assert at(cluster, id).upsert([id], ONE, request_id="once") == 1
    assert at(cluster, id).get(id, include_vectors=True).vector.tolist() == TWO[0].tolist()
    assert all(cluster.open(number).check() == [] for number in cluster.placement.serving)


def test_the_newest_are_given_on_and_go_first(
    cluster: WrittenCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "requests_max", 4)
    ids = [ids_of(cluster.placement, shard, 3) for shard in (0, 1)]
    for n in range(3):
        for shard in (0, 1):
            cluster.open(shard)["docs"].upsert([ids[shard][n]], ONE, request_id=f"{shard}-{n}")
    reshape(cluster, tmp_path, 3)
    docs = cluster.open(2)["docs"]
    assert cluster.open(2).check() == []
    free = ids_of(cluster.placement, 2, 9)
    for n in range(4):
        docs.upsert([free[n]], ONE, request_id=f"new-{n}")
        assert docs.upsert([free[n]], ONE, request_id=f"new-{n}") == 1 and cluster.open(2).check() == []
    assert docs.upsert([free[8]], ONE, request_id="0-0") == 1  # forgotten by now, as by every collection


def test_a_client_that_repeats_its_call_is_answered_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    cluster = InProcessCluster(tmp_path, 2, logged=True)
    try:
        with cluster.open() as db:
            docs = db.create_collection("docs", 8, "l2")
            assert docs.upsert(range(40), np.repeat(ONE, 40, 0), request_id="many") == 40
            assert docs.upsert([7], ONE, request_id="one") == 1
            owned = docs.upsert(range(5), np.repeat(ONE, 5, 0), owner="ann", request_id="of ann")
            made = docs.add(np.repeat(ONE, 3, 0), request_id="new")
            for name in ("shard-0", "shard-1"):
                cluster.stop(name)
            reshape_cluster(cluster.url, 3, InThisProcess(), options(tmp_path))
            for number, shard in Placement.read(cluster.bucket).shards.items():
                log = f"file://{tmp_path}/bucket/{shard.log}"
                vecdb.open(tmp_path / f"copy-{number}", follow=log, staleness_s=None).close()
                vecdb.promote(tmp_path / f"copy-{number}", log)
                address = f"grpc://{cluster.start(f'copy-{number}', log=log, durability='full').address}"
                cluster.place(lambda now, number=number, address=address: now.with_writer(number, address))
            db._backend._shards.members.refresh()  # type: ignore[attr-defined]
            docs.upsert([7], TWO)
            assert docs.upsert([7], ONE, request_id="one") == 1
            assert docs.upsert(range(5), np.repeat(ONE, 5, 0), owner="ann", request_id="of ann") == owned == 5
            for call in (
                lambda: docs.upsert(range(40), np.repeat(ONE, 40, 0), request_id="many"),
                lambda: docs.add(np.repeat(ONE, 3, 0), request_id="new"),
            ):
                with pytest.raises(vecdb.InvalidArgument, match=REFUSED):
                    call()
            assert docs.get(7, include_vectors=True).vector.tolist() == TWO[0].tolist()
            assert docs.count() == 40 + 5 + len(made) and db.check() == []
            assert docs.upsert(range(40), np.repeat(ONE, 40, 0), request_id="again") == 40
    finally:
        cluster.close()
