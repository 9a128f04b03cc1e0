"""A collection as JSONL: holds everything.

    {"vecdb": {facts}}
    {"id": 1, "vector": [0.1, 0.2], "_owner": "acme", "_tenants": ["acme"], "year": 2024, "_fields": {tagged fields}}

Owner, tenants and tagged fields stand where there are any. A field is tagged whose value JSON lacks, or whose name is
one of these columns. A file of vectors has the same rows without them beside it (pairs.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from .facts import KEY, CollectionFacts
from .tagged import is_plain, tag
from .writer import RecordBatch, RecordWriter

_encode = msgspec.json.Encoder().encode


def rows_of(batch: RecordBatch, facts: CollectionFacts, *, vectors: bool) -> Iterator[dict[str, Any]]:
    """Each record as the object of its line."""
    columns = facts.columns
    special = columns.names()
    numbers = _numbers(batch.vectors) if vectors else None
    for at, id in enumerate(batch.ids):
        row: dict[str, Any] = {columns.id: id}
        if numbers is not None:
            row[columns.vector] = numbers[at]
        if batch.owners[at]:
            row[columns.owner] = batch.owners[at]
        if batch.tenants[at]:
            row[columns.tenants] = list(batch.tenants[at])
        tagged = {}
        for name, value in batch.fields[at].items():
            if name in special or not is_plain(value):
                tagged[name] = tag(value)
            else:
                row[name] = value
        if tagged:
            row[columns.fields] = tagged
        yield row


def _numbers(vectors: Any) -> list[Any]:
    """Numbers as short as they may be: float32 as 0.1 and not as the double nearest to it."""
    if vectors.dtype == np.float32:
        return [[float(text) for text in map(str, row)] for row in vectors]
    found: list[Any] = vectors.tolist()
    return found


class JsonlRecords(RecordWriter):
    """Writes a collection as JSONL."""

    def __init__(self, path: str, facts: CollectionFacts, lossy: bool) -> None:
        super().__init__(path, facts, lossy)
        self._handle = open(self._target(path).part, "wb")  # noqa: SIM115 - closed by _finish()
        self._handle.write(_encode({KEY: facts.to_json()}) + b"\n")

    def write(self, batch: RecordBatch) -> None:
        self._handle.writelines(_encode(row) + b"\n" for row in rows_of(batch, self.facts, vectors=True))

    def _finish(self) -> None:
        self._handle.close()

    def _abandon(self) -> None:
        self._handle.close()
