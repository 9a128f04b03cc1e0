r"""The text of PostgreSQL's COPY, in which pgvector's columns lie: `COPY t TO STDOUT`, or what pg_dump writes.

    7<TAB>some text<TAB>[0.1,0.2]          a row a line, \N for null, \b \f \n \r \t \v \ooo \xhh \\ in values

With pg_dump lines of SQL come before and after; "COPY public.t (id, title, embedding) FROM stdin;" names the columns,
and "\." ends the rows. Without it columns are named 0, 1, 2 ..., unless the first line is of names, as `WITH (HEADER)`
writes it. vector and halfvec look alike; sparsevec is refused by name. COPY does not say the types of its columns: they
are int, float or text as every row allows, so that booleans stay "t" and "f".

`COPY t TO STDOUT (FORMAT csv)` is CSV, and read as such (tables/csv_file.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from vecdb import Corruption, InvalidArgument

from ..inputs import InputFile
from ..tables.columns import Choice
from ..tables.csv_file import CsvSource
from ..tables.lines import Lines, Place
from ..tables.spelled import is_sparse
from .rows import choose

NULL = r"\N"
_QUOTED = r'"(?:[^"]|"")*+"'
_STATEMENT = re.compile(  # no text is looked at twice: what repeats gives nothing back
    rf'COPY\s++((?:{_QUOTED}|[^\s"()])++)(?:\s*+\(((?:{_QUOTED}|[^"()])*+)\))?+\s++FROM\s++stdin\b.*;\s*$',
    re.IGNORECASE,
)
_NAME = re.compile(r'"((?:[^"]|"")*)"|([^",\s][^",]*)')
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9A-Fa-f]{1,2}|.)", re.DOTALL)
_ONE = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_DUMP = b"--\n-- PostgreSQL database dump"
_VECTOR = re.compile(r"\[[-+0-9.eE]+(,[-+0-9.eE]+)*\]")


def looks_like_copy(head: bytes) -> bool:
    """Whether a text is pg_dump's, or rows of COPY: cells with tabs between, one of them a vector as pgvector writes
    it, and nothing quoted. With names in the first line it might be any table with tabs, unless it has a null.
    """
    text = head.decode("utf-8", "replace")
    if head.startswith(_DUMP) or any(map(_STATEMENT.match, text.splitlines())):
        return True
    lines = [line for line in text.split("\n")[:3] if line]
    if not lines or any(cell[:1] == '"' for line in lines for cell in line.split("\t")):
        return False
    first = lines[0].split("\t")
    if any(cell == NULL for line in lines[1:] for cell in line.split("\t")) and len(first) > 1:
        return True
    return len(first) > 1 and any(_VECTOR.fullmatch(cell) or is_sparse(cell) for cell in first)


class CopySource(CsvSource):
    """key : the table, where pg_dump wrote several; None: the only one."""

    def __init__(self, file: InputFile, check_finite: bool, choice: Choice, key: str | None, *, lenient: bool) -> None:
        self._key = key
        super().__init__(file, check_finite, choice, lenient=lenient)
        self.format = "copy"

    def _read_header(self) -> None:
        """The columns, from the statement of a dump, from a line of names, or by number."""
        tables = dict(self._statements())
        if tables:
            short = [name for name in tables if name.rpartition(".")[2] == self._key]
            name = short[0] if len(short) == 1 else choose(self.path, "table", self._key, list(tables))
            self._begin, self.columns = tables[name]
        elif self._key is not None:
            raise InvalidArgument(f"{self.path}: key={self._key!r} is for what pg_dump wrote, this names no table")
        self._has_header = False
        if not tables:
            lines = Lines(self.file, self._begin)
            first = next(lines, "").rstrip("\r\n").split("\t")
            lines.close()
            self._has_header = not any(_VECTOR.fullmatch(cell) or is_sparse(cell) for cell in first)
            self.columns = first if self._has_header else [str(at) for at in range(len(first))]
        elif not self.columns:
            raise InvalidArgument(f"{self.path}: its COPY names no columns: dump it with pg_dump --data-only")

    def _statements(self) -> Iterator[tuple[str, tuple[Place, list[str]]]]:
        """(table, (where its rows begin, its columns)) of each COPY; rows are passed over."""
        lines = Lines(self.file, (0, 0))
        inside = plain = False
        for line in lines:
            if inside:
                inside = line.rstrip("\r\n") != r"\."
            elif not plain and (found := _STATEMENT.match(line)):
                name = found[1].replace('"', "")
                yield name, (lines.place, [a.replace('""', '"') or b.strip() for a, b in _NAME.findall(found[2] or "")])
                inside = True
            elif lines.place[1] == 1 and "\t" in line:
                plain = True  # rows from the first line on: no dump
                break
        lines.close()

    def _records(self, lines: Lines) -> Iterator[tuple[Place, Any]]:
        place = lines.place
        for line in lines:
            text = line.rstrip("\n").removesuffix("\r")
            if text == r"\.":
                lines.close()
                return
            cells: Any = [None if cell == NULL else _unescaped(cell) for cell in text.split("\t")]
            if len(cells) != len(self.columns):
                error = Corruption(
                    f"{self.path}: line {place[1] + 1} (byte {place[0]}) has {len(cells)} columns, expected "
                    f"{len(self.columns)}"
                )
                if not self._skips:
                    raise error
                cells = error
            yield place, cells
            place = lines.place

    def _settle_vector(self, choice: Choice, samples: list[list[Any]]) -> None:
        super()._settle_vector(choice, [["" if cell is None else cell for cell in record] for record in samples])

    def _narrowed(self, cell: Any, kind: type) -> type:
        return kind if cell is None else super()._narrowed(cell, kind) if cell else str

    def _value(self, cell: Any, kind: type) -> Any:
        return None if cell is None else kind(cell) if cell or kind is str else None


def _unescaped(cell: str) -> str:
    """The text of a cell. An escape by number is a byte; several may be one character of UTF-8."""
    return _ESCAPE.sub(_bytes_of, cell.encode()).decode("utf-8", "surrogateescape") if "\\" in cell else cell


def _bytes_of(found: re.Match[bytes]) -> bytes:
    text = found[1]
    if text[0] in b"01234567":
        return bytes([int(text, 8) & 0xFF])
    if text[:1] == b"x" and len(text) > 1:
        return bytes([int(text[1:], 16)])
    return _ONE.get(text, text)
