"""Fields: dicts, columns or tables become one msgpack map a record.

Beyond msgpack's own types
    aware datetime := timestamp extension (type -1); read back in UTC
    naive datetime := extension 1: microseconds since 1970-01-01T00:00, int64 LE
    date           := extension 2: days since 1970-01-01, int32 LE
"""

from __future__ import annotations

import datetime as dt
import decimal
import struct
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np

from vecdb import limits
from vecdb.errors import Corruption, InvalidArgument, LimitExceeded, VecdbError
from vecdb.validate.common import INT64_END, check_rows, gil_slices, plain_str, short_repr

_SLICE_RECORDS = 64  # records encoded per bytecode stretch
_SLICE_ENCODED = 128  # records that are encoded already

_encode = msgspec.msgpack.Encoder().encode
_NO_FIELDS = _encode({})
_EPOCH = dt.datetime(1970, 1, 1)
_PLAIN = frozenset((str, float, bool, type(None)))
_UNREADABLE = (msgspec.DecodeError, ValueError, OverflowError, struct.error, RecursionError)


class EncodedFields(list[bytes]):
    """Fields as `fields` returns them, a msgpack map a record, that another process encoded: they are checked."""

    __slots__ = ()


def fields(value: object, n: int, *, single: bool = False) -> list[bytes] | None:
    """Fields of n records, each one msgpack map; None when the caller passed none at all.

    Parameters
    ----------
    value : None; a list of n dicts (None for a record without fields); a dict of columns of length n; a pandas or
        polars frame or Arrow table of n rows (missing cells become None); `EncodedFields`.
    single : there is one bare id, and a dict is the fields of its record.

    Values may be None, bool, int64, float (NaN too), str, bytes, date, datetime, list, and dict with string keys;
    tuples and NumPy arrays are stored as lists, NumPy scalars as their Python value; a UUID, a Decimal and a time of
    day as their text, and what pandas holds as missing (NaT, NA) as None.
    """
    if value is None:
        return None
    if single and isinstance(value, dict):
        value = [value]
    count, read = _records(value)
    if count != n:
        raise InvalidArgument(f"fields has {count:,} records for {n:,} ids: pass one per id")
    check_rows(n, "records")
    out: list[bytes] = []
    total = 0
    record, step = (_encoded, _SLICE_ENCODED) if isinstance(value, EncodedFields) else (_record, _SLICE_RECORDS)
    for start, stop in gil_slices(n, step):
        part = [record(one, position) for position, one in enumerate(_read(read, start, stop), start)]
        out += part
        total += sum(map(len, part))
        if total > limits.batch_bytes_max:
            raise LimitExceeded(
                f"fields pass {limits.batch_bytes_max:,} bytes, the most of one atomic call, at record {stop - 1:,}: "
                "write them in several calls, or with atomic=False"
            )
    return out


def _read(read: Callable[[int, int], Sequence[Any]], start: int, stop: int) -> Sequence[Any]:
    """Records [start, stop) of a list, of columns or of a table: whatever a foreign table raises becomes ours."""
    try:
        return read(start, stop)
    except VecdbError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise InvalidArgument(
            f"fields[{start}:{stop}] cannot be read as Python values ({reason}): convert the columns first"
        ) from None


