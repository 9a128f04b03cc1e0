"""Records that a caller gives whole, as a table or as dicts, taken apart into ids, vectors and fields.

    {"id": 1, "vector": [...], "lang": "en"}      one record, or a list of such dicts
    {"id": [...], "vector": [...], "lang": [...]} a dict of columns; also a pandas or polars frame, an Arrow table

One column is the id, one the vector, the rest are fields. A record without a vector has None in the place of one; a
dict may leave it out, unless another of its values looks like one. What else is missing or stands there twice is
refused by name.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from vecdb.errors import InvalidArgument
from vecdb.validate import short_repr
from vecdb.validate.common import check_rows, gil_slices

_SLICE_RECORDS = 512
_NAMES_SHOWN = 8


class TakenApart(NamedTuple):
    """As `upsert` takes them. fields : None where there are no more columns."""

    ids: Any
    vectors: Any
    fields: Any


def is_whole(value: Any) -> bool:
    """Whether these are whole records, not ids."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and isinstance(value[0], dict)
    return isinstance(value, dict) or _is_pandas(value) or _is_polars(value) or _is_arrow(value)


def take_apart(value: Any, id: Any = None, vector: Any = None) -> TakenApart:
    """id, vector : names of their columns; None: "id" and "vector". Raises InvalidArgument."""
    names = ("id" if id is None else id, "vector" if vector is None else vector)
    for what, name in zip(("id", "vector"), names, strict=True):
        if not isinstance(name, str):
            raise InvalidArgument(f"{what}= must be the name of a column, got {short_repr(name)}")
    if names[0] == names[1]:
        raise InvalidArgument(f"id and vector are both {short_repr(names[0])}: name two columns")
    if isinstance(value, (list, tuple)):
        return _of_dicts(value, *names)
    if isinstance(value, dict) and names[1] not in value and isinstance(value.get(names[0]), (int, str, UUID)):
        ids, vectors, fields = _of_dicts([value], *names)
        return TakenApart(ids[0], vectors[0], None if fields is None else fields[0])
    columns = list(value) if isinstance(value, dict) else _columns(value)
    if len(set(columns)) < len(columns):
        twice = next(name for name in columns if columns.count(name) > 1)
        raise InvalidArgument(f"the table has two columns named {short_repr(twice)}: rename one")
    for what, name in zip(("id", "vector"), names, strict=True):
        if name not in columns:
            raise _no_column("the records have", what, name, columns)
    rest = [name for name in columns if name not in names]
    if _is_arrow(value):
        ids, vectors = value.column(names[0]), value.column(names[1])
        fields = value.select(rest)
    else:
        ids, vectors = value[names[0]], value[names[1]]
        fields = {name: value[name] for name in rest} if isinstance(value, dict) else value[rest]
    if _is_polars(value):  # its lists as NumPy sees them are objects of its own
        vectors = vectors.to_numpy() if _has_fixed_size(vectors) else vectors.to_list()
    return TakenApart(ids, vectors, fields if rest else None)


def _of_dicts(records: Any, id: str, vector: str) -> TakenApart:
    check_rows(len(records), "records")
    ids: list[Any] = []
    vectors: list[Any] = []
    fields: list[dict[Any, Any]] = []
    for start, stop in gil_slices(len(records), _SLICE_RECORDS):
        for at, record in enumerate(records[start:stop], start):
            if not isinstance(record, dict):
                raise InvalidArgument(f"records[{at}] is {short_repr(record)}, not a dict")
            if id not in record:
                raise _no_column(f"records[{at}] has", "id", id, list(record))
            rest = dict(record)
            ids.append(rest.pop(id))
            if vector not in rest and any(map(_looks_like_a_vector, rest.values())):
                raise _no_column(f"records[{at}] has", "vector", vector, list(record))
            vectors.append(rest.pop(vector, None))
            fields.append(rest)
    return TakenApart(ids, vectors, fields if any(fields) else None)


def _looks_like_a_vector(value: Any) -> bool:
    if hasattr(value, "dtype") and getattr(value, "ndim", 0) == 1:
        return len(value) > 1 and value.dtype.kind in "fiu"
    return isinstance(value, (list, tuple)) and len(value) > 1 and all(isinstance(one, float) for one in value)


def _no_column(subject: str, what: str, name: str, columns: list[Any]) -> InvalidArgument:
    shown = ", ".join(map(short_repr, columns[:_NAMES_SHOWN])) + (", ..." if len(columns) > _NAMES_SHOWN else "")
    there = f"there are {shown}: say which it is with {what}=" if columns else "there is no column at all"
    return InvalidArgument(f"{subject} no {what}, no column {short_repr(name)}; {there}")


def _columns(value: Any) -> list[Any]:
    return list(value.column_names if _is_arrow(value) else value.columns)


def _has_fixed_size(series: Any) -> bool:
    return type(series.dtype).__name__ == "Array" and not series.null_count()


def _is_pandas(value: Any) -> bool:
    return hasattr(value, "iloc") and hasattr(value, "columns")


def _is_polars(value: Any) -> bool:
    return hasattr(value, "slice") and hasattr(value, "to_dicts")


def _is_arrow(value: Any) -> bool:
    return hasattr(value, "slice") and hasattr(value, "num_columns") and hasattr(value, "to_pylist")
