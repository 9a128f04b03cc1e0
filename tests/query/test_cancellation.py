"""A batch of queries can be given up between chunks, and is answered from one committed state however it is cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import vecdb
from vecdb.query import cancellation


@pytest.mark.parametrize("index", [vecdb.Flat(), vecdb.Hnsw(m=8, ef_construction=40), vecdb.Spann(bits=4)])
def test_chunks_give_the_answer_of_the_whole(index: vecdb.Flat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "_CHUNK_S", 1e-9)
    generator = np.random.default_rng(5)
    vectors = generator.random((500, 16), np.float32)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", 16, index=index)
        docs.upsert(range(500), vectors, [{"n": i} for i in range(500)])
        docs.optimize()
        whole = docs.search(vectors[:50], 5)
        asked = itertools.count()
        parts = docs.search(vectors[:50], 5, stop=lambda: next(asked) < 0)
        assert next(asked) > 20
        assert parts.to_list() == whole.to_list()
        assert parts.sequence == whole.sequence


def test_a_search_that_nobody_waits_for_is_given_up() -> None:
    vectors = np.random.default_rng(5).random((500, 16), np.float32)
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", 16)
        docs.upsert(range(500), vectors)
        answers = iter([False, True])
        with pytest.raises(vecdb.Unavailable, match="after 8 of 500"):
            docs.search(vectors, 5, stop=lambda: next(answers))
