"""Numbers, sizes and values of records as text. Nothing here is HTML: templates escape what they are given."""

from __future__ import annotations

import datetime as dt
import json
import math
from typing import Any

import numpy as np

_SHOWN_CHARS = 120  # of a value in a table


def count(value: Any) -> str:
    """1,234,567; a dash where nothing is known."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "–"


def size(value: Any) -> str:
    """Bytes in words: 1.5 MiB."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return "–"
    number = float(value)
    for unit in ("B", "KiB", "MiB"):
        if abs(number) < 1024:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1024
    return f"{number:,.2f} GiB"


def share(value: Any) -> str:
    """A recall: 0.987."""
    return f"{value:.3f}" if isinstance(value, (int, float)) and math.isfinite(value) else "–"


def decimal(value: Any) -> str:
    """A distance or score with five digits that count."""
    if not isinstance(value, (int, float, np.floating)) or not math.isfinite(value):
        return "–" if value is None else str(value)
    return f"{float(value):#.5g}" if value else "0"


def milliseconds(value: Any) -> str:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.2f} ms" if value >= 0.1 else f"{value:.3f} ms"


def rate(value: Any) -> str:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def moment(value: Any) -> str:
    """A time of `stats()`, ISO 8601, as people read it: 2026-01-31 12:00 UTC."""
    try:
        found = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return str(value)
    return found.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC") if found.tzinfo else str(value)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def text_of(value: Any) -> str:
    """A field's value, whole."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, (dt.datetime, dt.date)):
        return value.isoformat()
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False, default=text_of)
    return str(value)


def short(value: Any) -> str:
    """A field's value for a table."""
    text = text_of(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"


def kind_of(value: Any) -> str:
    """The type of a field's value, in the words of `Collection.fields`."""
    names = {bool: "bool", int: "int", float: "float", str: "text", bytes: "bytes", dict: "map", list: "list"}
    if value is None:
        return "null"
    if isinstance(value, dt.datetime):
        return "datetime"
    if isinstance(value, dt.date):
        return "date"
    return names.get(type(value), type(value).__name__)
