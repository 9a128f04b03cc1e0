"""Servers of a cluster that fail, are late, lag behind or are replaced: searches are answered, whole or with a word of
what is missing, and writes find the writer.
"""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.cluster.in_process import InProcessCluster
from tests.support.replication.copies import follower_of, lapse
from vecdb import limits
from vecdb.cluster.placement import Placement, Shard

VECTORS = np.random.default_rng(3).normal(size=(60, 4)).astype(np.float32)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., InProcessCluster]]:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    made: list[InProcessCluster] = []

    def of(shards: int, **settings: Any) -> InProcessCluster:
        made.append(InProcessCluster(tmp_path / f"cluster-{len(made)}", shards, **settings))
        return made[-1]

    yield of
    for one in made:
        one.close()


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"grpc://127.0.0.1:{listening.getsockname()[1]}"


def filled(db: Any) -> Any:
    docs = db.create_collection("docs", 4, "l2")
    docs.upsert(range(60), VECTORS, [{"n": n} for n in range(60)], tenants={"t"})
    return docs


def nearest(query: np.ndarray, among: Any = range(60), limit: int = 5) -> list[int]:
    some = np.array(list(among))
    return [int(one) for one in some[((VECTORS[some] - query) ** 2).sum(1).argsort(kind="stable")[:limit]]]


def shard_of(cluster: InProcessCluster, id_: int) -> int:
    from vecdb import validate
    from vecdb.cluster.slots import slots_of

    return Placement.read(cluster.bucket).shard_of(int(slots_of(validate.ids([id_]))[0]))


def test_a_copy_answers_where_its_writer_is_gone(start: Callable[..., InProcessCluster]) -> None:
    cluster = start(2, logged=True)
    with cluster.open() as db:
        docs = filled(db)
        for shard in (0, 1):
            cluster.add_copy(shard, f"copy-{shard}", staleness_s=60.0)
        db._backend._shards.members.refresh()
        db.wait_for(db.sequence())
        cluster.stop("shard-1")
        for at in range(20):
            assert docs.search(VECTORS[at], 5).ids.tolist() == nearest(VECTORS[at])
        assert docs.count() == 60 and docs.get(range(60))[7].fields == {"n": 7}
        assert [one.id for page in docs.iter(7, order_by="n") for one in page] == list(range(60))
        assert docs.facets("n", limit=60) == dict.fromkeys(range(60), 1)
        with vecdb.open(cluster.url) as again:
            assert again.collection("docs").count(tenant="t") == 60
        with pytest.raises(vecdb.Unavailable, match="cannot be reached"):
            docs.with_timeout(0.5).upsert(range(60), VECTORS)


def test_a_copy_answers_where_its_writer_may_have_been_replaced(start: Callable[..., InProcessCluster]) -> None:
    cluster = start(2, logged=True, lease=True, staleness_s=60.0)
    with cluster.open() as db:
        docs = filled(db)
        for shard in (0, 1):
            cluster.add_copy(shard, f"copy-{shard}")
        db._backend._shards.members.refresh()
        db.wait_for(db.sequence())
        lapse(cluster.running["shard-1"].server.context.db)
        for at in range(20):
            assert docs.search(VECTORS[at], 5).ids.tolist() == nearest(VECTORS[at])
            assert [hits.ids.tolist() for hits in docs.search_stream(VECTORS[at][None], limit=2)] == [
                nearest(VECTORS[at], limit=2)
            ]
        assert docs.count() == 60 and docs.get(range(60))[7].fields == {"n": 7}
        assert [one.id for page in docs.iter(7, order_by="n") for one in page] == list(range(60))
        assert docs.facets("n", limit=60) == dict.fromkeys(range(60), 1)
        assert docs.count(tenant="t") == 60 and db.collections() == ["docs"]
        assert docs.upsert(range(60), VECTORS) == 60  # a write needs none
        db.wait_for(db.sequence())
        cluster.stop("copy-1")
        lapse(cluster.running["shard-1"].server.context.db)
        with pytest.raises(vecdb.Unavailable, match=r"shard 1 .*does not answer from the past"):
            docs.search(VECTORS[0])


