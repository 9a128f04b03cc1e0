"""The files of a collection that a committed state counts, and how many bytes of each."""

from __future__ import annotations

import numpy as np

from vecdb.schema import element_type
from vecdb.storage.disk import row_format
from vecdb.storage.disk.paths import row_file_name
from vecdb.storage.kv import catalog


def row_bytes_of(entry: catalog.CollectionEntry) -> int:
    """Bytes of a row of the collection's row file. Without a dim a row is one value, which means nothing."""
    return max(1, entry.dim) * np.dtype(element_type(entry.dtype)).itemsize


def files_of(state: catalog.CommittedState, row_bytes: int) -> dict[str, int]:
    """The files that a state names, the row file first, and the bytes of each that count."""
    files = {row_file_name(state.generation): row_format.HEADER_BYTES + state.row_count * row_bytes}
    if state.columns is not None:
        files[state.columns.file] = state.columns.file_bytes
    if state.sealed is not None:
        files |= {state.sealed.file: state.sealed.file_bytes, **dict(state.sealed.parts)}
    return files
