"""Word vectors: a word and its numbers a line, as GloVe writes them, or word2vec and fastText as text or binary.

    GloVe                    record*              record := word SP number (SP number)* LF
    word2vec text (.vec)     n SP dim LF record*
    word2vec binary (.bin)   n SP dim LF (word SP float32[dim] [LF])*     little-endian

The word is the id. It may hold spaces: of a text line the last `dim` cells are the vector, where `dim` is the fewest
cells that are numbers at the end of any of the first lines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument, VecdbError

from ..headers import file_dim_max
from ..inputs import InputFile
from .lines import Lines, Place, TextSource, mark_rows
from .table import TableSource, Window, stack_rows

sampled_lines = 1_000
word_bytes_max = 4_096
_HEADER = re.compile(rb"([0-9]{1,12}) ([0-9]{1,7}) ?\n")


def looks_like_words(head: bytes) -> bool:
    """Whether the first whole lines of a text are words with numbers, under a header of word2vec or none."""
    lines = head.split(b"\n")[:20]
    lines = lines[:-1] if len(lines) > 1 else lines
    header = _HEADER.match(head)
    if header:
        lines = lines[1:]
    counts = [_trailing_numbers(line.decode("utf-8", "replace")) for line in lines if line.strip()]
    if not counts:
        return False
    least = 2 if header is None else int(header[2])
    return min(count for count, _ in counts) >= least and any(words > count for count, words in counts)


def looks_like_binary_words(head: bytes) -> bool:
    header = _HEADER.match(head)
    return header is not None and b"\x00" in head[header.end() :]


class WordSource(TextSource):
    """An open text of word vectors."""

    id_column = "word"
    vector_column = "vector"

    def __init__(self, file: InputFile, check_finite: bool) -> None:
        self.file, self.path, self.field_columns = file, file.name, []
        self._marks = []
        first = next(Lines(file, (0, 0)), "")
        self._header = bool(_HEADER.fullmatch(first.rstrip(" \r\n").encode() + b"\n"))
        self._dim = int(first.split()[1]) if self._header else 0
        rows, least = 0, file_dim_max
        for place, line in self._word_lines(Lines(file, (0, 0))):
            if rows % mark_rows == 0:
                self._marks.append(place)
            if rows < sampled_lines and not self._header and isinstance(line, str):
                least = min(least, _trailing_numbers(line)[0])
            rows += 1
        if not rows:
            raise InvalidArgument(f"{self.path}: no words")
        if not self._header:
            self._dim = least
        if not 1 <= self._dim <= file_dim_max:
            raise InvalidArgument(f"{self.path}: not every line ends in numbers: no file of word vectors")
        if self._header and rows != int(first.split()[0]):
            raise Corruption(f"{self.path}: line 1 says {first.split()[0]} words, the file has {rows:,}: truncated?")
        super().__init__(self.path, "words", (rows, self._dim), "f4", check_finite)

    def _word_lines(self, lines: Lines) -> Iterator[tuple[Place, str | VecdbError]]:
        while True:
            place = lines.place
            try:
                text = next(lines)
            except StopIteration:
                return
            except Corruption as error:
                yield place, error
                continue
            if text.strip() and not (self._header and place == (0, 0)):
                yield place, text.rstrip(" \r\n")

    def _records(self, lines: Lines) -> Iterator[tuple[Place, Any]]:
        for place, line in self._word_lines(lines):
            yield place, line if isinstance(line, VecdbError) else line.rsplit(" ", self._dim)

    def _convert(self, start: int, places: list[int], records: list[Any], bad: dict[int, VecdbError]) -> Window:
        rows = [["", ""] if isinstance(record, VecdbError) else record for record in records]
        block, wrong = stack_rows([row[1:] for row in rows], self.dim)
        for at, row in enumerate(rows):
            if not row[0]:
                wrong.setdefault(at, ": there is no word before the numbers")
        for at, what in wrong.items():
            bad.setdefault(start + at, self._row_error(start + at, places[at], what))
        return Window(start, block, [row[0] for row in rows], None, bad)


class BinaryWordSource(TableSource):
    """An open binary file of word2vec."""

    id_column = "word"
    vector_column = "vector"

    def __init__(self, file: InputFile, check_finite: bool) -> None:
        self.file, self.path, self.field_columns = file, file.name, []
        with open(file.path, "rb") as handle:
            header = _HEADER.match(handle.read(64))
        if header is None:
            raise Corruption(f"{self.path}: no first line with the number of words and their dim")
        rows, self._dim = int(header[1]), int(header[2])
        if not 1 <= self._dim <= file_dim_max or rows * self._dim * 4 > os.path.getsize(file.path):
            raise Corruption(f"{self.path}: line 1 says {rows:,} words of dim {self._dim:,}, the file is too short")
        self._mapped = np.memmap(file.path, np.uint8, "r")
        self._starts = self._places(rows, header.end())
        super().__init__(self.path, "word2vec", (rows, self._dim), "f4", check_finite)

    def _places(self, rows: int, at: int) -> np.ndarray[Any, Any]:
        """int64[rows, 2]: where each word begins and where its numbers do."""
        raw, width = self._mapped.data, 4 * self._dim
        places = np.empty((rows, 2), np.int64)
        for row in range(rows):
            if at < len(raw) and raw[at] == 10:  # the line end that some writers put after the numbers
                at += 1
            end = bytes(raw[at : at + 256]).find(b" ")
            if end < 0:
                end = bytes(raw[at : at + word_bytes_max]).find(b" ")
            if end < 0 or at + end + 1 + width > len(raw):
                raise Corruption(f"{self.path}: word {row:,} of {rows:,} ends beyond the file: truncated")
            places[row] = at, at + end + 1
            at += end + 1 + width
        return places

    def _parse(self, start: int, stop: int) -> Window:
        words, bad = [], {}
        block = np.empty((stop - start, self._dim), np.float32)
        for row in range(start, stop):
            first, numbers_at = self._starts[row].tolist()
            raw = self._mapped[first : numbers_at - 1].tobytes()
            word = raw.decode("utf-8", "replace")
            if not word or word.encode() != raw:
                bad[row] = self._row_error(row, None, f": the word {raw!r} is empty or not UTF-8")
            words.append(word)
            block[row - start] = self._mapped[numbers_at : numbers_at + 4 * self._dim].view("<f4")
        return Window(start, block, words, None, bad)

    def close(self) -> None:
        self.file.close()


def _trailing_numbers(line: str) -> tuple[int, int]:
    """(cells at the end of a line that are numbers, cells)."""
    cells = line.rstrip(" \r\n").split(" ")
    count = 0
    for cell in reversed(cells):
        try:
            float(cell)
        except ValueError:
            break
        count += 1
    return count, len(cells)
