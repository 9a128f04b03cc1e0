"""Goal: what matched filters stays within its bound, whatever is kept, kept again, grown and let go."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from vecdb import limits
from vecdb.filters.tree import Compare, In, held_bytes
from vecdb.index.row_set import RowSet
from vecdb.state.filter_cache import FilterCache, MatchingRows


def entry_of(cache: FilterCache[Any], key: Any, words: int) -> MatchingRows[Any]:
    bitmap = np.full(words, ~np.uint64(0))
    return MatchingRows(RowSet.of_bitmap(bitmap, 64 * words, partial(cache.grown, key)))


def test_what_is_kept_twice_or_grows_behind_the_cache_is_not_counted_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "filter_cache_bytes", 1 << 20)
    cache: FilterCache[Any] = FilterCache()
    for _ in range(100):  # threads that met the same new filter
        cache.keep("same", entry_of(cache, "same", 4_096), 100)
    gone = []
    for key in range(100):
        gone.append(entry_of(cache, key, 4_096))
        cache.keep(key, gone[-1], 100)
    for one in gone[:60]:
        assert len(one.allowed.rows) == 64 * 4_096, "listed after the cache let go of it"
    for key in range(1_000, 1_020):
        cache.keep(key, entry_of(cache, key, 4_096), 100)
    assert len(cache) == 30, "a megabyte holds 30 of 34 KB"
    assert len(cache.get(1_019).allowed.rows) == 64 * 4_096  # type: ignore[union-attr]
    assert len(cache) < 30 and cache.get(1_019) is not None, "one whose rows were listed takes the place of others"


def test_entries_of_few_rows_count_with_their_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "filter_cache_bytes", 1 << 20)
    cache: FilterCache[Any] = FilterCache()
    for user in range(2_000):
        node = Compare("user", "==", user)
        cache.keep(node, entry_of(cache, node, 1), held_bytes(node))
    assert 100 < len(cache) < 500
    for first in range(10):
        node = In("user", tuple(range(first, first + 20_000)))
        cache.keep(node, entry_of(cache, node, 1), held_bytes(node))
    assert len(cache) == 1
