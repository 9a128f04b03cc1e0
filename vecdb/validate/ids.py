"""Ids: ints or strings, never both, become LMDB keys and the bytes that a block stores. A UUID is its text."""

from __future__ import annotations

from collections.abc import KeysView, Sequence, Set, ValuesView
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import InvalidArgument
from vecdb.validate.common import INT64_END, Array, asarray, check_rows, gil_slices, is_int, short_repr, utf8

_SLICE_KEYS = 2_048  # id keys made per bytecode stretch
_SLICE_STRINGS = 256


@dataclass(slots=True)
class IdBatch:
    """Checked ids of one call.

    kind   : "int" or "str"; of an empty batch without a given kind, "int" (do not remember it).
    keys   : n LMDB key tails: 8 bytes big-endian with the sign bit flipped, or UTF-8.
    ints   : int64[n], or None for strings.
    blob   : the ids one after another as a block stores them: int64 little-endian, or UTF-8.
    ends   : uint32[n], the end of each id in blob.
    unique : int64[m] ascending, the positions to keep (the last of each id), or None when no id repeats.
    scalar : the caller passed one bare id, not a list.
    """

    kind: Literal["int", "str"]
    n: int
    keys: list[bytes]
    ints: NDArray[np.int64] | None
    blob: bytes
    ends: NDArray[np.uint32]
    unique: NDArray[np.int64] | None
    scalar: bool

    def last_only(self) -> IdBatch:
        """This batch without the ids that a later position repeats; itself when none does."""
        if self.unique is None:
            return self
        return self.take(self.unique)

    def take(self, positions: NDArray[np.int64]) -> IdBatch:
        """The ids at these positions, in their order."""
        if self.ints is not None:
            return _int_batch(self.ints[positions], False)
        return _str_batch([self.keys[i] for i in positions.tolist()], False)

    def first_positions(self) -> NDArray[np.int64]:
        """int64[m] ascending: the first position of each id."""
        first: dict[bytes, int] = {}
        for start, stop in gil_slices(self.n, _SLICE_KEYS):
            for position in range(start, stop):
                first.setdefault(self.keys[position], position)
        return np.fromiter(first.values(), np.int64, len(first))


_ONE_END = np.array([8], np.uint32)
_ONE_END.flags.writeable = False


def ids(
    value: object, kind: Literal["int", "str"] | None = None, *, name: str | None = None, what: str = "ids"
) -> IdBatch:
    """Ids of one call: ints in int64 or strings of 1 to 256 UTF-8 bytes, all of one kind. `uuid.UUID` objects stand for
    their text.

    Parameters
    ----------
    value : one int or str, or a list, tuple, range, NumPy array, pandas / polars / Arrow column of them. Strings are
        kept exactly as given, NUL and combining characters included (a NumPy "U" array itself drops trailing NULs).
    kind : what the collection holds, None when nothing was written yet.
    name, what : the collection and the argument, for messages.
    """
    if type(value) is int or isinstance(value, np.integer):
        number = int(value)
        _check_kind("int", kind, name, number)
        if not -INT64_END <= number < INT64_END:
            raise InvalidArgument(f"int ids must fit in 64 bits (-2**63 to 2**63 - 1), got {short_repr(number)}")
        key = (number + INT64_END).to_bytes(8, "big")
        ints = np.array([number], np.int64)
        return IdBatch("int", 1, [key], ints, number.to_bytes(8, "little", signed=True), _ONE_END, None, True)
    if isinstance(value, UUID):
        value = str(value)
    if isinstance(value, str):
        _check_kind("str", kind, name, value)
        key = _str_key(value)
        return IdBatch("str", 1, [key], None, key, np.array([len(key)], np.uint32), None, True)
    source = _id_source(value, what)
    check_rows(len(source), what)
    if len(source) == 0:
        return _int_batch(np.empty(0, np.int64), False) if kind != "str" else _str_batch([], False)
    if isinstance(source, np.ndarray) and source.dtype.kind in "iu":
        _check_kind("int", kind, name, source[0])
        if source.dtype == np.uint64 and int(source.max()) >= INT64_END:
            raise InvalidArgument(
                f"int ids must be at most 2**63 - 1, got {int(source.max())}: keep hashes of 64 bits as signed ints, "
                "ids.view('int64'), or as texts, ids.astype(str)"
            )
        return _int_batch(source.astype(np.int64), False)
    first = source[0]
    found: Literal["int", "str"] = "str" if isinstance(first, (str, UUID)) else "int"
    if found == "int" and not is_int(first):
        raise _bad_id(first, 0, what)
    _check_kind(found, kind, name, first)
    return _int_batch(_ints_of(source, what), False) if found == "int" else _str_batch(_str_keys(source, what), False)


