"""create_records: the writer of a collection for a format."""

from __future__ import annotations

import os

from vecdb import InvalidArgument

from ..writers import WRITABLE, format_of_name
from .csv_text import CsvRecords
from .facts import CollectionFacts
from .jsonl import JsonlRecords
from .lance_table import LanceRecords
from .pairs import PairRecords
from .parquet import ParquetRecords
from .writer import RecordWriter

WHOLE = ("jsonl", "parquet", "lance")  # hold everything


def create_records(
    path: str | os.PathLike[str], facts: CollectionFacts, *, format: str | None = None, lossy: bool = False
) -> RecordWriter:
    """Open files for writing a collection, as a context manager that puts the finished ones in place.

    Parameters
    ----------
    path : path, or "-" for standard output; its extension names the format unless `format` does.
    lossy : leave out or change what the format cannot hold, and tell it in `losses`, in place of InvalidArgument.

    Raises
    ------
    InvalidArgument
        The format is not known, or the path is a directory.
    NotFound
        The folder is not there.
    Unavailable
        The format needs a package of the extra [data], or [lance].
    """
    name = os.fspath(path)
    kind = format or format_of_name(name)
    if kind == "lance" or (kind is None and name.rstrip("/").endswith(".lance")):
        return LanceRecords(name.rstrip("/"), facts, lossy)
    if kind not in WRITABLE:
        raise InvalidArgument(
            f"{name}: the format {kind or 'that its name tells'} is not one of "
            f"{', '.join(WRITABLE)}, lance; name the file so or pass format="
        )
    if kind == "jsonl":
        return JsonlRecords(name, facts, lossy)
    if kind == "parquet":
        return ParquetRecords(name, facts, lossy)
    if kind == "csv":
        return CsvRecords(name, facts, lossy)
    return PairRecords(name, facts, lossy, kind)
