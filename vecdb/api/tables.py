"""Records as tables of other libraries, which are imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vecdb.errors import InvalidArgument, VecdbError
from vecdb.schema import Record


def library(name: str, what: str | None = None) -> Any:
    """A library by its name. what : that needs it; None: the method `to_...`. Raises VecdbError where it is not
    installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        what = what or f"to_{name.removeprefix('py')}()"
        raise VecdbError(f"{what} needs the package {package}: pip install {package}") from None


def built(library: str, build: Callable[[], Any], instead: str = "to_list() or to_pandas()") -> Any:
    """Build a typed table. Where a field mixes types the error says what to use instead."""
    try:
        return build()
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InvalidArgument(f"{library} cannot hold a field of mixed types ({reason}): use {instead}") from None


def pandas_frame(records: Sequence[Record], include_vectors: bool) -> Any:
    """A pandas.DataFrame of records: see `Collection.to_pandas`."""
    pandas, columns = library("pandas"), _columns(records, include_vectors)
    for name, column in columns.items():
        if any(one is None for one in column):  # of which pandas would make NaN, and floats of the ints beside them
            columns[name] = pandas.Series(column, dtype=object)
    return pandas.DataFrame(columns)


def arrow_table(records: Sequence[Record], include_vectors: bool) -> Any:
    """A pyarrow.Table of records: see `Collection.to_arrow`."""
    pyarrow, columns = library("pyarrow"), _columns(records, include_vectors)

    def build() -> Any:
        vectors = columns.get("vector")
        if include_vectors and vectors:
            columns["vector"] = _arrow_vectors(pyarrow, vectors)
        return pyarrow.table(columns)

    return built("pyarrow", build, "to_pandas()")


def _arrow_vectors(pyarrow: Any, vectors: Sequence[Any]) -> Any:
    """A column of fixed-size lists, null for a record without a vector; of nulls alone where none has one."""
    bare = np.array([one is None for one in vectors], bool)
    if bare.all():
        return pyarrow.nulls(len(vectors))
    filling = vectors[int(np.argmin(bare))]
    flat = np.concatenate([filling if one is None else one for one in vectors])
    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat), len(filling), mask=pyarrow.array(bare))


def _columns(records: Sequence[Record], include_vectors: bool) -> dict[str, Any]:
    """id, owner (where a record has one), one per field, vector. A field named as one of these is `fields.<name>`."""
    columns: dict[str, Any] = {"id": [one.id for one in records]}
    if any(one.owner for one in records):
        columns["owner"] = [one.owner for one in records]
    taken = {*columns, *(("vector",) if include_vectors else ())}
    for name in dict.fromkeys(name for one in records for name in one.fields):
        columns[f"fields.{name}" if name in taken else name] = [one.fields.get(name) for one in records]
    if include_vectors:
        columns["vector"] = [one.vector for one in records]
    return columns
