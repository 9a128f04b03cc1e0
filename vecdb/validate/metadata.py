"""Metadata of a collection: a dict of what JSON has, which is stored with the collection's state."""

from __future__ import annotations

import math
from typing import Any

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.validate.common import short_repr
from vecdb.validate.fields import decode_fields, fields


def metadata(value: object) -> dict[str, Any]:
    """A copy of a dict of what JSON has. Raises InvalidArgument, LimitExceeded."""
    if not isinstance(value, dict):
        raise InvalidArgument(f"metadata must be a dict, got {short_repr(value)}")
    try:
        [raw] = fields([value], 1) or [b""]
    except InvalidArgument as error:
        raise type(error)(f"metadata{str(error).removeprefix('fields[0]')}") from None
    if len(raw) > limits.metadata_bytes_max:
        raise LimitExceeded(f"metadata takes {len(raw):,} bytes, at most {limits.metadata_bytes_max:,}: note less")
    copied = decode_fields(raw)
    _check_plain(copied)
    return copied


def _check_plain(value: object) -> None:
    if isinstance(value, dict):
        for one in value.values():
            _check_plain(one)
    elif isinstance(value, list):
        for one in value:
            _check_plain(one)
    elif not (value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))):
        raise InvalidArgument(
            f"metadata holds what JSON has, got {short_repr(value)}: texts, numbers, True, False, None, lists and dicts"
        )
