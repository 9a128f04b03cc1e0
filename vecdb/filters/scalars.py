"""The values that a field is compared with: their check, and how a string filter writes them and the names of fields.

    scalar := bool | int | float | str | bytes | date | datetime

Ints have at most `limits.filter_int_bits_max` bits, so that an order with one beyond 64 bits is still answered. Aware
datetimes are kept in UTC. NumPy scalars and pandas Timestamps become their Python value, cut to microseconds.
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.validate.common import plain_str, short_repr

Scalar = bool | int | float | str | bytes | dt.date | dt.datetime

# Words that mean something where a condition begins, and words that follow a field. Only a quoted name may be one.
STARTING_WORDS = frozenset({"and", "or", "not", "true", "false", "null", "exists", "inf"})
FOLLOWING_WORDS = frozenset({"in", "is", "like", "prefix", "contains", "between", "starts", "with", "any", "all"})

_INT_END = 1 << limits.filter_int_bits_max
_PLAIN_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_PLAIN_TYPES = frozenset({str, bool, int, float, bytes})


def scalar(value: Any, field: str) -> Scalar:
    """The value that `field` is compared with, as one of the Python types above."""
    kind = type(value)
    if kind is str:
        return text(value, f"the value for field {short_repr(field)}")
    if kind is bool or kind is bytes:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (dt.date, np.generic)):
        return _of_numpy_or_time(value, field)
    if isinstance(value, (int, float)):
        return _number(value, field)
    if isinstance(value, str):
        return text(plain_str(value), f"the value for field {short_repr(field)}")
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, uuid.UUID):
        return str(value)  # as it is stored
    if value is None:
        raise InvalidArgument(
            f"field {short_repr(field)} cannot be compared with None in this way: "
            "is_null() and == None find missing and null values"
        )
    hint = "for several values use is_in, contains_any or contains_all" if hasattr(value, "__iter__") else "convert it"
    raise InvalidArgument(
        f"field {short_repr(field)} cannot be compared with {short_repr(value)}: a value is a bool, int, float, str, "
        f"bytes, date or datetime; {hint}"
    )


def scalars(values: Any, field: str) -> tuple[Scalar, ...]:
    """The values of a list that `field` is looked up in, each once, in order. At most `limits.filter_values_max`."""
    values = listed(values, field)
    kinds = set(map(type, values))
    if not _fit(values, kinds):
        values = tuple(scalar(value, field) for value in values)
        kinds = set(map(type, values))
    if bool in kinds and len(kinds) > 1:  # True == 1 in Python, and not here
        each: dict[tuple[bool, Scalar], Scalar] = {}
        for value in values:
            each.setdefault((type(value) is bool, value), value)
        return tuple(each.values())
    return tuple(dict.fromkeys(values))


def _fit(values: tuple[Any, ...], kinds: set[type]) -> bool:
    """Whether `scalar` would leave each value as it is: a quick look at a long list."""
    if not kinds <= _PLAIN_TYPES:
        return False
    try:
        "".join(value for value in values if type(value) is str).encode()
    except UnicodeEncodeError:
        return False
    ints = [value for value in values if type(value) is int] if int in kinds else [0]
    floats = [value for value in values if type(value) is float] if float in kinds else []
    return min(ints) > -_INT_END and max(ints) < _INT_END and not any(map(math.isnan, floats))


def listed(values: Any, field: str) -> tuple[Any, ...]:
    """What an iterable gives, unless that is more than a filter holds."""
    if isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
        raise InvalidArgument(f"field {short_repr(field)} needs a list of values here, got {short_repr(values)}")
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InvalidArgument(
                f"field {short_repr(field)} needs a list of values, got an array of shape {values.shape}"
            )
        values = values.tolist() if values.dtype.kind in "biufSU" else list(values[: limits.filter_values_max + 1])
    elif not isinstance(values, (tuple, list)):
        values = tuple(islice(values, limits.filter_values_max + 1))
    if len(values) > limits.filter_values_max:
        raise LimitExceeded(
            f"a filter holds at most {limits.filter_values_max:,} values, the list for field {short_repr(field)} has "
            "more: split it"
        )
    return tuple(values)


def field_name(name: Any) -> str:
    """The name of a field, or a dotted path to it. Any text that a record can have as a key is a name."""
    if not isinstance(name, str):
        raise InvalidArgument(f"a field name must be a string, got {short_repr(name)}")
    if len(name) > limits.fields_bytes_max:
        raise LimitExceeded(
            f"a field name is at most {limits.fields_bytes_max:,} characters, got {len(name):,}: {short_repr(name)}"
        )
    return text(plain_str(name), "the field name")


def text(value: str, what: str) -> str:
    """The text, if UTF-8 can hold it."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(
                f"{what}, {short_repr(value)}, holds a lone surrogate, which no stored text can hold: repair it"
            ) from None
    return value


def _number(value: int | float, field: str) -> int | float:
    if isinstance(value, float):
        number = float(value)
        if number != number:
            raise InvalidArgument(f"field {short_repr(field)} cannot be compared with NaN: no value equals it")
        return number
    whole = int(value)
    if not -_INT_END < whole < _INT_END:
        raise LimitExceeded(
            f"field {short_repr(field)} is compared with an int of {whole.bit_length():,} bits, more than "
            f"{limits.filter_int_bits_max:,}: use a float"
        )
    return whole


def _of_numpy_or_time(value: Any, field: str) -> Scalar:
    if isinstance(value, np.generic):
        if isinstance(value, np.datetime64):
            value = value.astype("datetime64[us]") if not np.isnat(value) and value.dtype != "M8[D]" else value
        elif isinstance(value, (np.timedelta64, np.void, np.complexfloating)):
            raise InvalidArgument(f"field {short_repr(field)} cannot be compared with {value.dtype}: convert it")
        plain = value.item()
        if plain is None or (isinstance(value, np.datetime64) and not isinstance(plain, dt.date)):
            raise InvalidArgument(
                f"field {short_repr(field)} cannot be compared with {value}: times are of the years 1 to 9999, and "
                "is_null() finds what is missing"
            )
        return scalar(float(plain) if isinstance(value, np.floating) else plain, field)
    if value != value:  # pandas' NaT
        raise InvalidArgument(f"field {short_repr(field)} cannot be compared with NaT: is_null() finds what is missing")
    if not isinstance(value, dt.datetime):
        return dt.date(value.year, value.month, value.day)
    time: dt.datetime = value.to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value
    try:
        if time.utcoffset() is not None:
            return time.astimezone(dt.UTC)
    except OverflowError:
        raise InvalidArgument(
            f"field {short_repr(field)} is compared with {value.isoformat()}, which in UTC is not of the years 1 to "
            "9999: use a time within them"
        ) from None
    return time.replace(tzinfo=None, fold=0)


# -- the string form -----------------------------------------------------------------------------


def name_text(name: str) -> str:
    """A field's name as a string filter writes it: bare where that is clear, else in double quotes."""
    lower = name.lower()
    if _PLAIN_NAME.fullmatch(name) and lower not in STARTING_WORDS and lower not in FOLLOWING_WORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def scalar_text(value: Scalar) -> str:
    """A value as a string filter writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, dt.datetime):
        return f"timestamp '{value.isoformat()}'"
    if isinstance(value, dt.date):
        return f"date '{value.isoformat()}'"
    return repr(value)  # inf and -inf are words of the language


def list_text(values: Iterable[Scalar]) -> str:
    return "(" + ", ".join(map(scalar_text, values)) + ")"


def shown(value: Scalar) -> str:
    """A value in a message."""
    return scalar_text(value) if isinstance(value, dt.date) else short_repr(value)
