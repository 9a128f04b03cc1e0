"""A column: the values of one kind that one path has, row by row; or the elements of its lists.

    Column     a code a row                             blocks (blocks.py), then the tail
    Elements   codes of elements of lists, each with    the same, of any number of elements a block
               its row in the block

Both are values: to append or to change gives another one, which shares what did not change. The only writing in place
is behind the tail's rows, where no reader looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from vecdb.columns.blocks import BLOCK_BYTES, BLOCK_ROWS, Bits, CodeBlock, packed, to_bits, unpacked
from vecdb.columns.dictionary import Dictionary

Test = Callable[[CodeBlock], "NDArray[np.bool_] | bool"]
_TAIL_ROWS_MIN = 256
_NO_CODES: NDArray[np.uint64] = np.empty(0, np.uint64)
_NO_ROWS: NDArray[np.uint16] = np.empty(0, np.uint16)


def _grown(array: NDArray[np.uint64], used: int, size: int, most: int) -> NDArray[np.uint64]:
    """The array with room for `size`; what is behind `used` is 0."""
    if size <= len(array):
        return array
    fresh = np.zeros(min(most, max(size, 2 * len(array), _TAIL_ROWS_MIN)), array.dtype)
    fresh[:used] = array[:used]
    return fresh


@dataclass(frozen=True, slots=True)
class Column:
    """rows : how many it has: full blocks, then `used` of the tail.   dictionary : of texts, else None.   count : rows
    that have a value.   packed_tail : made for the first filter that asks (.2 ms for half a block).
    """

    kind: str
    blocks: tuple[CodeBlock | None, ...] = ()
    tail: NDArray[np.uint64] = field(default_factory=lambda: _NO_CODES)
    used: int = 0
    count: int = 0
    dictionary: Dictionary | None = None
    packed_tail: list[CodeBlock | None] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def rows(self) -> int:
        return len(self.blocks) * BLOCK_ROWS + self.used

    @property
    def nbytes(self) -> int:
        texts = 0 if self.dictionary is None else self.dictionary.nbytes
        packed_blocks = (*self.blocks, *self.packed_tail)
        return texts + self.tail.nbytes + sum(block.nbytes for block in packed_blocks if block is not None)

    def extended(self, first: int, codes: NDArray[np.uint64]) -> Column:
        """With codes (uint64[n], 0: no value) of the rows from `first` on; rows between its own end and `first` have
        none.
        """
        column, row = self._padded(first), first
        stop = first + len(codes)
        while row < stop:
            used = row % BLOCK_ROWS
            take = min(BLOCK_ROWS - used, stop - row)
            part = codes[row - first : row - first + take]
            tail = _grown(column.tail, column.used, used + take, BLOCK_ROWS)
            tail[used : used + take] = part
            count = column.count + int(np.count_nonzero(part))
            row += take
            if used + take == BLOCK_ROWS:
                column = replace(column, blocks=(*column.blocks, packed(tail)), tail=_NO_CODES, used=0, count=count)
            else:
                column = replace(column, tail=tail, used=used + take, count=count)
        return column

    def _padded(self, first: int) -> Column:
        """Up to row `first`, with rows that have no value."""
        missing = first // BLOCK_ROWS - len(self.blocks)
        if missing > 0:
            last = packed(_grown(self.tail, self.used, BLOCK_ROWS, BLOCK_ROWS)) if self.used else None
            blocks = (*self.blocks, last, *(None,) * (missing - 1))
            return replace(self, blocks=blocks, tail=_NO_CODES, used=0)._padded(first)
        used = first % BLOCK_ROWS
        return (
            self if used <= self.used else replace(self, tail=_grown(self.tail, self.used, used, BLOCK_ROWS), used=used)
        )

    def changed(self, rows: NDArray[np.int64], codes: NDArray[np.uint64]) -> Column:
        """With other codes (uint64[n]) for `rows` (int64[n], ascending, each once, below `rows`)."""
        column = self._padded(int(rows[-1]) + 1) if len(rows) and rows[-1] >= self.rows else self
        blocks, tail, count = list(column.blocks), column.tail, column.count
        numbers = rows // BLOCK_ROWS
        for number in np.unique(numbers).tolist():
            here = numbers == number
            places, new = rows[here] % BLOCK_ROWS, codes[here]
            full = number < len(blocks)
            wide = unpacked(blocks[number], BLOCK_ROWS) if full else tail
            old = wide[places]
            if np.array_equal(old, new):
                continue
            wide = wide if full else wide.copy()
            wide[places] = new
            count += int(np.count_nonzero(new)) - int(np.count_nonzero(old))
            if full:
                blocks[number] = packed(wide)
            else:
                tail = wide
        return replace(column, blocks=tuple(blocks), tail=tail, count=count)

    def recoded(self, codes: NDArray[np.uint64], dictionary: Dictionary) -> Column:
        """With codes[code] in the place of each code."""
        blocks = tuple(None if one is None else packed(codes[unpacked(one, BLOCK_ROWS)]) for one in self.blocks)
        return replace(self, blocks=blocks, tail=codes[self.tail], dictionary=dictionary)

    def bits(self, test: Test, nbytes: int) -> Bits:
        """uint8[nbytes], a bit a row: the rows whose codes pass the test."""
        found = np.zeros(nbytes, np.uint8)
        for number, block in enumerate(self.blocks):
            if block is None:
                continue
            answer = test(block)
            if answer is not False:
                part = found[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
                part[:] = to_bits(answer, BLOCK_ROWS, BLOCK_BYTES)[: len(part)]
        tail = self.tail_block()
        if tail is not None:
            part = found[len(self.blocks) * BLOCK_BYTES :]
            bits = to_bits(test(tail), self.used, -(-self.used // 8))
            part[: len(bits)] = bits[: len(part)]
        return found

    def tail_block(self) -> CodeBlock | None:
        if not self.packed_tail:
            self.packed_tail.append(packed(self.tail[: self.used]))
        return self.packed_tail[0]

    def codes_at(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """uint64[n]: codes of rows (ascending), 0 where there is none."""
        out = np.zeros(len(rows), np.uint64)
        edges = np.searchsorted(rows, BLOCK_ROWS * np.arange(1, len(self.blocks) + 1))
        start = 0
        for block, end in zip(self.blocks, edges.tolist(), strict=True):
            if block is not None and end > start:
                out[start:end] = block.at(rows[start:end] % BLOCK_ROWS)
            start = end
        places = rows[start:] - len(self.blocks) * BLOCK_ROWS
        inside = places < self.used
        out[start:][inside] = self.tail[places[inside]]
        return out


@dataclass(frozen=True, slots=True)
class ElementBlock:
    """rows : uint16[n], ascending, of each element in its block of rows.   codes : of the elements."""

    rows: NDArray[np.uint16]
    codes: CodeBlock


@dataclass(frozen=True, slots=True)
class Elements:
    """Elements of one kind, of the lists of one path. tail_rows, tail_codes : behind the full blocks, [used] of them.
    count : elements.
    """

    kind: str
    blocks: tuple[ElementBlock | None, ...] = ()
    tail_rows: NDArray[np.uint16] = field(default_factory=lambda: _NO_ROWS)
    tail_codes: NDArray[np.uint64] = field(default_factory=lambda: _NO_CODES)
    used: int = 0
    count: int = 0
    dictionary: Dictionary | None = None
    packed_tail: list[ElementBlock | None] = field(default_factory=list, init=False, compare=False, repr=False)

    @property
    def nbytes(self) -> int:
        texts = 0 if self.dictionary is None else self.dictionary.nbytes
        full = sum(one.rows.nbytes + one.codes.nbytes for one in self.blocks if one is not None)
        return texts + full + self.tail_rows.nbytes + self.tail_codes.nbytes

    def extended(self, block_count: int, rows: NDArray[np.int64], codes: NDArray[np.uint64]) -> Elements:
        """With elements of `rows` (int64[n], ascending, no lower than those there are), and `block_count` full
        blocks of rows.
        """
        elements = self
        numbers = rows // BLOCK_ROWS
        start = 0
        while len(elements.blocks) < block_count:
            end = int(np.searchsorted(numbers, len(elements.blocks), "right"))
            elements = elements._appended(rows[start:end], codes[start:end])._sealed()
            start = end
        return elements._appended(rows[start:], codes[start:])

    def _appended(self, rows: NDArray[np.int64], codes: NDArray[np.uint64]) -> Elements:
        if not len(rows):
            return self
        used = self.used + len(rows)
        tail_rows = _grown(self.tail_rows, self.used, used, 1 << 62)  # type: ignore[arg-type]
        tail_codes = _grown(self.tail_codes, self.used, used, 1 << 62)
        tail_rows[self.used : used] = rows % BLOCK_ROWS
        tail_codes[self.used : used] = codes
        return replace(self, tail_rows=tail_rows, tail_codes=tail_codes, used=used, count=self.count + len(rows))  # type: ignore[arg-type]

    def _sealed(self) -> Elements:
        return replace(self, blocks=(*self.blocks, self.tail_block()), tail_rows=_NO_ROWS, tail_codes=_NO_CODES, used=0)

    def tail_block(self) -> ElementBlock | None:
        if not self.packed_tail:
            codes = packed(self.tail_codes[: self.used])
            self.packed_tail.append(None if codes is None else ElementBlock(self.tail_rows[: self.used], codes))
        return self.packed_tail[0]

    def changed(self, rows: NDArray[np.int64], of: NDArray[np.int64], codes: NDArray[np.uint64]) -> Elements:
        """The elements of `rows` (int64[n], ascending) are now `codes`, of the rows `of` (int64[m], ascending)."""
        blocks, tail, count = list(self.blocks), None, self.count
        numbers = rows // BLOCK_ROWS
        for number in np.unique(numbers).tolist():
            full = number < len(blocks)
            block = blocks[number] if full else self.tail_block()
            old_rows, old = (_NO_ROWS, _NO_CODES) if block is None else (block.rows, unpacked(block.codes, 0))
            kept = ~np.isin(old_rows, rows[numbers == number] % BLOCK_ROWS)
            here = of // BLOCK_ROWS == number
            if kept.all() and not here.any():
                continue
            all_rows = np.concatenate([old_rows[kept], (of[here] % BLOCK_ROWS).astype(np.uint16)])
            order = np.argsort(all_rows, kind="stable")
            all_codes = np.concatenate([old[kept], codes[here]])[order]
            count += len(all_rows) - len(old_rows)
            if full:
                made = packed(all_codes)
                blocks[number] = None if made is None else ElementBlock(all_rows[order], made)
            else:
                tail = all_rows[order], all_codes
        if tail is None:
            return replace(self, blocks=tuple(blocks), count=count)
        return replace(
            self, blocks=tuple(blocks), count=count, tail_rows=tail[0], tail_codes=tail[1], used=len(tail[0])
        )

    def recoded(self, codes: NDArray[np.uint64], dictionary: Dictionary) -> Elements:
        """With codes[code] in the place of each code."""
        blocks = tuple(None if one is None else _recoded(one, codes) for one in self.blocks)
        return replace(self, blocks=blocks, tail_codes=codes[self.tail_codes], dictionary=dictionary)

    def bits(self, test: Test, nbytes: int) -> Bits:
        """uint8[nbytes], a bit a row: the rows of which an element's code passes the test."""
        found = np.zeros(nbytes, np.uint8)
        for number, block in enumerate((*self.blocks, self.tail_block())):
            if block is None:
                continue
            answer = test(block.codes)
            if answer is False:
                continue
            rows = np.zeros(BLOCK_ROWS, bool)
            rows[block.rows if answer is True else block.rows[answer]] = True
            part = found[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            part[:] = np.packbits(rows, bitorder="little")[: len(part)]
        return found


def _recoded(block: ElementBlock, codes: NDArray[np.uint64]) -> ElementBlock:
    made = packed(codes[unpacked(block.codes, 0)])
    assert made is not None, "a code stands for a text"
    return ElementBlock(block.rows, made)
