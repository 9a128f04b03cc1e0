"""A collection as CSV, for what CSV can hold: columns of one kind each, without gaps; the facts lie beside it.

A column holds whole numbers of up to 18 digits, or finite floats, or texts of which at least one is no number. What
would come back as something else is refused: texts that are numbers, empty texts, fields that some records lack, None,
True and False, lists and all else.
"""

from __future__ import annotations

import csv
from typing import Any

from ..tables.csv_file import narrow
from .facts import META_SUFFIX, CollectionFacts
from .writer import RecordBatch, RecordWriter

_MARKS = frozenset(',;|"\t\r\n\0')  # a header with these may be read otherwise


class _Column:
    """What the records have under one name so far."""

    def __init__(self) -> None:
        self.kinds: set[type] = set()
        self.count = 0
        self.reads_as: type = int  # what the reader takes the whole column for


class CsvRecords(RecordWriter):
    """Writes a collection as CSV."""

    holds_access = False

    def __init__(self, path: str, facts: CollectionFacts, lossy: bool) -> None:
        super().__init__(path, facts, lossy)
        self._target_file = self._target(path)
        self._columns: dict[str, _Column] = {}
        self._ids = _Column()
        self._rows = 0
        self._handle = open(self._target_file.part, "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._header: list[str] | None = None
        self._meta = None if self._target_file.is_stream else self._target(path + META_SUFFIX)
        if self._meta is None and (facts.metric, facts.dtype) != ("cosine", "float32"):
            self._lose(f"metric {facts.metric} and dtype {facts.dtype} in a pipe", "no file can lie beside it")
        if facts.tenants:
            self._lose("tenants", f"{next(iter(facts.tenants))!r} and its quota")

    def write(self, batch: RecordBatch) -> None:
        batch = self._with_vectors(batch)
        if self._header is None:
            self._header = list(dict.fromkeys(name for row in batch.fields for name in row))
            csv.writer(self._handle, lineterminator="\n").writerow(
                [self.facts.columns.id, self.facts.columns.vector, *self._header]
            )
        out = csv.writer(self._handle, lineterminator="\n")
        for at, id in enumerate(batch.ids):
            where = f"record {id!r}"
            self._look_at(self._ids, id, "ids", where)
            if batch.owners[at]:
                self._lose("owners", where)
            if batch.tenants[at]:
                self._lose("tenants", where)
            fields = batch.fields[at]
            for name, value in fields.items():
                if name in (self.facts.columns.id, self.facts.columns.vector) or not name or _MARKS & set(name):
                    self._lose(f"a field named {name!r}", where)
                elif name not in self._header:
                    self._lose(f"field {name!r}, which came after the header was written", where)
                else:
                    self._look_at(self._columns.setdefault(name, _Column()), value, f"field {name!r}", where)
            cells = ["" if fields.get(name) is None else fields[name] for name in self._header]
            out.writerow([id, "[" + ", ".join(str(x) for x in batch.vectors[at]) + "]", *cells])
            self._rows += 1

    def _look_at(self, column: _Column, value: Any, what: str, where: str) -> None:
        """Note what kind of value the column has, and what would not come back."""
        kind = type(value)
        column.count += 1
        column.kinds.add(kind)
        if kind not in (int, float, str):
            self._lose(f"{what} of type {kind.__name__}", where)
        elif kind is str and (not value or "\0" in value or "\r" in value):
            self._lose(f"{what} that is empty or has a control character", where)
        elif kind is int and len(str(abs(value))) > 18:
            self._lose(f"{what} of more than 18 digits", where)
        elif kind is float and value in (float("inf"), float("-inf")):
            self._lose(f"{what} that is infinite", where)
        elif kind is float and value != value:
            self._lose(f"{what} that is NaN", where)
        elif column.reads_as is not str:
            column.reads_as = narrow(str(value), column.reads_as)

    def _finish(self) -> None:
        named = {"ids": self._ids} | {f"field {name!r}": column for name, column in self._columns.items()}
        for name, column in named.items():
            plain = column.kinds & {int, float, str}
            if len(plain) > 1:
                kinds = " and ".join(sorted(kind.__name__ for kind in plain))
                self._lose(f"{name} of several types", kinds)
            elif plain and column.reads_as is not next(iter(plain)):
                kind = next(iter(plain)).__name__
                self._lose(f"{name} of {kind} that read as {column.reads_as.__name__}", "all of them do")
            if name != "ids" and column.count < self._rows:
                self._lose(f"{name} that some records lack", f"{self._rows - column.count} of {self._rows}")
        if self._header is None:
            csv.writer(self._handle, lineterminator="\n").writerow([self.facts.columns.id, self.facts.columns.vector])
        self._handle.close()
        if self._meta is not None:
            with open(self._meta.part, "wb") as handle:
                handle.write(self.facts.encode() + b"\n")

    def _abandon(self) -> None:
        self._handle.close()
