"""Goal: whoever follows a collection learns which rows' fields have changed since any commit, and what they are now."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vecdb import limits
from vecdb.state.field_changes import iter_changed, rows_changed
from vecdb.state.record_blocks import encoded_fields
from vecdb.validate import decode_fields


@pytest.mark.parametrize("logged", [1, 40, 1 << 20], ids=["one", "some", "all"])
def test_rows_changed_since_any_commit(db: Any, monkeypatch: pytest.MonkeyPatch, logged: int) -> None:
    """The oracle: which rows each commit changed, and the fields of each row, kept beside the database."""
    monkeypatch.setattr(limits, "changed_rows_logged", logged)
    rng = np.random.default_rng(logged)
    docs = db.create_collection("docs", 4, "l2")
    docs.upsert(range(100), rng.normal(size=(100, 4)), [{"n": 0}] * 100)
    changed: dict[int, set[int]] = {}  # commit -> rows; an id's row is its number
    fields: list[dict[str, int]] = [{"n": 0} for _ in range(100)]
    alive = list(range(100))
    state = docs._backend.state
    for step in range(40):
        if step % 7 == 3:
            docs.delete([alive.pop()])
        else:
            picked = rng.permutation(alive)[: rng.integers(1, 12)].tolist()
            docs.update(picked, fields=[{"n": step}] * len(picked))
            for row in picked:
                fields[row] = {"n": step}
            changed[docs.stats()["sequence"]] = set(picked)
        with state.reading() as (txn, generation, committed):
            where = (state.store, txn, generation.prefix)
            noted = dict(iter_changed(*where, 0, "docs"))
            counted = sum(map(len, noted.values()))
            if changed:
                assert committed.field_changes is not None
                assert (committed.field_changes.logged, committed.field_changes.last) == (counted, max(changed))
                assert counted <= max(logged, len(changed[max(changed)]))
            assert {at: set(rows.tolist()) for at, rows in noted.items()} == {at: changed[at] for at in noted}
            for since in range(committed.sequence + 2):
                found = rows_changed(*where, since, "docs")
                wanted = set().union(*(rows for at, rows in changed.items() if at >= since))
                assert found.dtype == np.int64 and found.tolist() == sorted(wanted), since
            raw = encoded_fields(*where, list(range(100)), "docs", committed.field_changes)
            assert [decode_fields(one) for one in raw] == fields
    assert db.check() == []
    if logged < 1 << 20:
        assert min(noted) > min(changed), "none was forgotten: nothing was tested"
