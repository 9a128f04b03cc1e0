"""A table of Lance or LanceDB, read by pylance. Its fragments are the groups that a read seeks to.

The newest version is read; a table that somebody changes meanwhile stays as it was when it was opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb import Corruption

from ..inputs import InputFile
from ..optional import optional_module
from ..tables.arrow_rows import ArrowSource, batch_rows, facts_of
from ..tables.columns import Choice
from .recognise import LANCE, directory, tables_of
from .rows import choose

_METRICS = {"l2": "l2", "cosine": "cosine", "dot": "ip"}


class LanceSource(ArrowSource):
    """key : the table, where `path` is a database of several; None: the only one."""

    def __init__(self, path: str, check_finite: bool, key: str | None, choice: Choice) -> None:
        found = directory(path)
        if found is not LANCE:
            path = os.path.join(path, choose(path, "table", key, tables_of(path)) + ".lance")
        lance = optional_module("lance", f"{path} is a Lance table: reading it", "lance")
        self.file = InputFile.folder(path)
        self.losses = {}
        try:
            self._table = lance.dataset(path)
            self._fragments = self._table.get_fragments()
            sizes = [fragment.count_rows() for fragment in self._fragments]
            self._schema = self._table.schema
        except (OSError, ValueError) as error:
            raise Corruption(f"{path}: Lance cannot read it ({error})") from error
        self._group_starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self._settle("lance", check_finite, choice, facts_of(self._schema.metadata))
        self.stamp = [self._table.version, len(self)]
        self._learn_metric()

    def _learn_metric(self) -> None:
        """The metric of the index on the vectors, where there is one."""
        try:
            for index in self._table.describe_indices():
                names = list(index.field_names)
                if names != [self.vector_column]:
                    self.losses[f"index {index.name!r}"] = f"on {', '.join(names)}: vecdb filters without being told to"
                    continue
                for segment in self._table.stats.index_stats(index.name).get("indices", ()):
                    self.metric = _METRICS.get(str(segment.get("metric_type", "")).lower())
        except Exception as error:  # of old tables and of other versions of pylance: the caller names the metric
            self.losses["metric of its indexes"] = f"not known ({type(error).__name__})"

    def _batches_from(self, group: int) -> Iterator[Any]:
        parts = self._fragments[group:]
        if parts:
            try:
                yield from self._table.scanner(fragments=parts, batch_size=batch_rows, scan_in_order=True).to_batches()
            except ValueError as error:
                raise Corruption(f"{self.path}: Lance cannot read it ({error})") from error

    def close(self) -> None:
        super().close()
        self._table, self._fragments = None, []
