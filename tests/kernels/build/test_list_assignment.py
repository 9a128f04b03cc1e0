"""Goal: rows go to the lists that brute force would give them to, as well as codes tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.spann.posting_lists import arrays_of, lists_over, plain_coder, view_heads_of
from vecdb.index.clustering.assignment import assign_to_heads, near_heads
from vecdb.index.spann import list_updates
from vecdb.index.spann.entry_coder import new_coder, scaled
from vecdb.index.spann.posting_lists import empty_view

L2 = 0


@pytest.mark.parametrize(("count", "wanted"), [(1, 4), (9, 32), (300, 1), (300, 20), (300, 64)])
def test_the_near_heads_of_a_code_are_those_of_brute_force(count: int, wanted: int) -> None:
    rng = np.random.default_rng(count)
    codes = rng.integers(0, 256, (count, 64), dtype=np.uint8)
    codes[count // 2] = codes[0]  # equal heads come in the order of their numbers
    queries = np.concatenate([codes[:2], rng.integers(0, 256, (30, 64), dtype=np.uint8)])
    near, distances = near_heads(view_heads_of(codes, min(count, 5)), queries, wanted)
    truth = ((queries[:, None].astype(np.int64) - codes[None]) ** 2).sum(2)
    order = np.argsort(truth, axis=1, kind="stable")[:, :wanted]
    kept = order.shape[1]
    assert np.array_equal(near[:, :kept], order) and (near[:, kept:] == -1).all()
    assert np.array_equal(distances[:, :kept], np.take_along_axis(truth, order, axis=1))


class Neighbourhood:
    """Lists over clustered rows, and fresh heads among them; `fresh` and the heads as what their codes stand for."""

    def __init__(self, folder: Path, metric: int, dtype: Any, bits: int, dim: int = 40) -> None:
        rng = np.random.default_rng(bits + metric)
        n, heads = 600, 12
        centres = rng.normal(0, 30, (heads, dim))
        vectors = centres[rng.integers(0, heads, n)] + rng.normal(0, 22, (n, dim))
        if np.dtype(dtype) == np.uint8:
            vectors += 128
        self.vectors = np.clip(np.round(vectors), 0, 255).astype(dtype) if dtype == np.uint8 else vectors.astype(dtype)
        self.arrays = arrays_of(self.vectors)
        units = self.vectors.astype(np.float64)
        if metric == 1:
            units /= np.linalg.norm(units, axis=1, keepdims=True)
        self.units = units
        mean = np.full(dim, 128 if dtype == np.uint8 else 0, np.float32)
        scale = 1.0 if dtype == np.uint8 else float(np.abs(units).max()) / 127
        sample = self.vectors
        coder = plain_coder(metric, dtype, dim, bits, mean, scale)
        if not coder.lossless:
            coder = new_coder(self.arrays, metric, bits, coder.quantiser, sample)
        codes, _ = coder.quantise(self.vectors)
        # no head is the middle of its rows, so that many of them have a nearer one among the fresh
        self.heads = view_heads_of(codes[rng.choice(n, heads, replace=False)], 3)
        self.fresh = codes[rng.choice(n, 5, replace=False)]
        self.lists = lists_over(self.arrays, folder)
        labels = assign_to_heads(self.heads, codes, 1, 1, self.lists.workers)
        coder = scaled(coder, sample, labels[:, 0], self.heads.codes)
        self.coder = coder
        self.labels = labels[:, 0]
        entries = self.lists.entries(coder, self.heads, self.vectors, np.arange(n), labels, 1)
        self.lists.view = empty_view(coder, self.heads, 1 << 20, 1)
        self.lists.change(self.heads, np.arange(heads), np.unique(entries.labels).astype(np.int64), entries, indexed=n)

    def shares(self) -> NDArray[np.float64]:
        """Squared distance of each row to the nearest fresh head, as a share of that to its own."""
        own = ((self.units - self.coder.decode(self.heads.codes)[self.labels]) ** 2).sum(1)
        fresh = self.coder.decode(self.fresh).astype(np.float64)
        nearest = ((self.units[:, None] - fresh[None]) ** 2).sum(2).min(1)
        return np.asarray(nearest / np.maximum(own, 1e-12))

    def found(self, victims: list[int]) -> dict[int, int]:
        """{row: the list it is in} of rows that would be assigned anew."""
        view = self.lists.view
        assert view is not None
        rows, owners = list_updates._nearer_to_fresh(self.lists, view, self.fresh, np.array(victims, np.int64))
        assert len(set(rows.tolist())) == len(rows)
        return dict(zip(rows.tolist(), owners.tolist(), strict=True))


def test_rows_nearer_to_a_fresh_head_than_to_their_own_are_found_exactly_where_codes_are_the_rows(
    tmp_path: Path,
) -> None:
    """Those of lists that are split themselves have had their turn, and dead ones are left out."""
    here = Neighbourhood(tmp_path, L2, np.uint8, 8)
    assert here.coder.lossless
    shares, closer = here.shares(), 0.95
    nearer = np.flatnonzero(shares < closer)
    assert len(nearer) > 20 and len(nearer) < 580
    assert here.found([]) == {int(row): int(here.labels[row]) for row in nearer}
    kept = nearer[~np.isin(here.labels[nearer], [0, 3, 7])]
    assert sorted(here.found([0, 3, 7])) == kept.tolist()
    here.arrays.deleted[kept[::2]] = 4
    here.lists.removed = 3
    assert sorted(here.found([0, 3, 7])) == kept.tolist()  # they died later than what searches may still see
    here.lists.removed = 4
    assert sorted(here.found([0, 3, 7])) == kept[1::2].tolist()
    assert here.found(list(range(12))) == {}


@pytest.mark.parametrize("metric", [0, 1, 2], ids=["l2", "cosine", "ip"])
@pytest.mark.parametrize(("bits", "blur"), [(2, 0.35), (4, 0.12), (8, 0.03)])
def test_rows_nearer_to_a_fresh_head_are_found_as_well_as_codes_tell(
    tmp_path: Path, bits: int, blur: float, metric: int
) -> None:
    """Lists are clustered by squared l2 whatever the metric is."""
    here = Neighbourhood(tmp_path, metric, np.float32, bits)
    shares = here.shares()
    found = np.isin(np.arange(600), list(here.found([])))
    clear = np.abs(shares - 0.95) > blur
    assert clear.sum() > 200 and (shares[clear] < 0.95).any()
    wrong = clear & (found != (shares < 0.95))
    assert wrong.sum() <= 0.01 * clear.sum()
    assert all(here.labels[row] == head for row, head in here.found([]).items())


def test_no_more_neighbours_are_found_than_one_round_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Neighbourhood(tmp_path, L2, np.uint8, 8)
    every = here.found([])
    monkeypatch.setattr(list_updates, "_MOVED_MAX", 9)
    some = here.found([])
    assert 0 < len(some) <= 9 and some.items() <= every.items()
