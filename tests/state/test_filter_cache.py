"""What is kept of filters is bounded by all that it takes, the filters themselves among it."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb import F
from vecdb.embedded.open import open_database
from vecdb.filters.tree import node_bytes
from vecdb.index.row_set import RowSet
from vecdb.state.filter_cache import FilterCache, MatchingRows


def test_filters_with_long_lists_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vecdb.limits.filter_cache_bytes", 10 << 20)
    with open_database(":memory:", maintenance=False) as db:
        docs = db.create_collection("docs", 4)
        docs.upsert(range(10), np.eye(10, 4, dtype=np.float32) + 1, [{"name": f"{n}-1"} for n in range(10)])
        for n in range(8):
            assert docs.count(filter=F.name.is_in([f"{n}-{at}" for at in range(50_000)])) == 1
        kept = docs._backend.searcher.current().filtered._entries  # type: ignore[attr-defined]
        assert 1 <= len(kept) <= 3
        assert docs.count(filter=F.name == "3-1") == 1 and (F.name == "3-1") in kept


def test_a_filter_that_is_kept_again_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cache: FilterCache[None] = FilterCache()
    for _ in range(5):
        cache.keep("a", MatchingRows(RowSet(np.arange(10, dtype=np.uint32))), 100)
    one = cache._bytes
    cache.keep("b", MatchingRows(RowSet(np.arange(10, dtype=np.uint32))), 100)
    assert cache._bytes == 2 * one


def test_a_long_list_is_counted_with_its_texts() -> None:
    few, many = F.a.is_in(["x" * 100]), F.a.is_in([f"{n:0100}" for n in range(1_000)])
    assert node_bytes(many) > 150_000 and node_bytes(few & ~(F.b == 1)) < 3_000
