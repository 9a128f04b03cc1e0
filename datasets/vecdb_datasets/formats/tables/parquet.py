"""Parquet. Its row groups are the groups that a read seeks to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb import Corruption

from ..inputs import InputFile
from ..optional import optional_module
from .arrow_rows import ArrowSource, batch_rows, facts_of
from .columns import Choice


class ParquetSource(ArrowSource):
    """An open Parquet file."""

    def __init__(self, file: InputFile, check_finite: bool, choice: Choice) -> None:
        self.file = file
        arrow = optional_module("pyarrow", "reading Parquet")
        parquet = optional_module("pyarrow.parquet", "reading Parquet")
        try:
            self._file = parquet.ParquetFile(file.path, memory_map=True, pre_buffer=False)
        except (arrow.ArrowException, OSError) as error:
            raise Corruption(f"{file.name}: Parquet cannot open it ({error})") from error
        self._schema = self._file.schema_arrow
        meta = self._file.metadata
        sizes = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        self._group_starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self._settle("parquet", check_finite, choice, facts_of(meta.metadata))

    def _batches_from(self, group: int) -> Iterator[Any]:
        groups = list(range(group, len(self._group_starts) - 1))
        found: Iterator[Any] = self._file.iter_batches(batch_size=batch_rows, row_groups=groups)
        return found

    def close(self) -> None:
        super().close()
        self._file.close()
