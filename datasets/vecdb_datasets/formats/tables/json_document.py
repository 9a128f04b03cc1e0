"""JSON documents as lines: an array of objects or of vectors, an object that holds one, or an object of columns.

    [{"id": 1, "vector": [0.1, 0.2]}, ...]     [[0.1, 0.2], ...]     {"data": [{...}, ...]}
    {"ids": [...], "embeddings": [[...], ...], "documents": [...]}

The elements of the array are copied, one a line, into a temporary file without being parsed: memory follows the
longest of them. An object of columns is parsed as a whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from vecdb import Corruption, InvalidArgument, LimitExceeded

from .lines import line_bytes_max

chunk_bytes = 1 << 20
rows_depth_max = 4  # brackets around the rows of a document
columns_bytes_max = 256 << 20
_MARKS = re.compile(rb'[\[\]{}"\\]')
_OPENING = {ord("["): ord("]"), ord("{"): ord("}")}
_METADATA = ("metadata", "metadatas")


class _NotJson(Exception):
    """Brackets that do not match."""


class _Elements:
    """The structure of a document as it goes by: which bytes are an element of an array of objects or lists."""

    def __init__(self) -> None:
        self.open: list[int] = []  # the brackets that wait for their end
        self.in_string = False
        self.level: int | None = None  # of the array whose elements are rows
        self.arrays = 0  # that were found
        self.escaped_at = -1

    def ends(self, chunk: bytes, offset: int) -> Iterator[tuple[int, bool]]:
        """Yield (place in the chunk, whether an element begins there) for each beginning and end of an element."""
        for match in _MARKS.finditer(chunk):
            at = match.start()
            mark = chunk[at]
            if self.in_string:
                if offset + at == self.escaped_at:
                    continue
                if mark == ord("\\"):
                    self.escaped_at = offset + at + 1
                elif mark == ord('"'):
                    self.in_string = False
            elif mark == ord('"'):
                self.in_string = True
            elif mark in _OPENING:
                depth = len(self.open)
                if (
                    self.level is None
                    and 1 <= depth <= rows_depth_max
                    and self.open[-1] == ord("[")
                    and (depth == 1 or mark == ord("{"))
                ):
                    self.level, self.arrays = depth, self.arrays + 1
                self.open.append(mark)
                if depth == self.level:
                    yield at, True
            elif mark != ord("\\"):
                if not self.open or _OPENING[self.open.pop()] != mark:
                    raise _NotJson(f"byte {offset + at:,}: {chr(mark)} closes nothing")
                if self.level is not None and len(self.open) == self.level:
                    yield at + 1, False
                elif self.level is not None and len(self.open) < self.level:
                    self.level = None


def write_lines(path: str, name: str, out: str) -> None:
    """Write the rows of the JSON document at `path` into the file `out`, one a line. name : of it in messages.

    Raises Corruption where it is cut off or no JSON, InvalidArgument where it holds no rows or several arrays of them.
    """
    elements = _Elements()
    with open(path, "rb") as source, open(out, "wb") as sink:
        try:
            rows = _copy(source, sink, elements, name)
        except _NotJson as error:
            raise Corruption(f"{name}: no JSON: {error}") from error
        if elements.open or elements.in_string:
            raise Corruption(f"{name}: the JSON ends in the middle, after {rows:,} whole rows: truncated")
        if elements.arrays > 1:
            raise InvalidArgument(f"{name}: {elements.arrays} arrays of objects, expected one: write one row a line")
        if not rows:
            _write_columns(path, name, sink)


def _copy(source: IO[bytes], sink: IO[bytes], elements: _Elements, name: str) -> int:
    rows, offset = 0, 0
    begun: bytearray | None = None  # an element that goes on in the next chunk
    while chunk := source.read(chunk_bytes):
        copied = 0
        for at, begins in elements.ends(chunk, offset):
            if begins:
                begun, copied = bytearray(), at
            elif begun is not None:
                begun += chunk[copied:at]
                sink.write(begun.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n")
                begun, rows = None, rows + 1
        if begun is not None:
            begun += chunk[copied:]
            if len(begun) > line_bytes_max:
                raise LimitExceeded(f"{name}: row {rows:,} of the JSON is longer than {line_bytes_max:,} bytes")
        offset += len(chunk)
    return rows


def _write_columns(path: str, name: str, sink: IO[bytes]) -> None:
    """The rows of an object of columns; of a lone row itself."""
    if os.path.getsize(path) > columns_bytes_max:
        raise LimitExceeded(f"{name}: JSON without an array of objects is read up to {columns_bytes_max:,} bytes")
    with open(path, "rb") as source:
        try:
            document = msgspec.json.decode(source.read())
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise Corruption(f"{name}: no JSON: {error}") from error
    columns = {k: v for k, v in document.items() if isinstance(v, list)} if isinstance(document, dict) else {}
    lengths = {len(column) for column in columns.values()}
    vectors = [column for column in columns.values() if column and isinstance(column[0], list)]
    if not vectors or len(lengths) != 1:
        if isinstance(document, dict) and columns:
            sink.write(msgspec.json.encode(document) + b"\n")
            return
        raise InvalidArgument(f"{name}: JSON without rows: expected an array of objects, one a row")
    for at in range(lengths.pop()):
        row: dict[str, Any] = {}
        for key, column in columns.items():
            if key in _METADATA and isinstance(column[at], dict):
                row.update(column[at])
            elif column[at] is not None:
                row[key] = column[at]
        sink.write(msgspec.json.encode(row) + b"\n")
