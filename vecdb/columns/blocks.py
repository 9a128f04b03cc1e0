"""Codes of a column, cut into blocks of 65,536 rows, each in the smallest type that holds its codes.

    block  := codes uint8|16|32|64 [rows], base       the row's code is 0 where codes is 0, else base + codes
            | codes uint32 [rows], fine uint32 [rows], base
                                                      ... else base + (codes << 32 | fine), of codes that need 64 bits
    tail   := the rows behind the last full block, uint64

What 64 bits need (most floats) is cut in two, because the upper halves decide nearly every comparison: `fine` is read
where an upper half is that of a bound, and may lie on disk.

A full block never changes: a row whose value changes gets a new block. Rows of the tail are appended in place, behind
what any reader looks at. Answers are bits, little-endian in each byte, as `numpy.packbits` makes them.

Measured, 1,000,000 rows: numpy on blocks that stay in the cache takes .1 to .3 ns a row and comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.columns.encoding import ABSENT, Interval

BLOCK_ROWS = 65_536
BLOCK_BYTES = BLOCK_ROWS // 8
_TYPES = (np.uint8, np.uint16, np.uint32, np.uint64)
_HALF, _HALF_MAX = np.uint64(32), (1 << 32) - 1
_ISIN_EQUALITIES_MAX = 8  # fewer codes are compared one by one

Bits = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """codes : uint8|16|32|64[n].   lowest, highest : codes (with base) of the rows that have one.   whole : all rows
    have one.   fine : lower halves, uint32[n]; None where codes are whole.   fine_on_disk : it is mapped from a file.
    """

    codes: NDArray[np.unsignedinteger]
    base: int
    lowest: int
    highest: int
    whole: bool
    fine: NDArray[np.uint32] | None = None
    fine_on_disk: bool = False

    @property
    def nbytes(self) -> int:
        """Memory that it takes, without what is read from disk when it is needed."""
        return self.codes.nbytes + (0 if self.fine is None or self.fine_on_disk else self.fine.nbytes)

    def at(self, rows: NDArray[np.int64] | slice) -> NDArray[np.uint64]:
        """uint64[m]: codes, with base, of some rows; 0 where a row has none."""
        codes = self.codes[rows].astype(np.uint64)
        present = codes != 0
        if self.fine is not None:
            codes = codes << _HALF | self.fine[rows]
        return np.where(present, codes + np.uint64(self.base), 0) if self.base else codes


def packed(wide: NDArray[np.uint64]) -> CodeBlock | None:
    """The block of codes uint64[n]; None where no row has one."""
    present = int(np.count_nonzero(wide))
    if not present:
        return None
    lowest, highest = int((wide - np.uint64(1)).min()) + 1, int(wide.max())  # 0, no code, becomes the largest of all
    whole, base = present == len(wide), lowest - 1
    if highest - base > _HALF_MAX and lowest > 1 << 32:
        base = lowest - (1 << 32)  # no upper half is 0
        local = wide - np.uint64(base)
        codes = np.where(wide != ABSENT, local >> _HALF, 0).astype(np.uint32)
        return CodeBlock(codes, base, lowest, highest, whole, local.astype(np.uint32))
    kind = next(one for one in _TYPES if highest - base <= np.iinfo(one).max)
    local = wide - np.uint64(base)
    if base and not whole:
        local[wide == ABSENT] = 0
    return CodeBlock(local.astype(kind), base, lowest, highest, whole)


def unpacked(block: CodeBlock | None, rows: int) -> NDArray[np.uint64]:
    """uint64[rows]: codes with their base."""
    return np.zeros(rows, np.uint64) if block is None else block.at(slice(None))


def in_interval(block: CodeBlock, wanted: Interval) -> NDArray[np.bool_] | bool:
    """bool[n], or one value for all rows: whose code lies in the interval, both ends included."""
    low, high = max(wanted[0], block.lowest), min(wanted[1], block.highest)
    if low > high:
        return False
    if low == block.lowest and high == block.highest:
        return True if block.whole else block.codes != 0
    if block.fine is not None:
        return _fine_in_interval(block, low, high)
    codes, low, high = block.codes, low - block.base, high - block.base
    kind = codes.dtype.type
    if low == high:
        return np.asarray(codes == kind(low))
    return np.asarray((codes - kind(low)) <= kind(high - low))


def _fine_in_interval(block: CodeBlock, low: int, high: int) -> NDArray[np.bool_]:
    """The same of a block in halves, for bounds between its lowest and highest code."""
    first, last = low - block.base >> 32, high - block.base >> 32
    found: NDArray[np.bool_] = (block.codes - np.uint32(first)) <= np.uint32(last - first)
    bounds = {first} if low > block.lowest else set()
    if high < block.highest:
        bounds.add(last)
    for bound in bounds:
        rows = np.flatnonzero(block.codes == np.uint32(bound))
        codes = block.at(rows)
        found[rows] = (codes >= np.uint64(low)) & (codes <= np.uint64(high))
    return found


def among(block: CodeBlock, wanted: NDArray[np.uint64]) -> NDArray[np.bool_] | bool:
    """bool[n], or False for all rows: whose code is one of `wanted` (ascending, each once)."""
    if len(wanted) == 1:
        return in_interval(block, (int(wanted[0]),) * 2)
    first = int(np.searchsorted(wanted, np.uint64(block.lowest), "left"))
    last = int(np.searchsorted(wanted, np.uint64(block.highest), "right"))
    inside = wanted[first:last]
    if not len(inside):
        return False
    if block.fine is not None:
        halves = np.unique((inside - np.uint64(block.base)) >> _HALF).astype(np.uint32)
        found = _is_one_of(block.codes, halves)
        rows = np.flatnonzero(found)
        found[rows] = _is_one_of(block.at(rows), inside)
        return found
    return _is_one_of(block.codes, (inside - np.uint64(block.base)).astype(block.codes.dtype))


def _is_one_of(codes: NDArray[np.unsignedinteger], targets: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """bool[n]: whether a code is one of the targets (of the same type, ascending, at least one)."""
    if len(targets) <= _ISIN_EQUALITIES_MAX:
        found = codes == targets[0]
        for one in targets[1:]:
            found |= codes == one
        return np.asarray(found)
    if codes.dtype.itemsize <= 2:
        return in_table(codes, targets)
    at = np.searchsorted(targets, codes)
    return np.asarray(targets[np.minimum(at, len(targets) - 1)] == codes)


def in_table(codes: NDArray[np.unsignedinteger], targets: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """bool[n]: whether the code (8 or 16 bits) is one of the targets, by a table of all codes."""
    table = np.zeros(1 << (8 * codes.dtype.itemsize), bool)
    table[targets] = True
    found: NDArray[np.bool_] = table[codes]
    return found


def marked(block: CodeBlock, table: NDArray[np.bool_]) -> NDArray[np.bool_] | bool:
    """bool[n], or one value for all rows: whether the row's code is marked in a table (bool[codes + 1], [0] False; the
    codes are those of a dictionary).
    """
    part = table[block.base : block.highest + 1]
    if not part[1:].any():
        return False
    local = part.copy()
    local[0] = False
    found: NDArray[np.bool_] = local[block.codes]
    return found


def to_bits(found: NDArray[np.bool_] | bool, rows: int, nbytes: int) -> Bits:
    """uint8[nbytes]: the bits of `rows` rows, the rest 0."""
    if isinstance(found, bool):
        bits = np.zeros(nbytes, np.uint8)
        if found:
            bits[: rows // 8] = 0xFF
            if rows % 8:
                bits[rows // 8] = (1 << rows % 8) - 1
        return bits
    packed_bits = np.packbits(found, bitorder="little")
    if len(packed_bits) == nbytes:
        return packed_bits
    bits = np.zeros(nbytes, np.uint8)
    bits[: len(packed_bits)] = packed_bits
    return bits
