"""A collection as a Lance table, which LanceDB opens, too: a directory NAME.lance. It holds what Parquet does.

Columns of a Lance table are the same from its first row on, and fields are learned batch by batch. So records go to a
Parquet file beside the table first (parquet.py), which is copied when all columns are known. A table is never replaced.
"""

from __future__ import annotations

import os
import shutil

from vecdb import AlreadyExists, InvalidArgument

from ..optional import optional_module
from .facts import CollectionFacts
from .parquet import ParquetRecords
from .target import Target
from .writer import RecordBatch, RecordWriter

copied_rows = 4_096


class LanceRecords(RecordWriter):
    """Writes a collection as a Lance table."""

    def __init__(self, path: str, facts: CollectionFacts, lossy: bool) -> None:
        super().__init__(path, facts, lossy)
        self._lance = optional_module("lance", "writing Lance", "lance")
        self._parquet = optional_module("pyarrow.parquet", "writing Lance", "lance")
        if os.path.lexists(path):
            raise AlreadyExists(f"{path} is there already, and a table is not replaced: name another, or remove it")
        target = Target(path)
        if target.is_stream:
            target.discard()
            raise InvalidArgument(f"{path}: a Lance table is a directory: name one, such as docs.lance")
        self._rows = ParquetRecords(path, facts, lossy)
        self._source = target.part  # where the Parquet file grows, too
        self._table = f"{target.part}-table"

    def write(self, batch: RecordBatch) -> None:
        self._rows.write(batch)

    def _finish(self) -> None:
        self._rows._finish()

    def close(self) -> None:
        self._finish()
        with self._parquet.ParquetFile(self._source) as file:
            batches = file.iter_batches(batch_size=copied_rows)
            try:
                self._lance.write_dataset(batches, self._table, schema=file.schema_arrow)
            except (OSError, ValueError) as error:
                raise InvalidArgument(f"{self.path}: Lance cannot hold these records ({error})") from error
        os.rename(self._table, self.path)

    def _abandon(self) -> None:
        self._rows._abandon()

    def discard(self) -> None:
        self._rows.discard()
        shutil.rmtree(self._table, ignore_errors=True)
