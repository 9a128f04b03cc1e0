"""What the parts of the gate share: slices that yield the GIL, short reprs, bounded integers and texts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded

Array = NDArray[Any]
_OFTEN_S = 0.001  # a switch interval up to which threads take turns often enough; Python's own is 0.005
INT64_END = 1 << 63  # ints are stored in 64 bits, signed


def yield_gil() -> None:
    """Let a waiting thread take the interpreter lock.

    A sleep of zero gives the lock up for about 55 us, long enough for the other thread to wake. Measured beside a 20 us
    kernel in a loop: its p99 fell from 5-13 ms to 0.15-0.4 ms; with `os.sched_yield` (0.7 us) it did not fall. In a
    process with a shorter switch interval, as the server sets, threads take turns by themselves and the sleep only
    costs time: without it a bulk write there is 1.2 times as fast, and the p99 of searches beside it is 23 ms, most of
    it waiting for a core, in place of 20.
    """
    if sys.getswitchinterval() > _OFTEN_S:
        time.sleep(0)


def gil_slices(n: int, step: int, yielding: bool = True) -> Iterable[tuple[int, int]]:
    """Bounds of successive slices, between which other threads may take the interpreter lock. `yielding=False` where
    NumPy itself releases the lock in every slice.
    """
    if n <= step:
        return ((0, n),) if n > 0 else ()
    return _successive(n, step, yielding)


def _successive(n: int, step: int, yielding: bool) -> Iterator[tuple[int, int]]:
    for start in range(0, n, step):
        if start and yielding:
            yield_gil()
        yield start, min(n, start + step)


def is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def plain_str(value: str) -> str:
    """The text as a plain str: of an enum with texts its value, which `str` gives another way."""
    return str.__str__(value)


def short_repr(value: object, length_max: int = 60) -> str:
    """A short repr for messages, whatever the value is."""
    if isinstance(value, (str, bytes)):
        value = value[: length_max + 1]
    elif isinstance(value, np.generic):
        value = value.item()
    elif value is not None and not isinstance(value, (int, float)):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 4 * length_max:  # Python refuses to write very long ones
        return f"an int of {value.bit_length():,} bits"
    text = ascii(value)
    return text if len(text) <= length_max else text[:length_max] + "..."


def iterator(queries: Any) -> Iterator[Any]:
    """An iterator over queries that a caller gives one after another."""
    if not hasattr(queries, "__iter__"):
        raise InvalidArgument(
            f"queries must be an iterable of vectors, got {short_repr(queries)}: an asynchronous one is for vecdb.aio"
        )
    return iter(queries)


def seconds(value: object) -> float:
    """A timeout: a number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InvalidArgument(f"timeout must be a number of seconds above 0, or None, got {short_repr(value)}")
    return float(value)


def integer(value: object, what: str, low: int, high: int) -> int:
    """An int (never a bool or float) within [low, high]."""
    if not is_int(value):
        raise InvalidArgument(f"{what} must be an integer from {low:,} to {high:,}, got {short_repr(value)}")
    number = int(value)  # type: ignore[call-overload]
    if number < low:
        raise InvalidArgument(f"{what} must be at least {low:,}, got {short_repr(number)}")
    if number > high:
        raise LimitExceeded(f"{what} is at most {high:,}, got {short_repr(number)}")
    return int(number)


def commit_number(value: object) -> int:
    """A number of a commit, which a wait is for."""
    return integer(value, "sequence", 0, 2**63 - 1)


def utf8(text: str, what: str, bytes_max: int) -> bytes:
    if len(text) > bytes_max:
        raise LimitExceeded(
            f"{what} is at most {bytes_max:,} UTF-8 bytes, got {len(text):,} characters: {short_repr(text)}"
        )
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} {short_repr(text)} holds a lone surrogate, which UTF-8 cannot store: repair the text"
        ) from None
    if len(data) > bytes_max:
        raise LimitExceeded(f"{what} is at most {bytes_max:,} UTF-8 bytes, got {len(data):,}: {short_repr(text)}")
    return data


def check_rows(n: int, what: str) -> None:
    if n > limits.batch_rows_max:
        raise LimitExceeded(f"one call takes at most {limits.batch_rows_max:,} {what}, got {n:,}: split the batch")


def asarray(value: object, what: str) -> Array:
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        if value is None or isinstance(value, (str, bytes, dict, set, frozenset)):
            raise TypeError("no array")
        return np.asarray(value)
    except Exception as error:  # whatever a foreign __array__ raises
        reason = str(error).partition("\n")[0][:200]
        raise InvalidArgument(
            f"{what} cannot be read as an array, got {short_repr(value)} ({reason}): pass array-like numbers"
        ) from None
