"""Codes of texts: each distinct text (or bytes) of a column has a number, from 1 on, in the order in which they came.

A dictionary only grows, so that whoever holds it may go on reading. A column of texts that rarely repeat would cost
more in its dictionary than in its rows: it is `hashed`: the code is a checksum of the text, and who compares with it
must look at the records of the rows that it lets through.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits


class _Codes(dict[Any, int]):
    """The code of each text; a new one is given the next."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__({value: code for code, value in enumerate(values) if code})
        self.values_by_code = values
        self.text_bytes = 0

    def __missing__(self, value: Any) -> int:
        code = len(self.values_by_code)
        self.values_by_code.append(value)
        self.text_bytes += len(value)
        self[value] = code
        return code


class Dictionary:
    """Texts of one column. values[code] is the text; values[0] is nothing."""

    hashed = False

    def __init__(self, values: Iterable[Any] = ()) -> None:
        self.values: list[Any] = [None, *values]
        self._codes = _Codes(self.values)
        self._codes.text_bytes = sum(map(len, self.values[1:]))
        self._known: dict[object, tuple[int, NDArray[np.bool_]]] = {}

    def encode(self, values: list[Any]) -> NDArray[np.uint64]:
        """uint64[n]; texts that are not known yet are added."""
        return np.fromiter(map(self._codes.__getitem__, values), np.uint64, len(values))

    def code(self, value: Any) -> int | None:
        """None where no row has it."""
        return self._codes.get(value)

    def which(self, key: object, wanted: Callable[[Any], bool]) -> NDArray[np.bool_]:
        """bool[codes + 1]: the texts that are wanted; [0] is False. key : equal for equal questions, whose answers are
        kept, since texts never change.
        """
        known, found = self._known.get(key, (1, np.zeros(1, bool)))
        size = len(self.values)
        if known < size:
            more = np.fromiter(map(wanted, self.values[known:size]), bool, size - known)
            found = np.concatenate([found, more])
            if len(self._known) >= limits.dictionary_questions_max:
                self._known = {}
            self._known[key] = size, found
        return found

    def is_worth_it(self, rows: int) -> bool:
        """Whether texts repeat enough among `rows` values."""
        size = len(self.values)
        many = size > limits.dictionary_texts_max and size > rows // 4
        long = self._codes.text_bytes > limits.dictionary_bytes_min + limits.dictionary_row_bytes * rows
        return not (many or long)

    def hashes(self) -> NDArray[np.uint64]:
        """uint64[codes + 1]: the code that each text has in a hashed column; [0] is 0."""
        found = np.fromiter(map(hash_of, self.values[1:]), np.uint64, len(self.values) - 1)
        return np.concatenate([np.zeros(1, np.uint64), found])

    @property
    def nbytes(self) -> int:
        """About what it takes in memory."""
        return 160 * len(self.values) + self._codes.text_bytes


class HashedTexts(Dictionary):
    """No texts at all: codes are checksums."""

    hashed = True

    def encode(self, values: list[Any]) -> NDArray[np.uint64]:
        return np.fromiter(map(hash_of, values), np.uint64, len(values))

    def code(self, value: Any) -> int | None:
        return hash_of(value)


def hash_of(value: str | bytes) -> int:
    """At least 1, at most 2**32."""
    return zlib.crc32(value.encode() if isinstance(value, str) else value) + 1