def _check_kind(found: str, kind: str | None, name: str | None, example: object) -> None:
    if kind is not None and kind != found:
        subject = "this collection" if name is None else f"collection '{name}'"
        raise InvalidArgument(
            f"{subject} has {kind} ids, got {found} {short_repr(example)}: ids are all ints or all strings"
        )


def _bad_id(value: object, position: int, what: str) -> InvalidArgument:
    return InvalidArgument(
        f"{what}[{position}] is {short_repr(value)} ({type(value).__name__}): ids are all ints or all strings"
    )


def _id_source(value: object, what: str) -> Array | Sequence[Any]:
    """Integer ndarray[n], or a sequence or object array of n Python values."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, range):
        check_rows(len(value), what)
        if len(value) and min(value[0], value[-1]) >= -INT64_END and max(value[0], value[-1]) < INT64_END:
            return value[0] + value.step * np.arange(len(value), dtype=np.int64)
        return value
    if isinstance(value, (KeysView, ValuesView)):  # of a dict, in its order
        check_rows(len(value), what)
        return list(value)
    if value is None or isinstance(value, (bool, float, bytes, dict, Set)) or not hasattr(value, "__len__"):
        raise InvalidArgument(f"{what} must be an int, a string, or a list or array of them, got {short_repr(value)}")
    array = asarray(value, what)
    if array.dtype == object and array.ndim == 0:
        raise InvalidArgument(f"{what} must be a list or array of ints or strings, got {short_repr(value)}")
    if array.ndim != 1:
        raise InvalidArgument(f"{what} must have one dimension, got shape {list(array.shape)}: pass a list of ids")
    if array.dtype.kind in "iu" or not array.size:
        return array
    for method in ("to_pylist", "to_list"):  # Arrow, polars, pandas: exact, where a fixed-width array drops NULs
        if array.dtype.kind in "OUT" and hasattr(value, method):
            values: list[Any] = getattr(value, method)()
            return values
    if array.dtype.kind in "OUT":  # object, fixed-width and variable-width strings: read slice by slice
        return array.astype(object)
    if array.dtype.kind == "f":
        _refuse_missing(value, what)
    raise InvalidArgument(
        f"{what} must be integers or strings, got dtype {array.dtype}: convert them first, e.g. astype('int64')"
    )


def _refuse_missing(column: Any, what: str) -> None:
    """Name the first place of a column where there is no id: NumPy makes floats of ints with gaps."""
    for method in ("to_pylist", "to_list", "tolist"):  # Arrow; polars, pandas; NumPy
        if hasattr(column, method):
            values: list[Any] = getattr(column, method)()
            for position, one in enumerate(values):
                if isinstance(one, float) and one == one:  # they are floats, and none is missing before
                    return
                if not is_int(one):
                    raise InvalidArgument(
                        f"{what}[{position}] is missing: each record needs an id; drop or fill the rows without"
                    )
            return


def _ints_of(source: Array | Sequence[Any], what: str) -> NDArray[np.int64]:
    out = np.empty(len(source), np.int64)
    for start, stop in gil_slices(len(source), _SLICE_KEYS):
        part = source[start:stop]
        if set(map(type, part)) != {int}:
            for position, one in enumerate(part, start):
                if not is_int(one):
                    raise _bad_id(one, position, what)
        try:
            out[start:stop] = part
        except OverflowError:
            position, one = next((i, x) for i, x in enumerate(part, start) if not -INT64_END <= int(x) < INT64_END)
            raise InvalidArgument(
                f"{what}[{position}] must fit in 64 bits (-2**63 to 2**63 - 1), got {short_repr(one)}"
            ) from None
    return out


def _int_batch(ints: NDArray[np.int64], scalar: bool) -> IdBatch:
    n = len(ints)
    flipped = (ints.view(np.uint64) ^ np.uint64(INT64_END)).astype(">u8").view("V8")
    keys: list[bytes] = []
    for start, stop in gil_slices(n, _SLICE_KEYS):
        keys += flipped[start:stop].tolist()
    unique = None
    if n > 1 and not (ints[1:] > ints[:-1]).all():
        ordered = np.sort(ints)
        if (ordered[1:] == ordered[:-1]).any():
            unique = np.sort(n - 1 - np.unique(ints[::-1], return_index=True)[1])
    blob = ints.astype("<i8", copy=False).tobytes()
    return IdBatch("int", n, keys, ints, blob, np.arange(8, 8 * n + 1, 8, dtype=np.uint32), unique, scalar)


def _str_key(text: str) -> bytes:
    if not text:
        raise InvalidArgument("a string id must not be empty")
    return utf8(text, "a string id", limits.id_bytes_max)


def _str_keys(source: Array | Sequence[Any], what: str) -> list[bytes]:
    keys: list[bytes] = []
    for start, stop in gil_slices(len(source), _SLICE_STRINGS):
        part = source[start:stop]
        if set(map(type, part)) != {str}:
            part = [str(one) if isinstance(one, UUID) else one for one in part]
            for position, one in enumerate(part, start):
                if not isinstance(one, str):
                    raise _bad_id(one, position, what)
        try:
            lengths = [len(one) for one in part]  # characters first: a huge string is refused before it is encoded
            if min(lengths) == 0 or max(lengths) > limits.id_bytes_max:
                raise ValueError
            encoded = [one.encode() for one in part]
            if max(map(len, encoded)) > limits.id_bytes_max:
                raise ValueError
        except ValueError:  # a UnicodeEncodeError is one too: find which
            encoded = [_str_key(one) for one in part]
        keys += encoded
    return keys


def _str_batch(keys: list[bytes], scalar: bool) -> IdBatch:
    n = len(keys)
    lengths = np.empty(n, np.uint32)
    last: dict[bytes, int] = {}
    for start, stop in gil_slices(n, _SLICE_KEYS):
        part = keys[start:stop]
        lengths[start:stop] = list(map(len, part))
        last.update(zip(part, range(start, stop), strict=True))
    unique = None if len(last) == n else np.sort(np.fromiter(last.values(), np.int64, len(last)))
    return IdBatch("str", n, keys, None, b"".join(keys), np.cumsum(lengths, dtype=np.uint32), unique, scalar)


def truth(
    value: object, queries: int, limit: int, kind: Literal["int", "str"] | None, name: str | None = None
) -> IdBatch:
    """The first `limit` true ids of each query, one query's after another's. value : ids [queries, k >= limit]."""
    try:
        array = np.asarray(value, None if isinstance(value, np.ndarray) else object)
    except ValueError:
        array = np.empty(0, object)
    if queries == 1 and array.ndim == 1:
        array = array[None]
    if array.ndim != 2 or len(array) != queries or array.shape[1] < limit:
        raise InvalidArgument(
            f"truth must have at least {limit:,} ids of each of {queries:,} queries, [{queries}, k], got shape "
            f"{list(array.shape)}"
        )
    flat = np.ascontiguousarray(array[:, :limit]).reshape(-1)
    return ids(flat if flat.dtype.kind in "iu" else flat.tolist(), kind, name=name, what="truth")