def test_a_copy_that_is_alone_and_late_to_look_at_its_log_is_asked_again(
    start: Callable[..., InProcessCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "cluster_stale_poll_s", 0.002)
    monkeypatch.setattr(limits, "cluster_stale_s", 60.0)
    cluster = start(1, logged=True)
    with cluster.open() as db:
        docs = filled(db)
        copy = follower_of(cluster.add_copy(0, "copy", staleness_s=60.0).server.context.db)
        db._backend._shards.members.refresh()
        db.wait_for(db.sequence())
        cluster.stop("shard-0")
        refused, is_fresh = [], copy._is_fresh
        monkeypatch.setattr(copy, "_is_fresh", lambda: (len(refused) > 2 and is_fresh()) or refused.append(1))
        assert docs.search(VECTORS[5], 5).ids.tolist() == nearest(VECTORS[5]) and len(refused) == 3
        monkeypatch.setattr(limits, "cluster_stale_s", 0.0)
        refused.clear()
        with pytest.raises(vecdb.Unavailable, match=r"shard 0 .*does not answer from the past"):
            docs.search(VECTORS[0])


def test_a_shard_without_servers_is_named_or_missing(start: Callable[..., InProcessCluster]) -> None:
    cluster = start(3)
    with cluster.open() as db, cluster.open(allow_partial=True) as partial:
        docs, some = filled(db), partial.collection("docs")
        assert some.search(VECTORS[0], 5).missing == ()
        cluster.stop("shard-1")
        left = [one for one in range(60) if shard_of(cluster, one) != 1]
        for call in (
            lambda: docs.search(VECTORS[0]), lambda: list(docs.search_stream(VECTORS[:2])), docs.count,
            lambda: docs.search_mixture(left[:2]), lambda: docs.facets("n"), lambda: list(docs.iter()),
            lambda: some.count(), lambda: list(some.iter(order_by="n")), lambda: docs.get(filter="true"),
        ):  # fmt: skip
            with pytest.raises(vecdb.Unavailable, match=r"shard 1 of cluster://.* has no server that answers: grpc://"):
                call()
        hits = some.search(VECTORS[:4], 5, fields=["n"])
        assert hits.missing == hits[0].missing == hits[1:].missing == (1,) and set(hits.sequence) == {0, 2}
        assert hits.ids.tolist() == [nearest(query, left) for query in VECTORS[:4]]
        assert [one.missing for one in some.search_stream(VECTORS[:3])] == [(1,)] * 3
        assert docs.get(left[0]) is not None, "whose shard is there"
        with cluster.open(allow_partial=True) as other:
            assert other.collection("docs").search(VECTORS[0], 3).missing == (1,)
        with pytest.raises(vecdb.Unavailable, match="shard 1"):
            cluster.open().close()
        cluster.stop("shard-0")
        with pytest.raises(vecdb.Unavailable, match=r"shard 0 .*shard 1 "):
            docs.search(VECTORS[0])
        cluster.stop("shard-2")
        with pytest.raises(vecdb.Unavailable, match=r"shard 0 .*shard 1 .*shard 2"):
            some.search(VECTORS[0])


def test_a_server_that_is_late_is_not_waited_for(
    start: Callable[..., InProcessCluster], mute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "cluster_hedge_s", 0.01)
    cluster = start(2)
    with cluster.open() as db:
        docs = filled(db)
    cluster.place(lambda one: one.with_copies(0, (mute,)).with_copies(1, (mute,)))
    with cluster.open(timeout=4.0) as db:  # it takes longer until there is no connection
        docs = db.collection("docs")
        for at in range(10):
            assert docs.search(VECTORS[at], 5).ids.tolist() == nearest(VECTORS[at])
        assert docs.get(list(range(60)))[59].id == 59


def test_reads_of_who_wrote_find_it_though_copies_lag(start: Callable[..., InProcessCluster]) -> None:
    cluster = start(1, logged=True)
    with cluster.open() as db:
        docs = db.create_collection("docs", 4, "l2")
        cluster.add_copy(0, "copy", staleness_s=60.0)
        db._backend._shards.members.refresh()
        for at in range(60):
            docs.upsert(at, VECTORS[at])
            assert docs.get(at) is not None and docs.count() == at + 1
            assert docs.search(VECTORS[at], 1).ids.tolist() == [at]
        db.wait_for(db.sequence())
        assert docs.search(VECTORS[0], 60).ids.tolist() == nearest(VECTORS[0], limit=60)


def test_what_was_revoked_no_copy_shows(start: Callable[..., InProcessCluster]) -> None:
    cluster = start(2, logged=True)
    with cluster.open() as db, cluster.open() as other:
        docs = filled(db)
        for shard in (0, 1):
            cluster.add_copy(shard, f"copy-{shard}", staleness_s=60.0)
        for one in (db, other):
            one._backend._shards.members.refresh()
        db.wait_for(db.sequence())
        seen = other.collection("docs")
        for at in range(0, 60, 6):
            docs.revoke([at, at + 1], "t")
            found = [seen.search(VECTORS[at], 60, tenant="t").ids.tolist() for _ in range(2)]  # of writer and copy
            assert not any({at, at + 1} & set(one) for one in found)


def test_the_writer_is_found_where_it_was_promoted(start: Callable[..., InProcessCluster]) -> None:
    cluster = start(2, logged=True)
    with cluster.open() as db:
        docs = filled(db)
        cluster.add_copy(1, "copy", staleness_s=60.0)
        db._backend._shards.members.refresh()
        db.wait_for(db.sequence())
        cluster.stop("shard-1")
        done: list[int] = []
        writing = threading.Thread(target=lambda: done.append(docs.upsert(range(100, 160), VECTORS, request_id="once")))
        writing.start()
        cluster.stop("copy")
        vecdb.promote(cluster.folder / "copy", cluster.log_of(1))
        server = cluster.start("copy", log=cluster.log_of(1), durability="full")
        cluster.place(lambda one: one.with_writer(1, f"grpc://{server.address}"))
        writing.join(60)
        assert done == [60] and docs.count() == 120
        assert docs.upsert(range(100, 160), VECTORS, request_id="once") == 60
        assert docs.search(VECTORS[7], 2).ids.tolist() in ([7, 107], [107, 7])
        assert db.check() == []


def move(cluster: InProcessCluster, reshaped: InProcessCluster) -> None:
    """What a reshaping does: other shards have the records, and those of before are gone."""

    def moved(one: Placement) -> Placement:
        there = Placement.read(reshaped.bucket)
        for number, shard in there.shards.items():
            one = one.with_shard(10 + number, Shard(f"new-{number}", shard.writer))
        one = one.with_slots(there.table + 10)
        return replace(one, shards={number: shard for number, shard in one.shards.items() if number >= 10})

    cluster.place(moved)
    cluster.stop("shard-0"), cluster.stop("shard-1")


def test_slots_move_to_other_shards_while_a_cluster_is_used(start: Callable[..., InProcessCluster]) -> None:
    cluster, reshaped = start(2), start(3)
    with cluster.open() as db, cluster.open(allow_partial=True) as partial, reshaped.open() as other:
        docs, some = filled(db), partial.collection("docs")
        filled(other)
        move(cluster, reshaped)
        assert docs.search(VECTORS[5], 5).ids.tolist() == nearest(VECTORS[5])
        assert docs.get(list(range(60)))[33].fields == {"n": 33} and docs.count() == 60
        hits = some.search(VECTORS[5], 5)
        assert hits.missing == () and hits.ids.tolist() == nearest(VECTORS[5]) and set(hits.sequence) == {10, 11, 12}
        assert docs.upsert(range(60, 80), VECTORS[:20]) == 20 and other.collection("docs").count() == 80


READS: dict[str, Callable[[Any, Any], Any]] = {
    "search": lambda db, docs: docs.search(VECTORS[:3], 5).ids.tolist(),
    "stream": lambda db, docs: [hits.ids.tolist() for hits in docs.search_stream(iter(VECTORS[:3]), limit=5)],
    "get": lambda db, docs: docs.get([1, 2])[1].fields,
    "get matching": lambda db, docs: sorted(one.id for one in docs.get(filter="n < 5")),
    "iter": lambda db, docs: sorted(one.id for page in docs.iter(7) for one in page),
    "iter by": lambda db, docs: [one.id for page in docs.iter(7, order_by="n") for one in page],
    "count": lambda db, docs: docs.count(tenant="t"),
    "tenants": lambda db, docs: list(docs.tenants()),
    "stats": lambda db, docs: docs.stats()["live"],
    "tenant": lambda db, docs: docs.stats(tenant="t")["records"],
    "facets": lambda db, docs: len(docs.facets("n", limit=60)),
    "collections": lambda db, docs: db.collections(),
    "collection": lambda db, docs: db.collection("docs").dim,
    "all": lambda db, docs: db.stats()["collections"],
    "sequence": lambda db, docs: len(db.sequence()),
}


def test_whoever_has_not_heard_that_slots_have_moved_is_answered_by_the_new_shards(
    start: Callable[..., InProcessCluster],
) -> None:
    """Each read is the first of its client since then: it knows the old servers alone, which are gone."""
    cluster, reshaped = start(2), start(3)
    with cluster.open() as db, reshaped.open() as other, ExitStack() as opened:
        filled(db)
        docs = filled(other)
        late = {name: opened.enter_context(cluster.open()) for name in READS}
        theirs = {name: one.collection("docs") for name, one in late.items()}
        move(cluster, reshaped)
        assert docs.stats()["live"] == 60
        for name, read in READS.items():
            found, true = read(late[name], theirs[name]), read(other, docs)
            assert found == true and found, name


def test_a_write_that_was_split_by_older_slots_is_not_sent(start: Callable[..., InProcessCluster]) -> None:
    cluster = start(2)
    with cluster.open() as db:
        docs = filled(db)
        cluster.stop("shard-0"), cluster.stop("shard-1")
        failed: list[Any] = []

        def write() -> None:
            try:
                docs.upsert(range(60), VECTORS)
            except vecdb.Unavailable as error:
                failed.append(str(error))

        writing = threading.Thread(target=write)
        writing.start()
        cluster.place(lambda one: one.with_slots(1 - one.table))
        writing.join(60)
        assert len(failed) == 1 and "given to other shards" in failed[0]


def test_a_placement_is_read_again_while_it_is_used(
    start: Callable[..., InProcessCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vecdb.cluster.asking.members._REFRESH_S", 0.0)
    cluster = start(1)
    with cluster.open() as db:
        docs = filled(db)
        changed = cluster.place(lambda one: one.with_copies(0, ("grpc://127.0.0.1:9",)))
        ends = time.monotonic() + 60
        while db.stats()["placement_epoch"] != changed.epoch:
            assert time.monotonic() < ends
        assert docs.count() == 60
        cluster.bucket.put("placement.json", b"damaged")
        for _ in range(5):
            assert docs.count() == 60, "what was read last holds"


def test_a_cluster_that_is_forgotten_leaves_nothing_behind(start: Callable[..., InProcessCluster]) -> None:
    cluster = start(2)
    before = set(threading.enumerate())
    db = cluster.open()
    docs = filled(db)
    assert docs.search(VECTORS[0], 1).ids.tolist() == [0]
    gone = [weakref.ref(one) for one in db._backend._shards.members._servers.values()]
    del db, docs
    gc.collect()
    assert len(gone) == 2 and [one() for one in gone] == [None, None]
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), thread


def test_what_is_no_cluster_is_refused(tmp_path: Path, start: Callable[..., InProcessCluster]) -> None:
    with pytest.raises(vecdb.NotFound, match=r"no placement\.json"):
        vecdb.open(f"cluster://{tmp_path}/nothing")
    with pytest.raises(vecdb.InvalidArgument, match="cluster://s3"):
        vecdb.open("cluster://http/a/b")
    for options in ({"read_only": True}, {"log": "file:///a"}, {"durability": "relaxed"}):
        with pytest.raises(vecdb.InvalidArgument, match="no option"):
            vecdb.open(f"cluster://{tmp_path}/nothing", **options)
    for path in ("grpc://localhost:1", str(tmp_path / "db")):
        with pytest.raises(vecdb.InvalidArgument, match="allow_partial is no option"):
            vecdb.open(path, allow_partial=True)
    cluster = start(1)
    with cluster.open() as db:
        for wrong in (3, {"0": 1}, {0: -1}, {7: 1}, None):
            with pytest.raises(vecdb.InvalidArgument):
                db.wait_for(wrong)
    with pytest.raises(vecdb.InvalidArgument, match="sequence"), vecdb.open(tmp_path / "db") as local:
        local.wait_for({0: 1})
