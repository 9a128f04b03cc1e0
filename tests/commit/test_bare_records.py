"""Goal: what is stored of a record without a vector holds: the format that older code refuses, changes within one
commit, every kind of index, processes that read along, and statistics of the data, which never see it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import F, limits
from vecdb.commit.record_requests import DeleteRecords, UpsertRecords
from vecdb.embedded.open import open_database
from vecdb.index.common import sampling, sq8_training
from vecdb.kernels.primitives.distance import METRIC_CODES
from vecdb.storage.disk import manifest
from vecdb.storage.kv import record_format
from vecdb.validate import ids

DIM = 6
INDEXES = {
    "flat": vecdb.Flat(), "hnsw": vecdb.Hnsw(m=4, ef_construction=32), "spann": vecdb.Spann(),
    "spann-disk": vecdb.Spann(memory_budget_bytes=0), "curator": vecdb.Curator(leaf_rows=8),
}  # fmt: skip
RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(600, DIM)).astype(np.float32) + 3


def format_of(path: Path) -> int:
    return int(json.loads((path / manifest.NAME).read_text())["format_version"])


def near(docs: Any, **options: Any) -> set[int]:
    return set(docs.search(VECTORS[0], 1_000, **options).ids.tolist())


def test_the_first_such_record_raises_the_format(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with open_database(path, maintenance=False) as db:
        docs = db.create_collection("docs", DIM)
        docs.upsert([1], VECTORS[:1])
        assert format_of(path) == manifest.FORMAT_VERSION
        docs.upsert([2], None, [{"n": 1}])
        assert format_of(path) == manifest.BARE_RECORDS
        db.backup(tmp_path / "copy")
    vecdb.restore(tmp_path / "copy", tmp_path / "restored")
    for place in (path, tmp_path / "restored"):
        assert format_of(place) == manifest.BARE_RECORDS
        for read_only in (True, False):
            with open_database(place, read_only=read_only, maintenance=False) as db:
                docs = db.collection("docs")
                assert near(docs) == {1} and docs.count() == 2 and db.check() == []
                assert docs.get(2, include_vectors=True).vector is None


def test_a_block_says_which_records_have_none() -> None:
    bare = np.array([False, True, True, False, False, False, False, False, True])
    crcs, lengths = np.arange(9, dtype=np.uint32), np.full(9, 8)
    blob, metas = np.arange(9, dtype="<i8").tobytes(), [b"\x80"] * 9
    raw = record_format.encode_block(5, 7, crcs, lengths, blob, metas, int_ids=True, bare=bare)
    found = record_format.decode_block(raw, 5, "here")
    assert found.bare is not None and np.array_equal(found.bare, bare) and bytes(found.metas) == b"\x80" * 9
    assert record_format.metas_of([(5, raw)] * 9, range(5, 14), "here") == metas
    without = record_format.encode_block(5, 7, crcs, lengths, blob, metas, int_ids=True, bare=np.zeros(9, bool))
    assert without == record_format.encode_block(5, 7, crcs, lengths, blob, metas, int_ids=True)
    assert record_format.decode_block(without, 5, "here").bare is None
    damaged = bytearray(raw)
    damaged[-1] ^= 1
    with pytest.raises(vecdb.Corruption, match="crc"):
        record_format.decode_block(bytes(damaged), 5, "here")


def test_changes_of_one_commit(tmp_path: Path) -> None:
    """A record that comes, loses its vector, gets another and goes, all in one group."""
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", DIM)
        docs.upsert([1, 2], [VECTORS[0], None], [{}, {}])
        state = docs._backend.state
        committer = docs._backend.writes._committer
        nothing, bare = np.empty((0, DIM), np.float32), np.ones(1, bool)

        def put(id_: int, vector: Any = None) -> UpsertRecords:
            some = nothing if vector is None else vector[None]
            return UpsertRecords(state, b"", ids([id_]), some, None, "upsert", None, bare if vector is None else None)

        gate, begun = threading.Event(), threading.Event()

        @dataclass
        class Holding:
            """Keeps the commit thread busy, so that what is queued meanwhile is one group."""

            size_bytes: int = 0
            exclusive: bool = True

            def apply(self, group: Any) -> None:
                begun.set()
                assert gate.wait(60)

        requests = [
            put(3),
            put(3, VECTORS[3]),
            put(4, VECTORS[4]),
            put(4),
            put(5),
            DeleteRecords(state, b"", ids([5, 2])),
        ]
        threads = [threading.Thread(target=committer.submit, args=(Holding(),))]
        threads[0].start()
        assert begun.wait(60)
        for at, request in enumerate(requests, 1):
            threads.append(threading.Thread(target=committer.submit, args=(request,)))
            threads[-1].start()
            while len(committer._queue) < at:
                os.sched_yield()
        before = docs.stats()["sequence"]
        gate.set()
        for thread in threads:
            thread.join(60)
        assert docs.stats()["sequence"] == before + 1, "one commit"
        assert near(docs) == {1, 3} and docs.count() == 3 and docs.stats()["without_vector"] == 1
        assert db.check() == []


@pytest.mark.parametrize("kind", INDEXES)
def test_every_kind_of_index_passes_over_them(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 64)
    monkeypatch.setattr(limits, "index_step_rows", 32)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", DIM, "l2", INDEXES[kind])
        some = [vector if at % 3 else None for at, vector in enumerate(VECTORS)]
        docs.upsert(range(600), some, [{"n": at % 5} for at in range(600)])
        expected = {at for at in range(600) if at % 3}
        for _ in range(2):
            assert near(docs) == expected and near(docs, filter=F.n == 2) == {at for at in expected if at % 5 == 2}
            assert docs.search(VECTORS[1], 5, filter=F.n == 1).ids[0] == 1
            docs.optimize()
            assert db.check() == []
        docs.upsert(range(0, 90, 3), VECTORS[0:90:3], [{"n": 9}] * 30)
        docs.upsert(range(1, 90, 3), None, [{"n": 9}] * 30)
        expected = (expected | set(range(0, 90, 3))) - set(range(1, 90, 3))
        assert near(docs) == expected and len(near(docs, filter=F.n == 9)) == 30
        docs.optimize()
        assert near(docs) == expected and docs.stats()["deleted"] == 60
        docs.vacuum()
        assert near(docs) == expected and docs.count() == 600 and docs.stats()["deleted"] == 0 and db.check() == []
        docs.delete(filter=F.n == 9)
        assert near(docs) == expected - set(range(0, 90, 3)) and docs.count() == 540
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.collection("docs")
        assert near(docs) == expected - set(range(0, 90, 3)) and db.check() == []
        assert docs.stats()["without_vector"] == docs.count() - len(near(docs))


@pytest.mark.parametrize("kind", INDEXES)
def test_a_collection_of_them_alone_finds_nothing(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 64)
    for metric in ("cosine", "ip"):
        with open_database(":memory:", maintenance=False) as db:
            docs = db.create_collection("docs", DIM, metric, INDEXES[kind])
            docs.upsert(range(300), None, [{"n": at} for at in range(300)], tenants="a")
            docs.optimize()
            for options in ({}, {"filter": F.n < 9}, {"tenant": "a"}, {"params": {"exact": True}}):
                assert docs.search(VECTORS[0], 10, **options).ids.tolist() == []
            assert docs.evaluate(VECTORS[:2], 5)["recall"] is None and docs.count(tenant="a") == 300
            docs.upsert([7], VECTORS[7:8])
            docs.optimize()
            assert docs.search(VECTORS[0], 10).ids.tolist() == [7] and db.check() == []
            docs.vacuum()
            assert docs.search(VECTORS[0], 10, tenant="a").ids.tolist() == [7] and db.check() == []


@pytest.mark.parametrize("kind", ["hnsw", "curator"])
def test_statistics_of_the_data_do_not_see_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What codes and trees are made from is the same, however many records without a vector lie between."""
    monkeypatch.setattr(limits, "flat_rows_max", 64)
    found = []
    for share in (0, 3):
        with open_database(":memory:", maintenance=False) as db:
            docs = db.create_collection("docs", DIM, "l2", INDEXES[kind])
            for at in range(0, 600, 60):
                docs.upsert(range(at, at + 60), VECTORS[at : at + 60])
                if share:
                    docs.upsert(range(10_000 + share * at, 10_000 + share * (at + 60)), None, [{}] * 60 * share)
            docs.optimize()
            rows = docs._backend.state.snapshot.generation.rows.arrays
            quantiser = sq8_training.train(rows, METRIC_CODES["l2"], docs.stats()["rows"])
            found.append((quantiser.scale, quantiser.mean.tolist()))
            assert np.array_equal(sampling.sample(rows, docs.stats()["rows"]), VECTORS)
            assert docs.evaluate(VECTORS[:50], 10)["recall"] > 0.9 and len(near(docs)) == 600
    assert found[0] == found[1]


