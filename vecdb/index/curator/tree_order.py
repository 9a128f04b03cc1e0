"""Codes in the order of a clustering tree: what a Curator index searches.

    slot     0 ............ indexed .......... coded          codes[slot], bias[slot], lines[slot]
             leaf by leaf   in order of rows
    rows_of[slot] <-> slots_of[row]     a permutation of the first `indexed`, the same number from there on

A slot is the position of a row's codes. It changes only when a new order is made: a new `TreeOrderedCodes`, while
searches that hold the old one go on with it. New rows are encoded in place, into the slots behind.

Thread rule: any number of readers, who read only slots of rows that their snapshot sees; one writer of the slots
behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.cluster_tree import Heads, bias_of, heads_of, split
from vecdb.index.common.memory import reserve
from vecdb.index.common.quantizer import SQ8, ScalarQuantizer, block_count
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.curator.one_bit_filter import OneBitFilter, line_bytes
from vecdb.index.curator.tree_space import RowsInSpace
from vecdb.kernels.codes import one_bit_fastscan
from vecdb.kernels.codes.one_bit_fastscan import FACTORS
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.bit_products import PANEL_ROWS
from vecdb.kernels.primitives.distance import IP, L2
from vecdb.storage.disk.row_file import RowArrays

_SPREAD_SHARE = 0.4  # of the mean squared distance of a node's rows from it, taken off its distance (Curator)
_SQUARE_ROWS = 256  # that an average over rows is taken from
_GATHER_ROWS = 8_192  # codes moved at once

NO_BIAS: NDArray[np.int32] = np.empty(0, np.int32)
NO_PANELS: NDArray[np.uint8] = np.empty((0, 0), np.uint8)


@dataclass(frozen=True, slots=True)
class TreeOrderedCodes:
    """quantiser : of `codes`.   codes : uint8[capacity, width].   bias : int32[capacity], or empty where only products
    count or the codes' format keeps none.
    own_space : of the tree's 8-bit codes, where `codes` are others (tree_space.py).   outside : rows beyond its range.

    lines : uint8[capacity, stride], one-bit codes (one_bit_lines.py); no column where there is no filter.
    rows_of, slots_of : uint32[capacity].   heads : of leaves and groups.   leaf_ends : int64[leaves], slots.
    leaf_spreads, group_spreads : float32, what is taken off the distance of a node; empty under ip.
    far : int32[any], rows with elements outside of the range of 8-bit codes (sq8.py): searches score all of them on
    their vectors.
    indexed : slots in the order of the tree.   square : |code - 128|^2 of a row, on average over some of them; -1 of
    codes that are not of 8 bits with one scale.
    panels : uint8[indexed / 32, any], the lines of sorted slots once more, for searches that look at many of them
    (one_bit_fastscan.py); empty until there was one.
    token : the same object as long as every row keeps its slot.
    """

    quantiser: ScalarQuantizer
    own_space: ScalarQuantizer | None
    codes: NDArray[np.uint8]
    bias: NDArray[np.int32]
    lines: NDArray[np.uint8]
    bit_filter: OneBitFilter | None
    rows_of: NDArray[np.uint32]
    slots_of: NDArray[np.uint32]
    heads: Heads
    leaf_ends: NDArray[np.int64]
    leaf_spreads: NDArray[np.float32]
    group_spreads: NDArray[np.float32]
    far: NDArray[np.int32]
    indexed: int
    square: np.float32
    outside: int = 0
    panels: NDArray[np.uint8] = field(default_factory=lambda: NO_PANELS)
    token: object = field(default_factory=object)

    @property
    def coded(self) -> CodeArrays:
        """The arrays by slot."""
        return CodeArrays(self.quantiser, self.codes, self.bias, self.lines, self.bit_filter)

    @property
    def space(self) -> ScalarQuantizer:
        """Of the tree's codes."""
        return self.own_space or self.quantiser

    @property
    def beyond(self) -> int:
        """How many rows are beyond the range of the tree's codes."""
        return self.outside if self.is_apart else len(self.far)

    @property
    def is_apart(self) -> bool:
        """Whether the codes that searches compare are not in the tree's space."""
        return self.own_space is not None

    def rows_in_space(self, arrays: RowArrays, metric: int) -> RowsInSpace:
        """The codes of rows in the tree's space."""
        return RowsInSpace(self.own_space, self.codes, self.slots_of, arrays, metric)

    @property
    def can_have_panels(self) -> bool:
        return self.bit_filter is not None and self.indexed > 0

    def with_panels(self) -> TreeOrderedCodes:
        """The same order with its panels."""
        assert self.bit_filter is not None
        width = self.bit_filter.width
        laid = reserve((-(-self.indexed // PANEL_ROWS), PANEL_ROWS * (width + FACTORS)), np.uint8)
        one_bit_fastscan.pack_panels(
            self.lines, self.lines.view(np.float32), self.indexed, width, laid, laid.view(np.float32)
        )
        return replace(self, panels=laid)

    @property
    def capacity(self) -> int:
        return len(self.codes)

    @property
    def leaf_count(self) -> int:
        return self.heads.count

    def leaf_lengths(self) -> NDArray[np.int64]:
        """int64[leaves]: slots of each."""
        return np.diff(self.leaf_ends, prepend=0)

    def leaves_of_rows(self) -> NDArray[np.int32]:
        """int32[indexed]: the leaf of each row."""
        leaves = np.empty(self.indexed, np.int32)
        leaves[self.rows_of[: self.indexed]] = np.repeat(
            np.arange(self.leaf_count, dtype=np.int32), self.leaf_lengths()
        )
        return leaves

    def slots(self, rows: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """uint32[n], ascending: where the codes of `rows` are."""
        found: NDArray[np.uint32] = self.slots_of[rows]
        found.sort()
        return found

    def nbytes(self, rows: int) -> int:
        """Bytes in use by so many rows."""
        per_row = self.codes.shape[1] + self.lines.shape[1] + 8 + (4 if len(self.bias) else 0)
        tree = self.heads.nbytes() + self.leaf_ends.nbytes + self.leaf_spreads.nbytes + self.group_spreads.nbytes
        return int(rows * per_row + tree + self.panels.nbytes)


def bytes_per_row(dim: int) -> int:
    """Memory of one row: code, bias, line, and the two directions of the permutation."""
    return 64 * block_count(dim) + 4 + line_bytes(dim) + 8


@dataclass(frozen=True, slots=True)
class CodeArrays:
    """Arrays with room for the codes of all rows, by slot, whatever the order of the slots is."""

    quantiser: ScalarQuantizer
    codes: NDArray[np.uint8]
    bias: NDArray[np.int32]
    lines: NDArray[np.uint8]
    bit_filter: OneBitFilter | None

    @staticmethod
    def reserve(capacity: int, quantiser: ScalarQuantizer, bit_filter: OneBitFilter | None, metric: int) -> CodeArrays:
        biased = metric == L2 and quantiser.code_format == SQ8
        return CodeArrays(
            quantiser,
            reserve((capacity, quantiser.width), np.uint8),
            reserve(capacity, np.int32) if biased else NO_BIAS,
            reserve_lines(capacity, bit_filter),
            bit_filter,
        )

    def encode(
        self, vectors: NDArray[Any], metric: int, first: int, stop: int, *, find_flat: bool = False
    ) -> NDArray[np.int32]:
        """Encode rows [first, stop) of vectors (stored dtype[n, dim]) into the slots of the same numbers. Returns the
        far rows, int32[any]. find_flat : see `ScalarQuantizer.encode`.
        """
        far = np.empty(max(0, stop - first), np.int32)
        count = self.quantiser.encode(
            checksums.for_kernels(vectors), first, stop, metric, self.codes, self.bias, far, find_flat=find_flat
        )
        if self.bit_filter is not None:
            self.bit_filter.encode(vectors, first, stop, self.lines, first)
        return far[:count].copy()


def reserve_lines(capacity: int, bit_filter: OneBitFilter | None) -> NDArray[np.uint8]:
    """uint8[capacity, stride]; no column without a filter."""
    if bit_filter is None:
        return np.empty((capacity, 0), np.uint8)
    lines: NDArray[np.uint8] = reserve((capacity, bit_filter.stride), np.uint8)
    return lines


def identity(capacity: int) -> NDArray[np.uint32]:
    """uint32[capacity]: 0, 1, 2 ... in memory of its own, which is freed with the last reference."""
    numbers: NDArray[np.uint32] = reserve(capacity, np.uint32)
    for part in _parts(0, capacity):
        numbers[part] = np.arange(part.start, part.stop, dtype=np.uint32)
    return numbers


def split_leaves(
    heads: Heads,
    labels: NDArray[np.int32],
    in_space: RowsInSpace,
    ceiling: int,
    workers: ThreadPool,
) -> tuple[Heads, NDArray[np.int32]]:
    """Split the leaves with more than `ceiling` rows, within their groups. Returns the new heads and labels.

    labels : int32[rows], the leaf of each.
    """
    dim = in_space.arrays.vectors.shape[1]
    counts = np.bincount(labels, minlength=heads.count)
    over = np.flatnonzero(counts > ceiling)
    if len(over) == 0:
        return heads, labels
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(counts)
    codes, groups = [heads.codes], [heads.group_of()]
    labels = labels.copy()
    count = heads.count
    for leaf in over.tolist():
        rows = order[ends[leaf] - counts[leaf] : ends[leaf]]
        parts = -(-2 * len(rows) // ceiling)
        fresh, own = split(in_space.codes_of(rows), dim, parts, workers)
        codes[0][leaf] = fresh[0]  # the first part replaces the leaf
        codes.append(fresh[1:])
        groups.append(np.full(len(fresh) - 1, groups[0][leaf]))
        labels[rows[own > 0]] = count + own[own > 0] - 1
        count += len(fresh) - 1
    all_groups = np.concatenate(groups)
    moved = np.argsort(all_groups, kind="stable")
    places = np.empty(count, np.int32)
    places[moved] = np.arange(count)
    return heads_of(np.concatenate(codes)[moved], all_groups[moved], heads.group_codes), places[labels]


def ordered(
    coded: CodeArrays, in_space: RowsInSpace, heads: Heads, labels: NDArray[np.int32], far: NDArray[np.int32],
    capacity: int, outside: int = 0,
) -> TreeOrderedCodes:  # fmt: skip
    """The rows [0, len(labels)) in the order of their leaves, with room for `capacity` rows. The caller encodes the
    rows behind.

    coded : the rows' codes, whose slots are those of `in_space`.   labels : int32[rows], the leaf of each.
    far, outside : see `TreeOrderedCodes`.
    """
    slots_of, metric, stop = in_space.slots_of, in_space.metric, len(labels)
    rows = np.argsort(labels, kind="stable")
    leaf_ends = np.cumsum(np.bincount(labels, minlength=heads.count))
    fresh = CodeArrays.reserve(capacity, coded.quantiser, coded.bit_filter, metric)
    for part in _parts(0, stop):
        at = slots_of[rows[part]]
        fresh.codes[part] = coded.codes[at]
        fresh.lines[part] = coded.lines[at]
        if len(coded.bias):
            fresh.bias[part] = coded.bias[at]
    rows_of, new_slots = identity(capacity), identity(capacity)
    rows_of[:stop] = rows
    new_slots[rows] = np.arange(stop, dtype=np.uint32)
    sorted_rows = replace(in_space, codes=fresh.codes, slots_of=new_slots)
    spreads = _spreads(sorted_rows, rows, heads, leaf_ends) if metric != IP else (np.empty(0, np.float32),) * 2
    return TreeOrderedCodes(
        coded.quantiser, in_space.own, fresh.codes, fresh.bias, fresh.lines, coded.bit_filter, rows_of, new_slots,
        heads, leaf_ends, *spreads, far, stop, mean_square(fresh, stop), outside,
    )  # fmt: skip


def mean_square(coded: CodeArrays, indexed: int) -> np.float32:
    """See `TreeOrderedCodes.square`."""
    if coded.quantiser.code_format != SQ8:
        return np.float32(-1.0)
    some = coded.codes[: indexed : max(1, indexed // _SQUARE_ROWS)]
    return np.float32(bias_of(some).mean() if len(some) else 0.0)


def _spreads(
    in_space: RowsInSpace, rows: NDArray[np.int64], heads: Heads, leaf_ends: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """float32[leaves], float32[groups]: what a search takes off the distance of each. rows : by slot."""
    counts = np.diff(leaf_ends, prepend=0)
    group_of = heads.group_of()
    leaf_sums, group_sums = np.zeros(heads.count), np.zeros(len(heads.group_ends))
    leaves = np.repeat(np.arange(heads.count), counts)
    for part in _parts(0, len(leaves)):
        own = in_space.codes_of(rows[part]).astype(np.float32)
        leaf_sums += np.bincount(leaves[part], _squares(own, heads.codes[leaves[part]]), heads.count)
        groups = group_of[leaves[part]]
        group_sums += np.bincount(groups, _squares(own, heads.group_codes[groups]), len(group_sums))
    group_counts = np.bincount(group_of, counts, len(group_sums))
    return (
        (_SPREAD_SHARE * leaf_sums / np.maximum(counts, 1)).astype(np.float32),
        (_SPREAD_SHARE * group_sums / np.maximum(group_counts, 1)).astype(np.float32),
    )


def _squares(a: NDArray[np.float32], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    difference = a - b
    squares: NDArray[np.float32] = np.einsum("ij,ij->i", difference, difference)
    return squares


def _parts(first: int, stop: int) -> Iterator[slice]:
    yield from (slice(start, min(stop, start + _GATHER_ROWS)) for start in range(first, stop, _GATHER_ROWS))
