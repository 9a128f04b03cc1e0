"""Any form of a filter becomes its tree: this is the gate for arguments called `filter`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vecdb.errors import InvalidArgument
from vecdb.filters.dicts import dict_to_filter
from vecdb.filters.expression import Field
from vecdb.filters.parser import parse
from vecdb.filters.tree import Node
from vecdb.validate.common import short_repr


def to_filter(value: Any, params: Mapping[str, Any] | None = None) -> Node | None:
    """The tree of a filter; None where nothing is filtered.

    Parameters
    ----------
    value : None or {}; a condition made with `F`; a string filter; a dict as frameworks pass them (dicts.py).
    params : the values of a string filter's $names: each a value, or a list after `in`. Every one must be named.

    Raises InvalidArgument, which says what is wrong where; LimitExceeded past a bound.
    """
    if params is not None and not isinstance(params, Mapping):
        raise InvalidArgument(f"filter_params must be a dict of names and values, got {short_repr(params)}")
    if isinstance(value, str):
        return parse(value, params)
    if params:
        raise InvalidArgument(
            f"filter_params are for the $names of a string filter, and the filter is {short_repr(value)}: leave them "
            "out"
        )
    if value is None or isinstance(value, Node):
        return value
    if isinstance(value, Mapping):
        return dict_to_filter(value) if value else None
    if isinstance(value, Field):
        raise InvalidArgument(f"filter is the field {value} alone: compare it, or ask whether it exists()")
    raise InvalidArgument(
        f"filter must be a condition such as F.year >= 2020, a string, a dict or None, got {short_repr(value)}"
    )