WRITE = """
import sys, numpy as np
from vecdb.embedded.open import open_database
with open_database(sys.argv[1], maintenance=False) as db:
    docs = db.collection("docs")
    docs.upsert([1, 5], [None, np.ones(6)], [{"n": 1}, {"n": 5}])
    docs.delete([2])
    if len(sys.argv) > 2:
        db.collection("open").upsert([1], [[1.0, 2.0]])
        docs.vacuum()
"""


def test_a_process_that_reads_follows(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with open_database(path, maintenance=False) as db:
        docs = db.create_collection("docs", DIM)
        docs.upsert([1, 2, 3], [VECTORS[1], None, VECTORS[3]], [{"n": 1}, {"n": 2}, {"n": 3}])
        db.create_collection("open").upsert([1, 2], None, [{"n": 1}, {"n": 2}])
    with open_database(path, read_only=True) as db:
        docs, undecided = db.collection("docs"), db.collection("open")
        assert near(docs) == {1, 3} and docs.count() == 3 and undecided.dim == 0 and undecided.count() == 2
        for more in ([], ["vacuum"]):
            subprocess.run([sys.executable, "-c", WRITE, str(path), *more], check=True)
            assert near(docs) == {3, 5} and docs.count(filter=F.n < 6) == docs.count() == 3
            assert docs.get(1, include_vectors=True).vector is None and docs.get(2) is None
            assert db.check() == []
        assert undecided.dim == 2 and undecided.search([1.0, 2.0]).ids.tolist() == [1] and undecided.count() == 2
