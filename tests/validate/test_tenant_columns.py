"""Access lists that come as columns are checked like the same lists of names: those are the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import limits
from vecdb.validate.tenants import TenantColumns, access_lists

NAMES = ["b", "a", "caf\u00e9", "a", "unused", ""]  # one comes twice, the last is refused where it is used


def columns(lists: list[list[int]]) -> TenantColumns:
    counts = np.array([len(one) for one in lists], np.int64)
    return TenantColumns(NAMES, counts, np.array([at for one in lists for at in one], np.int64))


def outcome(tenants: Any, n: int, **settings: Any) -> Any:
    try:
        found = access_lists(tenants, n, **{"single": False, **settings})
    except vecdb.VecdbError as error:
        return type(error), str(error)
    return found.names, found.records.tolist(), found.which.tolist(), found.kept


def test_columns_are_what_their_lists_are() -> None:
    rng, refused = np.random.default_rng(7), 0
    for _ in range(500):
        places = 5 if rng.random() < 0.8 else len(NAMES)
        given = columns([rng.integers(0, places, rng.integers(4)).tolist() for _ in range(rng.integers(1, 8))])
        n = len(given.counts) + int(rng.random() < 0.1)
        settings = {"kept": bool(rng.integers(2)), "single": bool(rng.random() < 0.05)}
        lists = given.lists()
        assert [len(one) for one in lists] == given.counts.tolist()
        assert outcome(given, n, **settings) == outcome(lists, n, **settings)
        refused += isinstance(outcome(given, n, **settings)[0], type)
    assert 20 < refused < 400
    assert outcome(columns([]), 0) == outcome([], 0)


@pytest.mark.parametrize("limit", ["tenants_per_record_max", "tenants_per_call_max", "pairs_per_call_max"])
def test_their_limits_are_those_of_lists(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    given = columns([[0, 1, 2], [2]])
    assert outcome(given, 2)[0] == [b"a", b"b", "caf\u00e9".encode()]
    monkeypatch.setattr(limits, limit, 2)
    assert outcome(given, 2)[0] is vecdb.LimitExceeded
    assert outcome(given, 2) == outcome(given.lists(), 2)
