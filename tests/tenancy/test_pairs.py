"""Sets of pairs (row, tenant) agree with Python's sets."""

from __future__ import annotations

import numpy as np

from vecdb.tenancy import pairs
from vecdb.tenancy.pairs import NO_PAIRS, RowTenantPairs, numbers_of, rows_of


def test_sets_of_pairs_agree_with_sets() -> None:
    rng = np.random.default_rng(1)
    for size in (0, 1, 30, 200):
        raw = [
            (rng.integers(0, 20, size), rng.integers(1, 2**32 - 1, 9, np.uint64)[rng.integers(0, 9, size)])
            for _ in "ab"
        ]
        a, b = (pairs.pack(rows, numbers) for rows, numbers in raw)
        one, two = (set(zip(rows_of(part).tolist(), numbers_of(part).tolist(), strict=True)) for part in (a, b))
        assert one == set(zip(raw[0][0].tolist(), raw[0][1].tolist(), strict=True)) and len(a) == len(one)
        for made, expected in ((pairs.unite(a, b), one | two), (pairs.subtract(a, b), one - two)):
            assert list(zip(rows_of(made).tolist(), numbers_of(made).tolist(), strict=True)) == sorted(expected)
        assert [divmod(pair, 2**32) for pair in np.sort(pairs.by_tenant(a)).tolist()] == sorted((n, r) for r, n in one)
        assert dict(zip(*(part.tolist() for part in pairs.counts_by_row(a)), strict=True)) == {
            row: sum(r == row for r, _ in one) for row in {r for r, _ in one}
        }


def test_what_is_added_and_taken_away_again_is_no_change() -> None:
    def made(*rows: int) -> RowTenantPairs:
        return pairs.pack(np.array(rows, np.int64), np.full(len(rows), 5, np.uint64))

    added, removed = pairs.net_changes([made(1, 2), made(3, 1)], [made(1), made(9)])
    assert (rows_of(added).tolist(), rows_of(removed).tolist()) == ([1, 2, 3], [9])
    assert [len(part) for part in pairs.net_changes([made(1)], [made(1)])] == [0, 0]
    assert pairs.net_changes([], []) == (NO_PAIRS, NO_PAIRS)
