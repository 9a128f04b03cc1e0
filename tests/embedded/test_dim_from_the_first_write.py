"""Goal: a collection that is made without a dim has that of its first vectors, in every process and for good; before
that it is an empty collection like any other; a first write that is refused gives none.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import vecdb
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, InvalidArgument, NotFound

KINDS = [None, vecdb.Flat(), vecdb.Hnsw(m=8), vecdb.Spann(), vecdb.Curator()]
VECTORS = np.random.default_rng(2).normal(size=(300, 8)).astype(np.float32)
EXACT = vecdb.SearchParams(exact=True)


def check_empty(docs: Any, *, writable: bool = True) -> None:
    for query, shape in ((VECTORS[0], (0,)), (VECTORS[:2], (2, 10)), (VECTORS[0, :3].tolist(), (0,))):
        for options in ({}, {"params": EXACT}, {"filter": "n > 1"}, {"include_vectors": True}, {"explain": True}):
            hits = docs.search(query, 10, **options)
            assert hits.ids.shape == shape and not hits.counts.any()
    assert len(list(docs.search_stream(VECTORS[:3]))) == 3
    assert docs.evaluate(VECTORS[:3])["recall"] is None
    assert docs.dim == docs.config.dim == docs.stats()["dim"] == docs.count() == 0
    assert list(docs.iter()) == [] and docs.get([1]) == [None] and docs.check() == []
    assert docs.upsert([], []) == 0 and docs.add([]) == []
    if writable:
        with pytest.raises(NotFound):
            docs.update([1], np.ones((1, 5)))
        assert docs.delete([1]) == docs.dim == 0


@pytest.mark.parametrize("index", KINDS, ids=str)
def test_the_first_write_gives_the_dim(tmp_path: Path, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vecdb.limits, "flat_rows_max", 100)
    path = tmp_path / "db"
    with open_database(path, durability="relaxed", maintenance=False) as db:
        docs = db.create_collection("docs", metric="l2", index=index, metadata={"a": 1})
        docs.create_tenant("t")
        db.rename_collection("docs", "notes")
        with open_database(path, read_only=True) as reader:
            seen = reader["notes"]
            check_empty(docs)
            check_empty(seen, writable=False)
            docs.optimize()
            docs.vacuum()
            assert docs.clear() == 0
            check_empty(docs)
            assert docs.upsert(range(300), VECTORS, [{"n": n} for n in range(300)], tenants="t") == 300
            for one in (docs, seen, db["notes"]):
                assert one.search(VECTORS[7]).ids[0] == 7 and one.dim == one.config.dim == 8 and one.count() == 300
            docs.optimize()
        assert docs.search(VECTORS[:20], 1).ids[:, 0].tolist() == list(range(20)) and docs.check() == []
        with pytest.raises(InvalidArgument, match="dim 8, got 4"):
            docs.upsert([1], VECTORS[:1, :4])
        with pytest.raises(InvalidArgument, match="dim 8, got 4"):
            docs.search(VECTORS[0, :4])
        docs.clear()
        assert docs.dim == 8 and docs.metadata == {"a": 1} and list(docs.tenants()) == ["t"]
        docs.add(VECTORS[:3])
    with open_database(path) as db:
        docs = db["notes"]
        assert docs.dim == 8 and docs.count() == 3 and docs.search(VECTORS[2], 1).ids.tolist() == [2]
        assert docs.config.index == index and db.check() == []


def test_it_stays_without_one_over_a_reopening(tmp_path: Path) -> None:
    with open_database(tmp_path / "db") as db:
        db.create_collection("docs", dtype="int8")
        assert db.create_collection("docs", dtype="int8", exist_ok=True).dim == 0
        with pytest.raises(AlreadyExists, match="without a dim"):
            db.create_collection("docs", 4, dtype="int8", exist_ok=True)
        db.backup(tmp_path / "backup")
    vecdb.restore(tmp_path / "backup", tmp_path / "restored")
    for place in ("db", "restored"):
        with open_database(tmp_path / place) as db:
            docs = db["docs"]
            check_empty(docs)
            assert docs.insert("a", [1, 2, 3]) == 1 and docs.dim == 3
            assert db.create_collection("docs", dtype="int8", exist_ok=True).dim == 3
            assert db.create_collection("docs", 3, dtype="int8", exist_ok=True).count() == 1
            assert docs.get("a", include_vectors=True).vector.tolist() == [1, 2, 3] and db.check() == []


def test_a_first_write_that_is_refused_gives_none(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", metric="cosine")
        before = db.stats()["sequence"]
        wrong: list[tuple[Any, ...]] = [
            ([1, 2], [1.0, 2.0]), ([1, 2], [[1, 2], [3]]), ([1], [[0, 0]]), ([1], [["a"]]), ([1], ["ab"]), ([1], [[]]),
            ([1], [[1, 2]], [{}, {}]), ([1], [[1, 2]], [{1: 2}]), (["x" * 300], [[1, 2]]), ([1, "a"], [[1, 2], [1, 2]]),
            ([1], np.ones((1, vecdb.limits.dim_max + 1))), ([1], 5), ([1], np.ones((1, 1, 1))), ([1], [[None, 1]]),
        ]  # fmt: skip
        for arguments in wrong:
            with pytest.raises(vecdb.VecdbError):
                docs.upsert(*arguments)
        for query in (5, "text", [[]], [None], None, np.ones((1, 2, 3))):
            with pytest.raises(InvalidArgument):
                docs.search(query)
        assert docs.dim == 0 and db.stats()["sequence"] == before
        assert docs.upsert(pa.table({"id": [1], "vector": pa.FixedSizeListArray.from_arrays([1.0, 2.0, 3.0], 3)})) == 1
        assert docs.dim == 3


def test_vectors_of_records_that_had_none_give_it_by_an_update(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs")
        docs.upsert([1, 2], fields=[{"n": 1}, {"n": 2}])
        with pytest.raises(NotFound):
            docs.update([2, 3], VECTORS[:2])
        assert docs.dim == 0
        assert docs.update([2], VECTORS[:1]) == 1
        assert docs.dim == 8 and docs.get(2).fields == {"n": 2} and docs.search(VECTORS[0], 5).ids.tolist() == [2]
        assert docs.check() == []


@pytest.mark.parametrize("round", range(4))
def test_of_two_first_writes_one_gives_the_dim(tmp_path: Path, round: int) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs, found = db.create_collection("docs", metric="l2"), {}
        start = threading.Barrier(4)

        def write(dim: int) -> None:
            vectors = np.full((5, dim), dim, np.float32)
            start.wait()
            try:
                found[dim] = docs.upsert(range(5 * dim, 5 * dim + 5), vectors)
            except InvalidArgument as error:
                found[dim] = str(error)

        threads = [threading.Thread(target=write, args=(dim,)) for dim in (2, 3, 4, 5)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        written = [dim for dim, answer in found.items() if answer == 5]
        assert len(written) == 1 and docs.dim == written[0] and docs.count() == 5
        assert all(answer == 5 or f"dim {docs.dim}, got {dim}" in answer for dim, answer in found.items()), found
        assert docs.search(np.full(docs.dim, docs.dim), 5).distances.tolist() == [0] * 5 and db.check() == []