def decode_fields(data: bytes, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The dict that `fields` encoded, or of it only the named fields. Raises Corruption on anything else."""
    if not data:
        return {}
    try:
        record = _decode(data)
    except _UNREADABLE as error:
        raise _unreadable(error) from None
    if names is None:
        return record
    return {name: record[name] for name in names if name in record}


def field_decoder(name: str) -> Callable[[bytes], Any]:
    """A function from a record's encoded fields to the value of the one that has this name, None where it has none:
    the others are passed over. Raises Corruption as `decode_fields` does.
    """
    only = msgspec.defstruct("Field", [("value", Any, None)], rename={"value": name})
    decode = msgspec.msgpack.Decoder(only, ext_hook=_decode_extension).decode

    def value(data: bytes) -> Any:
        try:
            return decode(data).value if data else None  # type: ignore[attr-defined]
        except _UNREADABLE as error:
            raise _unreadable(error) from None

    return value


def _unreadable(error: Exception) -> Corruption:
    return Corruption(f"stored fields are not what was written ({error}): run check and restore a backup")


def _decode_extension(code: int, data: memoryview) -> object:
    if code == 1:
        return _EPOCH + dt.timedelta(microseconds=struct.unpack("<q", data)[0])
    if code == 2:
        return _EPOCH.date() + dt.timedelta(days=struct.unpack("<i", data)[0])
    raise ValueError(f"extension type {code} is unknown")


_decode = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_decode_extension).decode
_Int64 = Annotated[int, msgspec.Meta(ge=-INT64_END, le=INT64_END - 1)]
_decode_plain = msgspec.msgpack.Decoder(dict[str, _Int64 | float | bool | str | None]).decode


def _records(value: Any) -> tuple[int, Callable[[int, int], Sequence[Any]]]:
    """The number of records, and a function that reads records [start, stop) as dicts."""
    if isinstance(value, (list, tuple)):
        return len(value), lambda start, stop: value[start:stop]
    if isinstance(value, dict):
        columns = {name: _column(name, column) for name, column in value.items()}
    elif hasattr(value, "iloc") and hasattr(value, "columns"):  # pandas
        _check_names(list(value.columns))
        columns = {name: _pandas_column(value.iloc[:, at]) for at, name in enumerate(value.columns)}
    elif hasattr(value, "slice") and hasattr(value, "to_dicts"):  # polars
        return len(value), lambda start, stop: value.slice(start, stop - start).to_dicts()
    elif hasattr(value, "slice") and hasattr(value, "to_pylist") and hasattr(value, "num_columns"):  # Arrow
        _check_names(value.column_names)
        return value.num_rows, lambda start, stop: value.slice(start, stop - start).to_pylist()
    else:
        raise InvalidArgument(f"fields must be a list of dicts, a dict of columns or a table, got {short_repr(value)}")
    lengths = {name: length for name, (length, _) in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{short_repr(name)}: {length:,}" for name, length in list(lengths.items())[:5])
        raise InvalidArgument(f"fields columns differ in length ({shown}): every column needs one value per id")

    def read(start: int, stop: int) -> list[dict[str, Any]]:
        parts = [part(start, stop) for _, part in columns.values()]
        return [dict(zip(columns, row, strict=True)) for row in zip(*parts, strict=True)]

    return next(iter(lengths.values()), len(value)), read


def _check_names(names: list[Any]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidArgument(f"fields has two columns named {short_repr(twice)}: a record has one value of a name")


Column = tuple[int, Callable[[int, int], Sequence[Any]]]


def _column(name: object, column: Any) -> Column:
    if (
        isinstance(column, (str, bytes, dict, set))
        or not (hasattr(column, "__len__") and hasattr(column, "__getitem__"))
        or getattr(column, "ndim", 1) == 0
    ):
        raise InvalidArgument(
            f"fields column {short_repr(name)} is {short_repr(column)}: a dict is read as columns of one value per id; "
            "for the fields of records pass a list of dicts"
        )
    if hasattr(column, "iloc"):
        return _pandas_column(column)
    if isinstance(column, np.ndarray) and column.dtype.kind in "mM":
        return len(column), lambda start, stop: _of_times(column[start:stop])
    for method in ("to_pylist", "to_list", "tolist"):  # Arrow, polars, NumPy
        if hasattr(column, method):
            return len(column), lambda start, stop, method=method: getattr(column[start:stop], method)()
    return len(column), lambda start, stop: column[start:stop]


def _pandas_column(series: Any) -> Column:
    def read(start: int, stop: int) -> list[Any]:
        part = series.iloc[start:stop]
        values: list[Any] = part.tolist()
        for at in np.flatnonzero(np.asarray(part.isna(), bool)).tolist():
            values[at] = None
        return values

    return len(series), read


def _record(record: object, position: int) -> bytes:
    """One record's fields, checked and encoded. A flat record of plain values costs one pass of dict lookups."""
    if not isinstance(record, dict):
        if record is None:
            return _NO_FIELDS
        raise InvalidArgument(f"fields[{position}] is {short_repr(record)}, not a dict")
    key: object = None
    plain = type(record) is dict
    try:
        budget = [limits.fields_bytes_max]
        for key, one in record.items():
            if type(key) is not str:
                plain = False
                _check_key(key)
            kind = type(one)
            if kind is str:
                budget[0] -= len(one)
            elif kind is int:
                plain &= -INT64_END <= one < INT64_END
            elif kind not in _PLAIN:
                plain = False
        if not plain:
            record = {plain_str(key): _clean(one, 2, budget) for key, one in record.items()}
        data = _encode(record) if budget[0] >= 0 else b""
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"fields[{position}] holds text with a lone surrogate, which UTF-8 cannot store: repair it"
        ) from None
    except InvalidArgument as error:
        raise type(error)(f"fields[{position}], field {short_repr(key)}: {error}") from None
    if budget[0] < 0 or len(data) > limits.fields_bytes_max:
        raise _too_large(position)
    return data


