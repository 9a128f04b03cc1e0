"""Dates and times as numbers that compare: microseconds since 1970-01-01 in UTC.

A date is its midnight, a time without a zone is in UTC.
"""

from __future__ import annotations

import datetime as dt
import re

_EPOCH = dt.datetime(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d(?::\d\d)?)(?:\.(\d{1,9}))?(?:([Zz])|([+-]\d\d:\d\d(?::\d\d)?))?)?", re.ASCII
)


def moment(value: dt.date) -> int:
    """The number of a date or datetime."""
    if not isinstance(value, dt.datetime):
        return (value - _EPOCH.date()).days * _DAY_US
    offset = value.utcoffset()
    since = (value.replace(tzinfo=None) - _EPOCH) // _MICROSECOND
    return since if offset is None else since - offset // _MICROSECOND


def read_time(text: str) -> dt.date | None:
    """The date or datetime that a text names in ISO form, as 2020-01-31 or 2020-01-31T10:30:00.5+01:00; None for any
    other text. What is finer than a microsecond is cut.
    """
    if len(text) < 10 or text[4] != "-":
        return None
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    day, time, fraction, utc, offset = found.groups()
    try:
        if time is None:
            return dt.date.fromisoformat(day)
        whole = dt.datetime.fromisoformat(f"{day}T{time}{offset or ('+00:00' if utc else '')}")
    except ValueError:
        return None
    return whole.replace(microsecond=int(f"{fraction or '':0<6}"[:6]))


def text_moment(text: str) -> int | None:
    """The number of the time that a text names; None where it names none."""
    time = read_time(text)
    return None if time is None else moment(time)
