"""A collection as JSONL: holds everything.

    {"vecdb": {facts, of tenants the first}}
    {"vecdb_tenants": {more of them}}
    {"id": 1, "vector": [0.1, 0.2], "_owner": "acme", "_tenants": ["acme"], "year": 2024, "_fields": {tagged fields}}

Vector, owner, tenants and tagged fields stand where there are any. A field is tagged whose value JSON lacks, or whose
name is one of these columns. A file of vectors has the same rows without them beside it (pairs.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from .facts import KEY, TENANTS_KEY, CollectionFacts
from .tagged import is_plain, tag
from .writer import RecordBatch, RecordWriter

tenants_of_a_line = 10_000
_encode = msgspec.json.Encoder().encode


def rows_of(batch: RecordBatch, facts: CollectionFacts, *, vectors: bool) -> Iterator[dict[str, Any]]:
    """Each record as the object of its line."""
    columns = facts.columns
    special = columns.names()
    numbers = _numbers(batch.vectors) if vectors else None
    for at, id in enumerate(batch.ids):
        row: dict[str, Any] = {columns.id: id}
        if numbers is not None and (batch.bare is None or not batch.bare[at]):
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
    found: list[Any] = (short_doubles(vectors) if vectors.dtype == np.float32 else vectors).tolist()
    return found


def short_doubles(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Doubles that are these float32 when they are rounded, and take nine digits to write: 0.1 in place of
    0.10000000149011612.
    """
    exact = numbers.astype(np.float64)
    with np.errstate(all="ignore"):
        digits = 8 - np.floor(np.log10(np.abs(exact)))
        scale = 10.0 ** np.abs(digits)
        short = np.where(digits >= 0, np.rint(exact * scale) / scale, np.rint(exact / scale) * scale)
        return np.where(short.astype(np.float32) == numbers, short, exact)


class JsonlRecords(RecordWriter):
    """Writes a collection as JSONL."""

    def __init__(self, path: str, facts: CollectionFacts, lossy: bool) -> None:
        super().__init__(path, facts, lossy)
        self._handle = open(self._target(path).part, "wb")  # noqa: SIM115 - closed by _finish()
        tenants = list((facts.tenants or {}).items())
        first = None if facts.tenants is None else dict(tenants[:tenants_of_a_line])
        self._handle.write(_encode({KEY: replace(facts, tenants=first).to_json()}) + b"\n")
        for start in range(tenants_of_a_line, len(tenants), tenants_of_a_line):
            self._handle.write(_encode({TENANTS_KEY: dict(tenants[start : start + tenants_of_a_line])}) + b"\n")

    def write(self, batch: RecordBatch) -> None:
        self._handle.writelines(_encode(row) + b"\n" for row in rows_of(batch, self.facts, vectors=True))

    def _finish(self) -> None:
        self._handle.close()

    def _abandon(self) -> None:
        self._handle.close()
