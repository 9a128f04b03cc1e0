"""Goal: a collection without a dim takes that of its first vectors, whichever way the database is opened."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vecdb.errors import InvalidArgument

VECTORS = np.random.default_rng(8).normal(size=(50, 6)).astype(np.float32)


def test_the_first_write_gives_the_dim(db: Any) -> None:
    docs = db.create_collection("docs", metric="l2")
    other = db.collection("docs")  # opened before the first write, and used after it
    assert docs.config.dim == 0
    for query, shape in ((VECTORS[0], (0,)), (VECTORS[:2], (2, 10)), (np.ones(3), (0,))):
        hits = docs.search(query)
        assert hits.ids.shape[0] == shape[0] and not hits.counts.any()
    assert docs.get([1], include_vectors=True) == [None] and docs.count() == 0
    assert docs.upsert(range(50), VECTORS) == 50
    for one in (docs, other, db.collection("docs")):
        assert one.config.dim == 6 and one.search(VECTORS[4], 1).ids.tolist() == [4]
        assert one.search(VECTORS[:9], 1).ids[:, 0].tolist() == list(range(9))
        assert one.get(3, include_vectors=True).vector.tolist() == VECTORS[3].tolist()
        with pytest.raises(InvalidArgument, match="dim 6, got 4"):
            one.upsert([1], VECTORS[:1, :4])
        with pytest.raises(InvalidArgument, match="6"):
            one.search(VECTORS[0, :4])
        assert one.upsert(range(50), VECTORS, atomic=False) == 50
    assert db.collection("docs").dim == 6 and docs.check() == []


@pytest.mark.parametrize("write", ["upsert", "add", "stream", "update", "nothing"])
def test_a_handle_knows_the_dim_that_its_own_write_gave(db: Any, write: str) -> None:
    docs = db.create_collection("docs", metric="l2")
    assert docs.dim == 0
    if write == "upsert":
        docs.upsert(range(50), VECTORS)
    elif write == "add":
        docs.add(VECTORS)
    elif write == "stream":
        docs.upsert(range(20_000), np.resize(VECTORS, (20_000, 6)), atomic=False)
    elif write == "update":
        docs.upsert(range(50), fields=[{"n": n} for n in range(50)])
        assert docs.dim == 0 and docs.update(range(50), VECTORS) == 50
    else:
        db.collection("docs").upsert(range(50), VECTORS)
        assert docs.config.dim == 6
    assert docs.dim == 6


def test_arrays_without_rows_give_no_dim(db: Any) -> None:
    docs = db.create_collection("docs", metric="l2")
    for none in (VECTORS[:0], np.zeros((0, 3), np.float32), []):
        assert docs.upsert([], none) == 0 and len(docs.add(none)) == 0 and docs.update([], none) == 0
        assert len(docs.search(none, 1)) == 0
    assert docs.dim == 0
