"""Codes of one bit, thirty-two rows at once, against numpy and against the codes of single rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.processors import run_on
from vecdb.kernels.codes import one_bit_fastscan, one_bit_lines
from vecdb.kernels.codes.one_bit_fastscan import BitPanels
from vecdb.kernels.codes.one_bit_lines import BitLines, BitQuery, BitShortlist, SnapshotRows
from vecdb.kernels.compile import kernel
from vecdb.kernels.primitives.bit_products import PANEL_ROWS

ROWS = PANEL_ROWS
NOBODY = np.empty(0, np.uint32)

# The panel's products on a processor of another kind: each path gives the same numbers.
_PROGRAM = """
import numpy as np
from numba import njit
from vecdb.kernels.primitives import bit_products

@njit
def estimated(panel, tables, out, count):
    one = np.float32(1.0)
    zero, bound = np.float32(0.0), np.float32(1500.0)
    return bit_products.estimate_panel(panel, np.int64(0), tables, one, one, zero, bound, out, count)

rng = np.random.default_rng(3)
for words in (1, 4, 7):
    width = 8 * words
    codes = rng.integers(0, 256, (32, width), dtype=np.uint8)
    tables = rng.integers(0, 29, (2 * width, 16), dtype=np.uint8)
    panel = np.concatenate([codes.T.reshape(-1), np.ones(64, np.float32).view(np.uint8)])
    out = np.empty(32, np.float32)
    bits = int(estimated(panel, tables, out, (0,) * words))
    at = np.arange(width)
    expected = 1 + (tables[2 * at, codes & 15].astype(int) + tables[2 * at + 1, codes >> 4]).sum(axis=1)
    assert np.array_equal(out, expected), (out, expected)
    assert bits == sum(1 << r for r in range(32) if expected[r] <= 1500)
print("the same")
"""


@kernel()
def _filter(
    by_panels: Any, listed: Any, everything: Any, first: Any, stop: Any, query: Any, center: Any, signs: Any,
    lines: Any, floats: Any, laid: Any, limit: Any, slack: Any, most: Any, deleted: Any, nearest: Any, kept: Any,
    rotated: Any,
    planes: Any, planes64: Any, tables: Any, keys: Any, estimates: Any, rows_of: Any, count: Any,
) -> Any:  # fmt: skip
    step, half, _ = one_bit_lines.query_bit_planes(query, center, signs, False, rotated, planes)
    bits = BitQuery(planes64, step, half, np.float32(1.0))
    rows = SnapshotRows(rows_of, np.int64(len(rows_of)), np.uint64(5), deleted)
    shortlist = BitShortlist(nearest, keys, kept, np.int64(limit), np.int64(most), np.float32(slack))
    if not by_panels:
        stored = BitLines(
            lines.reshape(-1), floats.view(np.uint64).reshape(-1), floats.reshape(-1), np.int64(lines.shape[1])
        )
        return one_bit_lines.filter_by_estimate(listed, everything, first, stop, stored, bits, shortlist, rows, count)
    one_bit_fastscan.fill_tables(planes, tables)
    return one_bit_fastscan.filter_panels(
        listed, everything, np.int64(0), np.int64(len(listed)), first, stop,
        BitPanels(laid.reshape(-1), tables, estimates), bits, shortlist, rows, count,
    )  # fmt: skip


class Laid:
    """Random lines of so many dimensions, a multiple of 64, and their panels."""

    def __init__(self, n: int, dim: int) -> None:
        rng = np.random.default_rng(n)
        self.dim, self.width = dim, dim // 8
        stride = -(-(self.width + one_bit_fastscan.FACTORS) // 64) * 64
        self.lines = np.zeros((n, stride), np.uint8)
        self.lines[:, : self.width] = rng.integers(0, 256, (n, self.width))
        self.lines.view(np.float32)[:, self.width // 4 : self.width // 4 + 2] = rng.standard_normal((n, 2))
        self.panels = np.zeros((-(-n // ROWS), ROWS * (self.width + one_bit_fastscan.FACTORS)), np.uint8)
        one_bit_fastscan.pack_panels(
            self.lines, self.lines.view(np.float32), n, self.width, self.panels, self.panels.view(np.float32)
        )
        self.signs = rng.choice(np.array([-1, 1], np.float32), (4, dim))
        self.query = rng.standard_normal(dim).astype(np.float32)

    def sift(self, by_panels: bool, listed: Any, span: Any, limit: int, slack: float, most: int, deleted: Any) -> Any:
        """(slots that come through, estimates that bound what comes next). listed : None: all of the span."""
        nearest, kept = np.full(limit, np.inf, np.float32), np.zeros(most, np.uint32)
        planes = np.zeros((one_bit_lines.PLANES, self.width), np.uint8)
        first, stop = span if by_panels or listed is None else np.searchsorted(listed, span)
        passed = _filter(
            by_panels, NOBODY if listed is None else listed, listed is None, np.int64(first), np.int64(stop),
            self.query, np.zeros(self.dim, np.float32), self.signs, self.lines, self.lines.view(np.float32),
            self.panels, limit, slack, most, deleted, nearest, kept, np.zeros(self.dim, np.float32), planes,
            planes.view(np.uint64), np.zeros((2 * self.width, 16), np.uint8), np.zeros(2 * most + 1, np.int64),
            np.zeros(ROWS, np.float32), np.arange(len(self.lines), dtype=np.uint32), (0,) * (self.dim // 64),
        )  # fmt: skip
        return np.sort(kept[:passed]), np.sort(nearest)


@pytest.mark.parametrize("features", ["", "+sse4.2,+ssse3"], ids=["this", "without AVX2"])
def test_every_processor_gives_the_same_products(features: str) -> None:
    assert run_on(_PROGRAM, "nehalem" if features else None, features or None).strip() == "the same"


@pytest.mark.parametrize("span", [(0, 1000), (32, 64), (37, 38), (45, 900), (990, 1000), (5, 5)])
@pytest.mark.parametrize("share", [None, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("dim", [64, 256, 384, 1216])
def test_panels_let_through_what_lines_do(dim: int, share: float | None, span: tuple[int, int]) -> None:
    laid = Laid(1000, dim)
    rng = np.random.default_rng(dim)
    deleted = np.where(rng.random(1000) < 0.2, 3, 0).astype(np.uint64)  # at a commit before the snapshot's
    listed = None
    if share is not None:
        listed = np.sort(rng.choice(1000, int(share * 1000), replace=False)).astype(np.uint32)
    for limit, slack, most in ((1, 0.0, 40), (10, 20.0, 400), (100, 5.0, 101)):
        lines, by_lines = laid.sift(False, listed, span, limit, slack, most, deleted)
        found, by_panels = laid.sift(True, listed, span, limit, slack, most, deleted)
        assert np.allclose(by_lines, by_panels, rtol=1e-4, atol=1e-4)
        assert len(np.setxor1d(lines, found)) <= 1, "estimates differ in their last bit"
        if listed is None:
            assert (deleted[found] == 0).all()
        else:
            assert np.isin(found, listed).all()


def test_a_panel_is_its_lines_turned_round() -> None:
    laid = Laid(70, 64)
    bits = laid.panels[:, : ROWS * 8].reshape(-1, 8, ROWS).transpose(0, 2, 1).reshape(-1, 8)
    factors = laid.panels[:, ROWS * 8 :].copy().view(np.float32).reshape(-1, 2, ROWS).transpose(0, 2, 1).reshape(-1, 2)
    assert np.array_equal(bits[:70], laid.lines[:, :8])
    assert np.array_equal(factors[:70], laid.lines.view(np.float32)[:, 2:4])
