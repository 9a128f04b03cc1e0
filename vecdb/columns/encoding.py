"""Values of fields as codes: uint64, at least 1, in the order of the values. 0 stands for a row without a value.

    kind       values                                    code
    bool       False, True                               1, 2
    int        -2**63 + 1 ... 2**63 - 1                  the value + 2**63
    float      any, and -2**63                           bits of the float64, flipped: their order is the values';
                                                         NaN is above all, and in no interval
    date       microseconds of its midnight since 1970   microseconds + 2**63
    datetime   without a time zone, taken as UTC         the same
    instant    with a time zone                          the same
    str bytes  codes of a dictionary (dictionary.py)
    list       how many elements it has                  length + 1
    map        a dict: its own fields are paths          1

An order between values is an interval of codes, inclusive: the comparison is exact whatever the types of the two
numbers are.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.filters.times import moment, text_moment

ABSENT = 0
SIGN = np.uint64(1 << 63)
TEXTS = frozenset(("str", "bytes"))  # kinds whose codes are those of a dictionary
Interval = tuple[int, int]
EMPTY: Interval = (1, 0)

TIMES = frozenset(("date", "datetime", "instant"))
_ZERO = 1 << 63  # the code of 0, and of the first moment of 1970
_CODE_MAX = (1 << 64) - 1
_INT_MIN = -(1 << 63)
_EPOCH = dt.datetime(1970, 1, 1)
_LOWEST, _HIGHEST = 0x000FFFFFFFFFFFFF, 0xFFF0000000000000  # codes of -inf and inf
NAN_CODE = np.uint64(0xFFFFFFFFFFFFFFFF)
LOWEST_INT_CODE = np.uint64(0x3C1FFFFFFFFFFFFF)  # of -2.0**63, and of the int that has no code of its own


def kind_of(value: object) -> str:
    """The kind of one stored value that is not None."""
    kind = _KINDS[type(value)]
    if kind == "int" and value == _INT_MIN:
        return "float"  # as a float it is the same number; as an int its code would be 0
    if kind == "datetime" and value.tzinfo is not None:  # type: ignore[attr-defined]
        return "instant"
    return kind


_KINDS: dict[type, str] = {
    bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", dt.date: "date", dt.datetime: "datetime",
    list: "list", dict: "map",
}  # fmt: skip


def codes_of(kind: str, values: Sequence[Any]) -> NDArray[np.uint64]:
    """uint64[n]: codes of values of one kind that has no dictionary."""
    n = len(values)
    if kind == "int":
        return np.array(values, np.int64).view(np.uint64) ^ SIGN
    if kind == "float":
        return _float_codes(np.array(values, np.float64))
    if kind == "bool":
        return np.array(values, bool).astype(np.uint64) + np.uint64(1)
    if kind == "list":
        return np.fromiter(map(len, values), np.uint64, n) + np.uint64(1)
    if kind == "map":
        return np.ones(n, np.uint64)
    return np.fromiter((moment(value) + _ZERO for value in values), np.uint64, n)


def value_of(kind: str, code: int) -> Any:
    """The value of a code of a kind that has no dictionary; None for lists and maps, whose codes do not hold it."""
    if kind == "int":
        return code - _ZERO
    if kind == "float":
        return _float_of(code)
    if kind == "bool":
        return code == 2
    if kind in TIMES:
        time = _EPOCH + dt.timedelta(microseconds=code - _ZERO)
        return time.date() if kind == "date" else time if kind == "datetime" else time.replace(tzinfo=dt.UTC)
    return None


def interval(kind: str, op: str, value: Any) -> Interval:
    """Codes, lowest and highest, of the values v of a kind without a dictionary for which `v op value` holds. op: one
    of == < <= > >=. `EMPTY` where the two do not compare.
    """
    if kind in ("int", "float"):
        return _number_interval(kind, op, value) if type(value) in (int, float) else EMPTY
    if kind == "bool":
        return _around(op, 1 + value, 1 + value, 1, 2) if type(value) is bool else EMPTY
    if kind not in TIMES:
        return EMPTY
    named = moment(value) if isinstance(value, dt.date) else text_moment(value) if isinstance(value, str) else None
    return EMPTY if named is None else _around(op, named + _ZERO, named + _ZERO, 1, _CODE_MAX)


def _around(op: str, below: int, above: int, lowest: int, highest: int) -> Interval:
    """The interval by codes of the largest value that is at most the wanted one, and of the smallest that is at least
    it; equal where the wanted value has a code itself.
    """
    if op == "==":
        return (below, below) if below == above else EMPTY
    if op == "<":
        return (lowest, above - 1)
    if op == "<=":
        return (lowest, below)
    if op == ">":
        return (below + 1, highest)
    return (above, highest)


def _number_interval(kind: str, op: str, value: float) -> Interval:
    if value != value:
        return EMPTY
    if kind == "int":
        lowest, highest = 1, _CODE_MAX
        if value in (math.inf, -math.inf):
            below = above = highest + 1 if value > 0 else 0
        else:
            below, above = math.floor(value) + _ZERO, math.ceil(value) + _ZERO
        below, above = max(0, min(below, highest + 1)), max(0, min(above, highest + 1))
        if op == "==":
            return (below, below) if below == above and lowest <= below <= highest else EMPTY
        # past either end all or none compare: the neighbours of the wanted value are beyond what there can be
        low, high = _around(op, below, above, lowest, highest)
        return max(low, lowest), min(high, highest)
    try:
        near = float(value)
    except OverflowError:
        near = math.inf if value > 0 else -math.inf
    below = above = int(_float_codes(np.array([near]))[0])
    if near > value:
        below -= 1
    elif near < value:
        above += 1
    low, high = _around(op, below, above, _LOWEST, _HIGHEST)
    return max(low, _LOWEST), min(high, _HIGHEST)


def _float_codes(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    bits = (values + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    codes: NDArray[np.uint64] = np.where(bits & SIGN, ~bits, bits | SIGN)
    return np.where(np.isnan(values), NAN_CODE, codes)


def _float_of(code: int) -> float:
    bits = np.uint64(code)
    return float((bits ^ SIGN if bits & SIGN else ~bits).reshape(1).view(np.float64)[0])
