"""A collection as two files: vectors in one that holds nothing else, and the records' other parts beside it.

    NAME             vectors, in any format of writers.py
    NAME.ids.jsonl   a line a record: its id, or, where it has more, an object as in jsonl.py without the vector
    NAME.meta.json   the facts

All are put in place together, and refused together where the format cannot hold the numbers.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vecdb import InvalidArgument

from ..writers import create_vectors
from .facts import IDS_SUFFIX, META_SUFFIX, CollectionFacts
from .jsonl import rows_of
from .writer import RecordBatch, RecordWriter

_encode = msgspec.json.Encoder().encode


class PairRecords(RecordWriter):
    """Writes a collection as a file of vectors and its neighbours."""

    holds_access = False

    def __init__(self, path: str, facts: CollectionFacts, lossy: bool, format: str) -> None:
        super().__init__(path, facts, lossy)
        self.ids_file = path + IDS_SUFFIX
        self._vectors = create_vectors(path, facts.dim, facts.dtype, format=format)
        try:
            if self._vectors.is_stream:
                raise InvalidArgument(
                    f"{path}: {format} holds vectors only, and a pipe has no place for ids: write jsonl"
                )
            self._ids = self._target(path + IDS_SUFFIX)
            self._meta = self._target(path + META_SUFFIX)
            self._lines: Any = open(self._ids.part, "wb")  # noqa: SIM115 - closed by _finish()
        except BaseException:
            self._vectors.abandon()
            raise

    def write(self, batch: RecordBatch) -> None:
        batch = self._with_vectors(batch)
        self._vectors.write(batch.vectors)
        id = self.facts.columns.id
        for row in rows_of(batch, self.facts, vectors=False):
            self._lines.write(_encode(row[id] if len(row) == 1 else row) + b"\n")

    def _finish(self) -> None:
        self._lines.close()
        with open(self._meta.part, "wb") as handle:
            handle.write(self.facts.encode() + b"\n")
        self._refuse_losses()  # before the vectors are in place
        self._vectors.close()

    def _abandon(self) -> None:
        self._lines.close()

    def discard(self) -> None:
        super().discard()
        self._vectors.abandon()
