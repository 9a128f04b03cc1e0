"""PairSource: a file of vectors, and what an export wrote beside it for a format that holds nothing else.

NAME             vectors: npy, fbin, fvecs, hdf5 ...
NAME.ids.jsonl   a line a row: the id, or an object of id, owner, tenants and fields (records/jsonl.py)
NAME.meta.json   the facts of the collection (records/facts.py)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument, VecdbError

from .inputs import InputFile
from .records.facts import IDS_SUFFIX, META_SUFFIX, CollectionFacts, Columns, decode_facts
from .source import Array, VectorSource
from .tables.columns import Choice, as_ids
from .tables.jsonl import parse_json, untagged_fields
from .tables.lines import Lines, Place, TextSource, mark_rows
from .tables.table import Window


def facts_beside(name: str) -> CollectionFacts | None:
    """The facts beside a file; None where there are none."""
    path = name + META_SUFFIX
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as handle:
        return decode_facts(handle.read(), path)


def with_what_lies_beside(source: VectorSource, facts: CollectionFacts | None, choice: Choice) -> VectorSource:
    """A source of vectors alone, together with its file of ids and its facts, where they are there."""
    if facts is not None:
        if facts.dim != source.dim:
            raise Corruption(
                f"{source.path} has dim {source.dim}, {source.path}{META_SUFFIX} says {facts.dim}: remove that one if "
                "it is another file's"
            )
        source.facts = facts
    if source.has_ids or choice.new_ids or not os.path.isfile(source.path + IDS_SUFFIX):
        return source
    return PairSource(source, InputFile(source.path + IDS_SUFFIX), choice)


class PairSource(TextSource):
    """vectors : the open file of vectors."""

    vector_column, id_column = "vector", "id"
    _numbered = False

    def __init__(self, vectors: VectorSource, file: InputFile, choice: Choice) -> None:
        self.file, self.path, self.vectors, self.facts = file, vectors.path, vectors, vectors.facts
        self._columns = self.facts.columns if self.facts is not None else Columns()
        self._marks = []
        names: dict[str, None] = {}
        rows = 0
        for place, row in self._records(Lines(file, (0, 0))):
            if rows % mark_rows == 0:
                self._marks.append(place)
            rows += 1
            if isinstance(row, dict):
                names.update(dict.fromkeys(row))
        if rows != len(vectors):
            raise Corruption(
                f"{self.path} has {len(vectors):,} rows, {file.name} {rows:,}: they are of different exports; remove "
                "the file of ids to make new ones"
            )
        others = [name for name in names if name not in self._columns.names()]
        self.field_columns = choice.field_columns(self.path, others)
        self._wanted = None if choice.fields is None else frozenset(self.field_columns)
        super().__init__(self.path, vectors.format, vectors.shape, vectors.dtype, vectors.check_finite)
        self.metric = vectors.metric

    def _records(self, lines: Lines) -> Iterator[tuple[Place, Any]]:
        while True:
            place = lines.place
            try:
                text = next(lines)
            except StopIteration:
                return
            try:
                yield place, parse_json(text)
            except ValueError as error:
                yield place, Corruption(f"{self.file.name}: line {place[1] + 1} is not whole JSON: {error}")

    def _convert(self, start: int, places: list[int], records: list[Any], bad: dict[int, VecdbError]) -> Window:
        columns = self._columns
        rows = [record if isinstance(record, dict) else {columns.id: record} for record in records]
        ids, wrong = as_ids([row.pop(columns.id, None) for row in rows])
        owners = [row.pop(columns.owner, None) or "" for row in rows]
        tenants = [row.pop(columns.tenants, None) or [] for row in rows]
        for at, row in enumerate(rows):
            tagged = row.pop(columns.fields, None)
            if tagged:
                try:
                    row.update(untagged_fields(tagged))
                except InvalidArgument as error:
                    wrong[at] = str(error)
        for at, what in wrong.items():
            bad.setdefault(start + at, Corruption(f"{self.file.name}: line {places[at]}: the id {what}"))
        if self._wanted is not None:
            rows = [{name: value for name, value in row.items() if name in self._wanted} for row in rows]
        block = self.vectors._read(start, start + len(rows))
        if self.facts is None:
            return Window(start, block, ids, rows if self.field_columns else None, bad)
        return Window(start, block, ids, rows, bad, owners, tenants)

    def _read(self, start: int, stop: int) -> Array:
        return np.asarray(super()._read(start, stop))

    def close(self) -> None:
        super().close()
        self.vectors.close()
