"""Field values as JSON, so that every value comes back as it was.

None, bool, int, str, finite float, list   as in JSON
dict                                       as in JSON; one whose only key begins with "$": {"$dict": [[key, value]]}
NaN, infinities                            {"$float": "nan" | "inf" | "-inf"}
bytes                                      {"$bytes": base64}
date                                       {"$date": "2024-01-31"}
datetime                                   {"$datetime": "2024-01-31T12:00:00.000001+00:00"}; naive without the +
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from typing import Any

from vecdb import InvalidArgument

_PLAIN = frozenset((str, int, bool, type(None)))


def is_plain(value: Any) -> bool:
    """Whether JSON holds the value as it is."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(map(is_plain, value))
    return kind is dict and all(map(is_plain, value.values()))


def tag(value: Any) -> Any:
    """A JSON value for a value of a field."""
    kind = type(value)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return {"$float": str(value)}
    if kind is list:
        return [tag(one) for one in value]
    if kind is dict:
        if len(value) == 1 and next(iter(value)).startswith("$"):
            return {"$dict": [[key, tag(one)] for key, one in value.items()]}
        return {key: tag(one) for key, one in value.items()}
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, dt.datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, dt.date):
        return {"$date": value.isoformat()}
    raise InvalidArgument(f"{type(value).__name__} {value!r} is no value of a field")


def untag(value: Any) -> Any:
    """The value that `tag` was given. Raises InvalidArgument for a tag that it never writes."""
    if type(value) is list:
        return [untag(one) for one in value]
    if type(value) is not dict:
        return value
    if len(value) == 1:
        name, inner = next(iter(value.items()))
        if name.startswith("$"):
            return _of_tag(name, inner)
    return {key: untag(one) for key, one in value.items()}


def _of_tag(name: str, inner: Any) -> Any:
    try:
        if name == "$float":
            return float(inner)
        if name == "$bytes":
            return base64.b64decode(inner, validate=True)
        if name == "$date":
            return dt.date.fromisoformat(inner)
        if name == "$datetime":
            return dt.datetime.fromisoformat(inner)
        if name == "$dict":
            return {str(key): untag(one) for key, one in inner}
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"{name} of {inner!r} is no value ({error})") from error
    raise InvalidArgument(f"{name!r} is no kind of value")
