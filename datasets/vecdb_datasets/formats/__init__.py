"""Files of vectors: open any of `FORMATS` by its content, read it by slices; write them.

detect.py decides the format, headers.py holds the arithmetic, memory_mapped.py, hdf5.py, parquet.py and text.py read,
writers.py writes, source.py is the contract.
"""

from __future__ import annotations

import os

from vecdb import InvalidArgument, NotFound
from vecdb_datasets.formats.detect import FORMATS, sniff
from vecdb_datasets.formats.headers import BINS, VECS
from vecdb_datasets.formats.memory_mapped import open_bin, open_npy, open_vecs

from .hdf5 import Hdf5Source
from .parquet import ParquetSource
from .source import VectorSource
from .text import CsvSource, JsonlSource
from .writers import VectorWriter, create_vectors, write_vectors


def open_vectors(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    key: str | None = None,
    vector_column: str | None = None,
    id_column: str | None = None,
    check_finite: bool = True,
) -> VectorSource:
    """Open a file of vectors, its format sniffed from the content first and the extension second.

    Parameters
    ----------
    path : path
    format : one of `FORMATS`, to settle what the content leaves open.
    key : HDF5 only, the dataset to read ("train", or the only matrix, when None).
    vector_column, id_column : tables only, when names and types do not tell.
    check_finite : refuse NaN and infinity when a slice is read.

    Returns
    -------
    VectorSource
        A context manager.

    Raises
    ------
    NotFound
        No such file, dataset or column.
    InvalidArgument
        Unknown or ambiguous content, no vector column, an argument that the format has no use for.
    Corruption
        Truncated, wrong size, damaged header.
    """
    name = os.fspath(path)
    if format is not None and format not in FORMATS:
        raise InvalidArgument(f"format {format!r} is not one of {', '.join(FORMATS)}")
    if format is not None and not os.path.isfile(name):
        raise NotFound(f"{name}: no such file")
    kind = format or sniff(name)
    if key is not None and kind != "hdf5":
        raise InvalidArgument(f"{name}: key={key!r} is for HDF5 files, this one is {kind}")
    if (vector_column or id_column) and kind not in ("parquet", "csv", "jsonl"):
        raise InvalidArgument(f"{name}: vector_column and id_column are for tables, this one is {kind}")
    if kind in VECS:
        return open_vecs(name, kind, check_finite)
    if kind in BINS:
        return open_bin(name, kind, check_finite)
    if kind == "npy":
        return open_npy(name, check_finite)
    if kind == "hdf5":
        return Hdf5Source(name, check_finite, key)
    if kind == "parquet":
        return ParquetSource(name, check_finite, vector_column, id_column)
    if kind == "csv":
        return CsvSource(name, check_finite, vector_column, id_column)
    return JsonlSource(name, check_finite, vector_column, id_column)


__all__ = [
    "FORMATS",
    "VectorSource",
    "VectorWriter",
    "create_vectors",
    "open_vectors",
    "sniff",
    "write_vectors",
]
