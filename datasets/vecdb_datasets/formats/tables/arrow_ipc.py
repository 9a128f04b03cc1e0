"""Arrow IPC: files (Feather is one) and streams. The record batches are the groups that a read seeks to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb import Corruption

from ..inputs import InputFile
from ..optional import optional_module
from .arrow_rows import ArrowSource, facts_of
from .columns import Choice

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"  # then the length of a schema


class ArrowIpcSource(ArrowSource):
    """An open Arrow IPC file or stream. A stream is passed over once to count its rows."""

    def __init__(self, file: InputFile, check_finite: bool, choice: Choice) -> None:
        self.file = file
        arrow = optional_module("pyarrow", "reading Arrow files")
        self._arrow = arrow
        self._reader: Any = None
        with open(file.path, "rb") as handle:
            head = handle.read(6)
        try:
            if head == FILE_MAGIC:
                self._reader = arrow.ipc.open_file(arrow.memory_map(file.path))
                self._schema = self._reader.schema
                sizes = [self._reader.get_batch(at).num_rows for at in range(self._reader.num_record_batches)]
            else:
                with arrow.ipc.open_stream(arrow.memory_map(file.path)) as stream:
                    self._schema = stream.schema
                    sizes = [batch.num_rows for batch in stream]
        except (arrow.ArrowException, OSError) as error:
            raise Corruption(f"{file.name}: Arrow cannot read it ({error})") from error
        self._group_starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        self._settle("arrow", check_finite, choice, facts_of(self._schema.metadata))

    def _batches_from(self, group: int) -> Iterator[Any]:
        if self._reader is not None:
            for at in range(group, self._reader.num_record_batches):
                yield self._reader.get_batch(at)
        else:
            with self._arrow.ipc.open_stream(self._arrow.memory_map(self.file.path)) as stream:
                for at, batch in enumerate(stream):
                    if at >= group:
                        yield batch