def _encoded(raw: bytes, position: int) -> bytes:
    """The fields of one record that come encoded: a flat map of plain values stays as it is, others are made anew."""
    if len(raw) > limits.fields_bytes_max:
        raise _too_large(position)
    try:
        _decode_plain(raw)
        return raw
    except (msgspec.DecodeError, UnicodeDecodeError):  # it may still be a map: of other values
        pass
    try:
        record = decode_fields(raw)
    except Corruption:
        raise InvalidArgument(f"fields[{position}] is no MessagePack map with string keys") from None
    return _record(record, position)


def _too_large(position: int) -> LimitExceeded:
    return LimitExceeded(
        f"fields[{position}] pass {limits.fields_bytes_max:,} bytes, the most of one record: store less in it"
    )


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise InvalidArgument(f"field names and dict keys must be strings, got {short_repr(key)}")


def _clean(value: Any, depth: int, budget: list[int]) -> Any:
    """The value in types that the encoder knows. `budget[0]` holds the bytes left; every value takes at least one."""
    budget[0] -= 1
    if budget[0] < 0:
        raise LimitExceeded(f"fields pass {limits.fields_bytes_max:,} bytes, the most of one record: store less in it")
    if isinstance(value, np.ndarray):
        if value.size > budget[0]:
            return _clean(None, depth, [-1])
        value = _of_times(value) if value.dtype.kind in "mM" else value.tolist()
    elif isinstance(value, np.generic):
        value = _of_numpy(value)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, (str, bytes)):
        budget[0] -= len(value)
        return plain_str(value) if isinstance(value, str) else bytes(value)
    if isinstance(value, int):
        if not -INT64_END <= value < INT64_END:
            raise InvalidArgument(
                f"ints must fit in 64 bits (-2**63 to 2**63 - 1), got {short_repr(value)}: store it as text"
            )
        return int(value)
    if isinstance(value, (dict, list, tuple)):
        if depth > limits.fields_depth_max:
            raise LimitExceeded(f"lists and dicts nest at most {limits.fields_depth_max} deep: flatten the value")
        if not isinstance(value, dict):
            return [_clean(one, depth + 1, budget) for one in value]
        for key in value:
            _check_key(key)
            budget[0] -= len(key)
        return {plain_str(key): _clean(one, depth + 1, budget) for key, one in value.items()}
    if isinstance(value, dt.date):
        return _of_date(value)
    if isinstance(value, (uuid.UUID, decimal.Decimal, dt.time)):
        return value.isoformat() if isinstance(value, dt.time) else str(value)
    if _is_missing(value):
        return None
    raise InvalidArgument(
        f"{type(value).__name__} cannot be stored: convert it to "
        "None, bool, int, float, str, bytes, date, datetime, list or dict"
    )


def _is_missing(value: object) -> bool:
    """Whether it is pandas' NA, where pandas is loaded at all."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and value is getattr(pandas, "NA", None)


def _of_numpy(value: np.generic) -> object:
    if isinstance(value, (np.datetime64, np.timedelta64)):
        times = np.asarray(value).reshape(1)
        return _of_times(times.astype("datetime64[us]") if times.dtype.kind == "M" else times)[0]
    return value.item()


def _of_times(times: np.ndarray[Any, Any]) -> list[Any]:
    """Dates or times of NumPy as Python's, cut to microseconds; None for NaT. NumPy itself makes ints of what is finer
    or out of Python's range.
    """
    if times.dtype.kind == "m":
        raise InvalidArgument("timedelta cannot be stored: convert it to a number, such as seconds")
    if np.datetime_data(times.dtype)[0] not in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us"):
        times = times.astype("datetime64[us]")
    found: list[Any] = times.tolist()
    waiting = list(found)
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
        elif isinstance(one, int):
            raise InvalidArgument(f"a {times.dtype} is out of range: years 1 to 9999 can be stored")
    return found


def _of_date(value: Any) -> object:
    """None for pandas' NaT; pandas' nanoseconds are cut to microseconds."""
    if value != value:
        return None
    if not isinstance(value, dt.datetime):
        return msgspec.msgpack.Ext(2, struct.pack("<i", (value - _EPOCH.date()).days))
    try:
        if hasattr(value, "to_pydatetime"):
            value = value.to_pydatetime(warn=False)
        if value.utcoffset() is not None:
            return value.astimezone(dt.UTC)
    except (OverflowError, ValueError):  # of a year that Python has not, here or in UTC
        raise InvalidArgument(
            f"{value.isoformat()} is out of range: times of the years 1 to 9999, in UTC, can be stored"
        ) from None
    return msgspec.msgpack.Ext(
        1, struct.pack("<q", (value.replace(tzinfo=None) - _EPOCH) // dt.timedelta(microseconds=1))
    )
