"""The rows of a tenant, as LMDB gives them: all at once, or a slice at a time where they are many."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vecdb.errors import Corruption
from vecdb.storage.kv import keys
from vecdb.storage.kv.store import Store
from vecdb.tenancy import access_tables
from vecdb.tenancy.access_tables import AccessTables
from vecdb.tenancy.pairs import NO_PAIRS, pack

N = 300_000


@pytest.fixture
def made(tmp_path: Path) -> Iterator[AccessTables]:
    """Tenant 1 has 0, 2, 4 ... 4,998, tenant 2 nothing, tenant 3 the first N rows."""
    (tmp_path / "lmdb").mkdir()
    store = Store(tmp_path / "lmdb", read_only=False, durability="none")
    made = AccessTables(store, keys.prefix(1, 0), "docs")
    txn = store.begin_write()
    for number, rows in ((1, np.arange(0, 5_000, 2)), (3, np.arange(N))):
        made.change_members(txn, pack(rows, np.full(len(rows), number, np.uint64)), NO_PAIRS)
    txn.commit()
    yield made
    store.close()


@pytest.mark.parametrize("at_once", [10_000, 2_500, 100])
@pytest.mark.parametrize("of", [100, 2_500, 1 << 12])
def test_rows_are_the_same_however_they_are_read(
    made: AccessTables, monkeypatch: pytest.MonkeyPatch, at_once: int, of: int
) -> None:
    monkeypatch.setattr(access_tables, "_ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(access_tables, "_ROWS_SLICE", of)
    for buffers in (False, True):
        with made.store.read(buffers=buffers) as txn:
            found = made.rows_of(txn, 1, 5_000)
            assert found.dtype == np.uint32 and found.tolist() == list(range(0, 5_000, 2))
            assert made.rows_of(txn, 2, 5_000).tolist() == []
            with pytest.raises(Corruption, match="tenant 1 has row 4998 of 4998"):
                made.rows_of(txn, 1, 4_998)


def test_many_rows_take_little_more_than_they_are(made: AccessTables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_tables, "_ROWS_AT_ONCE", N - 1)
    with made.store.read() as txn:
        tracemalloc.start()
        found = made.rows_of(txn, 3, N)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert np.array_equal(found, np.arange(N))
    assert peak < 2 * found.nbytes
