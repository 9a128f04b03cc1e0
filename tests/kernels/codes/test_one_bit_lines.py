"""Codes of one bit against numpy, and arrays that travel as one argument."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from numba import float32, int32, int64, uint8

from vecdb.kernels.array_table import ArrayTable, group_of, layout_of
from vecdb.kernels.codes import one_bit_lines
from vecdb.kernels.codes.one_bit_lines import BitLines, BitQuery, BitShortlist, SnapshotRows
from vecdb.kernels.compile import kernel
from vecdb.kernels.primitives.bit_products import bit_products


@kernel()
def _product(words: Any, at: Any, planes: Any, count: Any) -> Any:
    return bit_products(words, np.int64(at), planes, count)


@kernel()
def _filter(listed: Any, octets: Any, words: Any, floats: Any, planes: Any, step: Any, slack: Any, most: Any,
            kept: Any, nearest: Any, keys: Any, code_words: Any) -> Any:  # fmt: skip
    rows = SnapshotRows(listed, np.int64(0), np.uint64(0), words)  # not looked at: what is listed is visible
    for j in range(len(nearest)):
        nearest[j] = np.float32(np.inf)
    lines = BitLines(octets, words, floats, np.int64(64))
    query = BitQuery(planes, np.float32(step), np.float32(3.5), np.float32(1.0))
    shortlist = BitShortlist(nearest, keys, kept, np.int64(len(nearest)), np.int64(most), np.float32(slack))
    return one_bit_lines.filter_by_estimate(
        listed, False, np.int64(0), np.int64(len(listed)), lines, query, shortlist, rows, code_words
    )


class Pair(NamedTuple):
    numbers: int32[:, ::1]
    factor: float32


class Layout(NamedTuple):
    first: Pair
    number: int64
    second: Pair
    empty: uint8[::1]


@kernel()
def _sums(table: Any, out: Any) -> Any:
    whole, second = layout_of(table, Layout), group_of(table, Layout, "second")
    for i in range(second.numbers.shape[0]):
        for j in range(second.numbers.shape[1]):
            out[0] += second.factor * second.numbers[i, j] * (10 * i + j)
    for value in whole.first.numbers[0]:
        out[1] += whole.first.factor * value
    out[2] = whole.number + len(whole.empty)


def bits_of(words: Any) -> Any:
    return np.unpackbits(words.view(np.uint8), bitorder="little").astype(np.int64)


@pytest.mark.parametrize("length", [1, 6, 16, 17, 40])
def test_products_of_one_bit_and_three_are_those_of_numpy(length: int) -> None:
    rng = np.random.default_rng(length)
    words = rng.integers(0, 1 << 63, 3 * length, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    planes = rng.integers(0, 1 << 63, (3, length), dtype=np.uint64) * np.uint64(2)
    query = bits_of(planes[0]) + 2 * bits_of(planes[1]) - 4 * bits_of(planes[2])
    expected = int(bits_of(words[length : 2 * length]) @ query)
    assert _product(words, length, planes, (0,) * length) == expected


def lines_of(distances: Any) -> Any:
    """Lines of no bits whose estimated distances are these."""
    lines = np.zeros((len(distances), 64), np.uint8)
    lines.view(np.float32)[:, 2] = distances  # of width 8: the add factor
    return lines


@pytest.mark.parametrize("limit", [1, 10, 100])
@pytest.mark.parametrize("most", [120, 4_000])
def test_what_comes_through_is_within_the_slack_of_the_limit_th(limit: int, most: int) -> None:
    rng = np.random.default_rng(limit)
    distances = rng.standard_normal(3_000).astype(np.float32)
    listed = np.sort(rng.choice(3_000, 2_000, replace=False)).astype(np.uint32)
    flat_lines = lines_of(distances).reshape(-1)
    kept = np.zeros(most, np.uint32)
    passed = _filter(
        listed, flat_lines, flat_lines.view(np.uint64), flat_lines.view(np.float32), np.zeros((3, 1), np.uint64), 1.0,
        0.25, most, kept, np.zeros(limit, np.float32), np.zeros(2 * most + 1, np.int64), (0,),
    )  # fmt: skip
    mine = distances[listed]
    expected = listed[mine <= np.sort(mine)[limit - 1] + np.float32(0.25)]
    if len(expected) > most:
        expected = listed[np.argsort(mine)[:most]]
    assert np.array_equal(np.sort(kept[:passed]), np.sort(expected))


def test_fewer_than_the_limit_all_come_through() -> None:
    flat_lines = lines_of(np.arange(5, dtype=np.float32)).reshape(-1)
    kept = np.zeros(20, np.uint32)
    passed = _filter(
        np.array([1, 3, 4], np.uint32), flat_lines, flat_lines.view(np.uint64), flat_lines.view(np.float32),
        np.zeros((3, 1), np.uint64), 1.0, 0.0, 20, kept, np.zeros(10, np.float32), np.zeros(41, np.int64), (0,),
    )  # fmt: skip
    assert sorted(kept[:passed].tolist()) == [1, 3, 4]


def test_a_kernel_finds_every_array_and_number_of_a_table() -> None:
    numbers = np.arange(12, dtype=np.int32).reshape(3, 4)
    first = Pair(np.array([[3, 4]], np.int32), 1.5)
    table = ArrayTable(Layout(first, -7, Pair(numbers, np.float32(-0.5)), np.empty(0, np.uint8)))
    out = np.zeros(3)
    _sums(table.table, out)
    weights = 10 * np.arange(3)[:, None] + np.arange(4)
    assert out.tolist() == [-0.5 * float((numbers * weights).sum()), 10.5, -7.0]
    before = out[0]
    numbers[2, 3] = 100  # they are where they were
    _sums(table.table, out)
    assert out[0] == before - 0.5 * float((numbers * weights).sum())


def test_a_table_takes_only_what_its_layout_declares() -> None:
    empty = np.empty(0, np.uint8)
    for wrong in (
        np.zeros((4, 4), np.int32)[:, :2], np.zeros((2, 2, 2), np.int32), np.zeros(8, np.int32)[::2],
        np.zeros(8, np.int32), np.zeros((2, 2), np.int64),
    ):  # fmt: skip
        fine = Pair(np.zeros((2, 2), np.int32), 1.0)
        ArrayTable(Layout(fine, 0, fine, empty))
        with pytest.raises(AssertionError):
            ArrayTable(Layout(fine, 0, Pair(wrong, 1.0), empty))
