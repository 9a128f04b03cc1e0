"""The one gate: a caller's values become canonical arrays here, or a typed error that says what to change.

    collection_name, collection_config, index_config, owner           names and configuration
    ids -> IdBatch, vectors -> [n, dim], fields -> msgpack bytes      what a write call carries
    queries -> [nq, dim], search_limit, search_params, threads,
    field_selection                                                   what a search call carries

Thread rule: pure functions, callable from any thread. Bounds of limits.py are held before anything of the size in
question is allocated. Long inputs are worked through in slices: NumPy calls on a few hundred KB, bytecode
stretches of about 100 us, then the interpreter lock is offered (`_breathe`), so that searches keep their latency.
Invariant: what `ids`, `vectors` and `fields` return shares no memory with what the caller passed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption, InvalidArgument, LimitExceeded
from vecdb.schema import DTYPES, METRICS, CollectionConfig, Flat, Hnsw, IndexConfig, SearchParams

Array = NDArray[Any]

# The squared distance of two vectors is at most 4 times the larger squared norm: under this bound it stays finite.
_NORM_MAX = float(np.finfo(np.float32).max) / 4
_NORM_MIN = float(np.finfo(np.float32).tiny)  # below it (subnormal) the inverse norm of a cosine loses its precision
_F32 = np.dtype(np.float32)
_CHUNK_CELLS = 65_536  # numbers per NumPy call, which holds the interpreter lock only at its start and end
_CHUNK_CELLS_LISTS = 4_096  # Python numbers that NumPy reads in one call, holding the lock
_CHUNK_ROWS = 256
_SLICE_KEYS = 2_048  # id keys made per bytecode stretch
_SLICE_STRINGS = 256
_SLICE_RECORDS = 64


def _breathe() -> None:
    """Let a waiting thread take the interpreter lock.

    A sleep of zero gives the lock up for about 55 us, long enough for the other thread to wake. Measured beside a 20 us
    kernel in a loop: its p99 fell from 5-13 ms to 0.15-0.4 ms; with `os.sched_yield` (0.7 us) it did not fall.
    """
    time.sleep(0)


def _slices(n: int, step: int, breathe: bool = True) -> Iterator[tuple[int, int]]:
    """Bounds of successive slices. `breathe=False` where NumPy itself releases the lock in every slice."""
    for start in range(0, n, step):
        if start and breathe:
            _breathe()
        yield start, min(n, start + step)


def _is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _show(value: object, length_max: int = 60) -> str:
    """A short repr for messages, whatever the value is."""
    if isinstance(value, (str, bytes)):
        value = value[: length_max + 1]
    elif isinstance(value, np.generic):
        value = value.item()
    elif value is not None and not isinstance(value, (int, float)):
        return f"a {type(value).__name__}"
    text = ascii(value)
    return text if len(text) <= length_max else text[:length_max] + "..."


def _integer(value: object, what: str, low: int, high: int) -> int:
    """An int (never a bool or float) within [low, high]."""
    if not _is_int(value):
        raise InvalidArgument(f"{what} must be an integer from {low:,} to {high:,}, got {_show(value)}")
    number = int(value)  # type: ignore[call-overload]
    if number < low:
        raise InvalidArgument(f"{what} must be at least {low:,}, got {_show(number)}")
    if number > high:
        raise LimitExceeded(f"{what} is at most {high:,}, got {_show(number)}")
    return int(number)


def _utf8(text: str, what: str, bytes_max: int) -> bytes:
    if len(text) > bytes_max:
        raise LimitExceeded(f"{what} is at most {bytes_max:,} UTF-8 bytes, got {len(text):,} characters: {_show(text)}")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"{what} {_show(text)} holds a lone surrogate, which UTF-8 cannot store: repair the text"
        ) from None
    if len(data) > bytes_max:
        raise LimitExceeded(f"{what} is at most {bytes_max:,} UTF-8 bytes, got {len(data):,}: {_show(text)}")
    return data


# -- names and configuration -------------------------------------------------------------------


def collection_name(name: object) -> str:
    """1 to 128 UTF-8 bytes, printable, without slashes, not "." or "..", no space at either end."""
    if not isinstance(name, str):
        raise InvalidArgument(f"a collection name must be a string, got {_show(name)}")
    if not name:
        raise InvalidArgument("a collection name must not be empty")
    _utf8(name, "a collection name", limits.name_bytes_max)
    if not name.isprintable() or "/" in name or "\\" in name or name in (".", "..") or name != name.strip():
        raise InvalidArgument(
            f"collection name {_show(name)} is not allowed: use printable characters without '/' or '\\', "
            "no space at either end, and not '.' or '..'"
        )
    return str(name)


def index_config(index: object) -> IndexConfig | None:
    """None, or a `Flat` or `Hnsw` whose every parameter is within its bound."""
    if index is None or isinstance(index, Flat):
        return index
    if not isinstance(index, Hnsw):
        raise InvalidArgument(f"index must be None, vecdb.Flat() or vecdb.Hnsw(...), got {_show(index)}")
    if index.quantization not in (None, "sq8"):
        raise InvalidArgument(f'Hnsw quantization must be "sq8" or None, got {_show(index.quantization)}')
    return Hnsw(
        m=_integer(index.m, "Hnsw m", limits.m_min, limits.m_max),
        ef_construction=_integer(index.ef_construction, "Hnsw ef_construction", 1, limits.ef_construction_max),
        ef=_integer(index.ef, "Hnsw ef", 1, limits.ef_max),
        quantization=index.quantization,
    )


def collection_config(name: object, dim: object, metric: object, index: object, dtype: object) -> CollectionConfig:
    """Check everything that `create_collection` fixes. `dtype` may be a name or anything `numpy.dtype` knows."""
    checked_name = collection_name(name)
    checked_dim = _integer(dim, "dim", 1, limits.dim_max)
    if not isinstance(metric, str) or metric not in METRICS:
        raise InvalidArgument(f"metric must be one of {', '.join(METRICS)}, got {_show(metric)}")
    if not isinstance(dtype, str) and dtype is not None:
        with contextlib.suppress(TypeError):
            dtype = np.dtype(dtype).name  # type: ignore[call-overload]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise InvalidArgument(f"dtype must be one of {', '.join(DTYPES)}, got {_show(dtype)}")
    return CollectionConfig(checked_name, checked_dim, metric, dtype, index_config(index))  # type: ignore[arg-type]


def owner(owner: object) -> bytes:
    """UTF-8 of an owner name; None and "" are the owner b""."""
    if owner is None or (isinstance(owner, str) and not owner):
        return b""
    if not isinstance(owner, str):
        raise InvalidArgument(f"owner must be a string or None, got {_show(owner)}")
    return _utf8(owner, "owner", limits.owner_bytes_max)


# -- vectors and queries -----------------------------------------------------------------------


def vectors(value: object, config: CollectionConfig, *, what: str = "vectors", single: bool = True) -> Array:
    """Vectors of a write, in the collection's stored dtype, in memory of their own.

    Parameters
    ----------
    value : array-like [n, dim], or [dim] for one vector when `single`
        Lists, NumPy arrays of any layout and byte order, anything with ``__array__`` or ``__dlpack__``.
    single : whether one dimension is accepted; pass ``IdBatch.scalar``.

    Returns
    -------
    stored dtype[n, dim], n >= 1, C-contiguous, not shared with the caller.
        Every number is finite; squared norms stay below a quarter of float32's largest number, so that any distance is
        finite; under cosine no vector is zero. Integer dtypes take integral values in range only.
    """
    source, one = _source(value, what, config)
    if one and not single:
        raise InvalidArgument(
            f"{what} must have shape [n, {config.dim}], got [{config.dim}]: one vector alone goes with one id alone"
        )
    n = len(source)
    if n == 0:
        raise InvalidArgument(f"{what} is empty: pass at least one vector")
    _check_rows(n, what)
    dtype = np.dtype(config.dtype)
    if n * config.dim * dtype.itemsize > limits.batch_bytes_max:
        raise LimitExceeded(
            f"{what} take {n * config.dim * dtype.itemsize:,} bytes, one atomic call takes at most "
            f"{limits.batch_bytes_max:,}: write them in several calls, or with atomic=False"
        )
    return _convert(source, dtype, config, what, _check_floats if dtype.kind == "f" else _check_integers)


def queries(value: object, config: CollectionConfig) -> tuple[NDArray[np.float32], bool]:
    """Queries as float32[nq, dim], C-contiguous, whatever the collection stores; and whether one vector was given.

    Not copied when already float32 and contiguous. nq may be 0. The same bounds on norms hold as for `vectors`.
    """
    if (
        type(value) is np.ndarray
        and value.dtype is _F32
        and value.shape == (config.dim,)
        and value.flags.c_contiguous
        and value.flags.aligned
    ):
        norm = float(value.dot(value))
        if norm <= _NORM_MAX and (norm >= _NORM_MIN or config.metric != "cosine"):
            return value[None], True
    source, single = _source(value, "queries", config)
    nq = len(source)
    if nq > limits.queries_max:
        raise LimitExceeded(
            f"one search takes at most {limits.queries_max:,} queries, got {nq:,}: search in several calls"
        )
    if isinstance(source, np.ndarray) and source.dtype is _F32 and source.flags.c_contiguous and source.flags.aligned:
        for start, stop in _slices(nq, _chunk_rows(config.dim), breathe=False):
            _check_floats(source[start:stop], source[start:stop], start, config, "queries")
        return source, single
    return _convert(source, _F32, config, "queries", _check_floats), single


def _check_rows(n: int, what: str) -> None:
    if n > limits.batch_rows_max:
        raise LimitExceeded(f"one call takes at most {limits.batch_rows_max:,} {what}, got {n:,}: split the batch")


def _chunk_rows(dim: int, cells: int = _CHUNK_CELLS) -> int:
    return max(1, min(_CHUNK_ROWS, cells // dim))


def _holds_numbers(value: Sequence[Any] | Array) -> bool:
    return len(value) > 0 and (isinstance(value[0], (int, float, np.number)) or getattr(value[0], "ndim", None) == 0)


def _source(value: object, what: str, config: CollectionConfig) -> tuple[Array | Sequence[Any], bool]:
    """Numeric ndarray[n, dim], or a sequence of n rows not looked at yet; and whether it was one vector alone.

    Allocates nothing of the size of the data.
    """
    if isinstance(value, (list, tuple)):
        if not _holds_numbers(value):
            return value, False
        _check_dim(len(value), what, config)  # before NumPy makes an array of it
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InvalidArgument(f"{what} has masked values: fill or drop them first")
    elif hasattr(getattr(value, "type", None), "list_size") and hasattr(value, "flatten"):  # Arrow fixed-size lists
        value = _arrow_rows(value, what, config)
    array = _asarray(value, what)
    if array.ndim == 1 and not array.size:
        return np.empty((0, config.dim), _F32), False
    if array.dtype == object and array.ndim:
        if array.ndim == 2 or not _holds_numbers(array):
            return array, False
        _check_dim(len(array), what, config)
        array = _asarray(array.tolist(), what)
    if array.dtype.kind not in "fiu":
        raise InvalidArgument(f"{what} must hold numbers, got dtype {array.dtype}: convert to {config.dtype} first")
    if array.ndim not in (1, 2):
        raise InvalidArgument(f"{what} must have shape [n, {config.dim}], got {list(array.shape)}: reshape it")
    _check_dim(array.shape[-1], what, config)
    return (array[None], True) if array.ndim == 1 else (array, False)


def _arrow_rows(value: Any, what: str, config: CollectionConfig) -> Array:
    flat = value.combine_chunks() if hasattr(value, "combine_chunks") else value
    if flat.null_count:
        raise InvalidArgument(f"{what} has {flat.null_count:,} null rows: drop them first")
    _check_dim(flat.type.list_size, what, config)
    return np.asarray(flat.flatten()).reshape(-1, config.dim)


def _asarray(value: object, what: str) -> Array:
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        if value is None or isinstance(value, (str, bytes, dict, set, frozenset)):
            raise TypeError("no array")
        return np.asarray(value)
    except Exception as error:  # whatever a foreign __array__ raises
        reason = str(error).partition("\n")[0][:200]
        raise InvalidArgument(
            f"{what} cannot be read as an array, got {_show(value)} ({reason}): pass array-like numbers"
        ) from None


def _check_dim(got: int, what: str, config: CollectionConfig) -> None:
    if got != config.dim:
        raise InvalidArgument(f"collection '{config.name}' has dim {config.dim:,}, got {got:,} in {what}")


def _block(source: Array | Sequence[Any], start: int, stop: int, config: CollectionConfig, what: str) -> Array:
    """Numeric array[stop - start, dim] of some rows of a source."""
    rows = source[start:stop]
    if isinstance(rows, np.ndarray) and rows.dtype != object:
        return rows
    for row, one in enumerate(rows, start):
        try:
            got = len(one)
        except TypeError:
            raise InvalidArgument(f"{what}[{row}] is {_show(one)}, not a vector of dim {config.dim:,}") from None
        if got != config.dim:
            raise InvalidArgument(f"collection '{config.name}' has dim {config.dim:,}, got {got:,} in {what}[{row}]")
    block = _asarray(rows.tolist() if isinstance(rows, np.ndarray) else list(rows), f"{what}[{start}:{stop}]")
    if block.dtype.kind not in "fiu" or block.shape != (stop - start, config.dim):
        raise InvalidArgument(f"{what}[{start}:{stop}] must be rows of {config.dim:,} numbers, got dtype {block.dtype}")
    return block


Check = Callable[[Array, Array, int, CollectionConfig, str], None]


def _convert(
    source: Array | Sequence[Any], dtype: np.dtype[Any], config: CollectionConfig, what: str, check: Check
) -> Array:
    """Copy a source into dtype[n, dim], checking each chunk after it (and before anything is handed out)."""
    n = len(source)
    lists = not isinstance(source, np.ndarray) or source.dtype == object
    step = _chunk_rows(config.dim, _CHUNK_CELLS_LISTS if lists else _CHUNK_CELLS)
    out = np.empty((n, config.dim), dtype)
    with np.errstate(all="ignore"):  # an overflow shows as inf and is named by the check
        for start, stop in _slices(n, step, breathe=lists):
            block = _block(source, start, stop, config, what)
            np.copyto(out[start:stop], block, casting="unsafe")
            check(block, out[start:stop], start, config, what)
    return out


def _check_floats(block: Array, stored: Array, first: int, config: CollectionConfig, what: str) -> None:
    """One pass: the squared norm of a row is finite only if every number is."""
    exact = stored if stored.dtype == _F32 else stored.astype(_F32)
    norms = np.vecdot(exact, exact)
    good = norms <= _NORM_MAX  # NaN compares false
    if config.metric == "cosine":
        good &= norms >= _NORM_MIN
    if good.all():
        return
    row = int(np.argmin(good))
    name = f"{what}[{first + row}]"
    finite = np.isfinite(block[row])
    if not finite.all():
        at = int(np.argmin(finite))
        raise InvalidArgument(f"{name} has {block[row, at]} at position {at}: every number must be finite")
    finite = np.isfinite(exact[row])
    if not finite.all():
        at = int(np.argmin(finite))
        largest = float(np.finfo(stored.dtype).max)
        raise InvalidArgument(
            f"{name} has {block[row, at]:g} at position {at}, {stored.dtype} holds at most {largest:g}: scale it down"
        )
    if norms[row] <= _NORM_MAX:
        raise InvalidArgument(
            f"{name} is zero (or too small for its norm), cosine needs a direction: drop it or use metric l2 or ip"
        )
    raise InvalidArgument(
        f"{name} is too long: its squared norm passes {_NORM_MAX:.3g} and distances would overflow; scale it down"
    )


def _check_integers(block: Array, stored: Array, first: int, config: CollectionConfig, what: str) -> None:
    info = np.iinfo(stored.dtype)
    good = (block >= info.min) & (block <= info.max)
    if block.dtype.kind == "f":
        good &= np.trunc(block) == block
    if not good.all():
        row, at = (int(i) for i in np.unravel_index(int(np.argmin(good)), good.shape))
        raise InvalidArgument(
            f"{what}[{first + row}] has {block[row, at]} at position {at}, "
            f"collection '{config.name}' stores {stored.dtype}: pass whole numbers "
            f"from {info.min} to {info.max} (scale and round them first)"
        )
    if config.metric == "cosine":
        nonzero = np.asarray(stored.any(axis=1))
        if not nonzero.all():
            name = f"{what}[{first + int(np.argmin(nonzero))}]"
            raise InvalidArgument(f"{name} is zero, cosine needs a direction: drop it or use metric l2 or ip")


# -- ids ---------------------------------------------------------------------------------------


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
        positions = self.unique
        if self.ints is not None:
            return _int_batch(self.ints[positions], False)
        return _str_batch([self.keys[i] for i in positions.tolist()], False)


_SIGN = 1 << 63
_ONE_END = np.array([8], np.uint32)
_ONE_END.flags.writeable = False


def ids(value: object, kind: Literal["int", "str"] | None = None, *, name: str | None = None) -> IdBatch:
    """Ids of one call: ints in int64 or strings of 1 to 256 UTF-8 bytes, all of one kind.

    Parameters
    ----------
    value : one int or str, or a list, tuple, range, NumPy array, pandas / polars / Arrow column of them. Strings are
        kept exactly as given, NUL and combining characters included (a NumPy "U" array itself drops trailing NULs).
    kind : what the collection holds, None when nothing was written yet.
    name : the collection, for messages.
    """
    if type(value) is int or isinstance(value, np.integer):
        number = int(value)
        _check_kind("int", kind, name, number)
        if not -_SIGN <= number < _SIGN:
            raise InvalidArgument(f"int ids must fit in 64 bits (-2**63 to 2**63 - 1), got {_show(number)}")
        key = (number + _SIGN).to_bytes(8, "big")
        ints = np.array([number], np.int64)
        return IdBatch("int", 1, [key], ints, number.to_bytes(8, "little", signed=True), _ONE_END, None, True)
    if isinstance(value, str):
        _check_kind("str", kind, name, value)
        key = _str_key(value)
        return IdBatch("str", 1, [key], None, key, np.array([len(key)], np.uint32), None, True)
    source = _id_source(value)
    _check_rows(len(source), "ids")
    if len(source) == 0:
        return _int_batch(np.empty(0, np.int64), False) if kind != "str" else _str_batch([], False)
    if isinstance(source, np.ndarray) and source.dtype.kind in "iu":
        _check_kind("int", kind, name, source[0])
        if source.dtype == np.uint64 and int(source.max()) >= _SIGN:
            raise InvalidArgument(f"int ids must be at most 2**63 - 1, got {int(source.max())}")
        return _int_batch(source.astype(np.int64), False)
    first = source[0]
    found: Literal["int", "str"] = "str" if isinstance(first, str) else "int"
    if found == "int" and not _is_int(first):
        raise _bad_id(first, 0)
    _check_kind(found, kind, name, first)
    return _int_batch(_ints_of(source), False) if found == "int" else _str_batch(_str_keys(source), False)


def _check_kind(found: str, kind: str | None, name: str | None, example: object) -> None:
    if kind is not None and kind != found:
        subject = "this collection" if name is None else f"collection '{name}'"
        raise InvalidArgument(
            f"{subject} has {kind} ids, got {found} {_show(example)}: ids are all ints or all strings"
        )


def _bad_id(value: object, position: int) -> InvalidArgument:
    return InvalidArgument(
        f"ids[{position}] is {_show(value)} ({type(value).__name__}): ids are all ints or all strings"
    )


def _id_source(value: object) -> Array | Sequence[Any]:
    """Integer ndarray[n], or a sequence or object array of n Python values."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, range):
        _check_rows(len(value), "ids")
        if len(value) and min(value[0], value[-1]) >= -_SIGN and max(value[0], value[-1]) < _SIGN:
            return value[0] + value.step * np.arange(len(value), dtype=np.int64)
        return value
    if value is None or isinstance(value, (bool, float, bytes, dict, set, frozenset)) or not hasattr(value, "__len__"):
        raise InvalidArgument(f"ids must be an int, a string, or a list or array of them, got {_show(value)}")
    array = _asarray(value, "ids")
    if array.ndim != 1:
        raise InvalidArgument(f"ids must have one dimension, got shape {list(array.shape)}: pass ids.ravel()")
    if array.dtype.kind in "iu" or not array.size:
        return array
    for method in ("to_pylist", "to_list"):  # Arrow, polars, pandas: exact, where a fixed-width array drops NULs
        if array.dtype.kind in "OUT" and hasattr(value, method):
            values: list[Any] = getattr(value, method)()
            return values
    if array.dtype.kind in "OUT":  # object, fixed-width and variable-width strings: read slice by slice
        return array.astype(object)
    raise InvalidArgument(
        f"ids must be integers or strings, got dtype {array.dtype}: convert them first, e.g. astype('int64')"
    )


def _ints_of(source: Array | Sequence[Any]) -> NDArray[np.int64]:
    out = np.empty(len(source), np.int64)
    for start, stop in _slices(len(source), _SLICE_KEYS):
        part = source[start:stop]
        if set(map(type, part)) != {int}:
            for position, one in enumerate(part, start):
                if not _is_int(one):
                    raise _bad_id(one, position)
        try:
            out[start:stop] = part
        except OverflowError:
            position, one = next((i, x) for i, x in enumerate(part, start) if not -_SIGN <= int(x) < _SIGN)
            raise InvalidArgument(
                f"ids[{position}] must fit in 64 bits (-2**63 to 2**63 - 1), got {_show(one)}"
            ) from None
    return out


def _int_batch(ints: NDArray[np.int64], scalar: bool) -> IdBatch:
    n = len(ints)
    flipped = (ints.view(np.uint64) ^ np.uint64(_SIGN)).astype(">u8").view("V8")
    keys: list[bytes] = []
    for start, stop in _slices(n, _SLICE_KEYS):
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
    return _utf8(text, "a string id", limits.id_bytes_max)


def _str_keys(source: Array | Sequence[Any]) -> list[bytes]:
    keys: list[bytes] = []
    for start, stop in _slices(len(source), _SLICE_STRINGS):
        part = source[start:stop]
        for position, one in enumerate(part, start) if set(map(type, part)) != {str} else ():
            if not isinstance(one, str):
                raise _bad_id(one, position)
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
    for start, stop in _slices(n, _SLICE_KEYS):
        part = keys[start:stop]
        lengths[start:stop] = list(map(len, part))
        last.update(zip(part, range(start, stop), strict=True))
    unique = None if len(last) == n else np.sort(np.fromiter(last.values(), np.int64, len(last)))
    return IdBatch("str", n, keys, None, b"".join(keys), np.cumsum(lengths, dtype=np.uint32), unique, scalar)


# -- fields ------------------------------------------------------------------------------------
#
# A record's fields are one msgpack map. Beyond msgpack's own types:
#   aware datetime := timestamp extension (type -1); read back in UTC
#   naive datetime := extension 1: microseconds since 1970-01-01T00:00, int64 LE
#   date           := extension 2: days since 1970-01-01, int32 LE

_encode = msgspec.msgpack.Encoder().encode
_NO_FIELDS = _encode({})
_EPOCH = dt.datetime(1970, 1, 1)
_PLAIN = frozenset((str, float, bool, type(None)))


def fields(value: object, n: int, *, single: bool = False) -> list[bytes] | None:
    """Fields of n records, each one msgpack map; None when the caller passed none at all.

    Parameters
    ----------
    value : None; a list of n dicts (None for a record without fields); a dict of columns of length n; a pandas or
        polars frame or Arrow table of n rows (missing cells become None).
    single : there is one bare id, and a dict is the fields of its record.

    Values may be None, bool, int64, float (NaN too), str, bytes, date, datetime, list, and dict with string keys;
    tuples and NumPy arrays are stored as lists, NumPy scalars as their Python value.
    """
    if value is None:
        return None
    if single and isinstance(value, dict):
        value = [value]
    count, read = _records(value)
    if count != n:
        raise InvalidArgument(f"fields has {count:,} records for {n:,} ids: pass one per id")
    _check_rows(n, "records")
    out: list[bytes] = []
    total = 0
    for start, stop in _slices(n, _SLICE_RECORDS):
        part = [_record(one, position) for position, one in enumerate(read(start, stop), start)]
        out += part
        total += sum(map(len, part))
        if total > limits.batch_bytes_max:
            raise LimitExceeded(
                f"fields pass {limits.batch_bytes_max:,} bytes, the most of one atomic call, at record {stop - 1:,}: "
                "write them in several calls, or with atomic=False"
            )
    return out


def decode_fields(data: bytes, names: Sequence[str] | None = None) -> dict[str, Any]:
    """The dict that `fields` encoded, or of it only the named fields. Raises Corruption on anything else."""
    if not data:
        return {}
    try:
        record = _decode(data)
    except (msgspec.DecodeError, ValueError, OverflowError, struct.error, RecursionError) as error:
        raise Corruption(f"stored fields are not what was written ({error}): run check and restore a backup") from None
    if names is None:
        return record
    return {name: record[name] for name in names if name in record}


def _decode_extension(code: int, data: memoryview) -> object:
    if code == 1:
        return _EPOCH + dt.timedelta(microseconds=struct.unpack("<q", data)[0])
    if code == 2:
        return _EPOCH.date() + dt.timedelta(days=struct.unpack("<i", data)[0])
    raise ValueError(f"extension type {code} is unknown")


_decode = msgspec.msgpack.Decoder(dict[str, Any], ext_hook=_decode_extension).decode


def _records(value: Any) -> tuple[int, Callable[[int, int], Sequence[Any]]]:
    """The number of records, and a function that reads records [start, stop) as dicts."""
    if isinstance(value, (list, tuple)):
        return len(value), lambda start, stop: value[start:stop]
    if isinstance(value, dict):
        columns = {name: _column(name, column) for name, column in value.items()}
    elif hasattr(value, "iloc") and hasattr(value, "columns"):  # pandas
        columns = {name: _pandas_column(value.iloc[:, at]) for at, name in enumerate(value.columns)}
    elif hasattr(value, "slice") and hasattr(value, "to_dicts"):  # polars
        return len(value), lambda start, stop: value.slice(start, stop - start).to_dicts()
    elif hasattr(value, "slice") and hasattr(value, "to_pylist") and hasattr(value, "num_columns"):  # Arrow
        return value.num_rows, lambda start, stop: value.slice(start, stop - start).to_pylist()
    else:
        raise InvalidArgument(f"fields must be a list of dicts, a dict of columns or a table, got {_show(value)}")
    lengths = {name: length for name, (length, _) in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{_show(name)}: {length:,}" for name, length in list(lengths.items())[:5])
        raise InvalidArgument(f"fields columns differ in length ({shown}): every column needs one value per id")

    def read(start: int, stop: int) -> list[dict[str, Any]]:
        parts = [part(start, stop) for _, part in columns.values()]
        return [dict(zip(columns, row, strict=True)) for row in zip(*parts, strict=True)]

    return next(iter(lengths.values()), len(value)), read


Column = tuple[int, Callable[[int, int], Sequence[Any]]]


def _column(name: object, column: Any) -> Column:
    if isinstance(column, (str, bytes, dict, set)) or not (
        hasattr(column, "__len__") and hasattr(column, "__getitem__")
    ):
        raise InvalidArgument(
            f"fields column {_show(name)} is {_show(column)}: a dict is read as columns of one value per id; "
            "for the fields of records pass a list of dicts"
        )
    if hasattr(column, "iloc"):
        return _pandas_column(column)
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
        raise InvalidArgument(f"fields[{position}] is {_show(record)}, not a dict")
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
                plain &= -_SIGN <= one < _SIGN
            elif kind not in _PLAIN:
                plain = False
        if not plain:
            record = {str(key): _clean(one, 2, budget) for key, one in record.items()}
        data = _encode(record) if budget[0] >= 0 else b""
    except UnicodeEncodeError:
        raise InvalidArgument(
            f"fields[{position}] holds text with a lone surrogate, which UTF-8 cannot store: repair it"
        ) from None
    except InvalidArgument as error:
        raise type(error)(f"fields[{position}], field {_show(key)}: {error}") from None
    if budget[0] < 0 or len(data) > limits.fields_bytes_max:
        raise LimitExceeded(
            f"fields[{position}] pass {limits.fields_bytes_max:,} bytes, the most of one record: store less in it"
        )
    return data


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise InvalidArgument(f"field names and dict keys must be strings, got {_show(key)}")


def _clean(value: Any, depth: int, budget: list[int]) -> Any:
    """The value in types that the encoder knows. `budget[0]` holds the bytes left; every value takes at least one."""
    budget[0] -= 1
    if budget[0] < 0:
        raise LimitExceeded(f"fields pass {limits.fields_bytes_max:,} bytes, the most of one record: store less in it")
    if isinstance(value, np.ndarray):
        if value.size > budget[0]:
            return _clean(None, depth, [-1])
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = _of_numpy(value)
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, (str, bytes)):
        budget[0] -= len(value)
        return str(value) if isinstance(value, str) else bytes(value)
    if isinstance(value, int):
        if not -_SIGN <= value < _SIGN:
            raise InvalidArgument(
                f"ints must fit in 64 bits (-2**63 to 2**63 - 1), got {_show(value)}: store it as text"
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
        return {str(key): _clean(one, depth + 1, budget) for key, one in value.items()}
    if isinstance(value, dt.date):
        return _of_date(value)
    raise InvalidArgument(
        f"{type(value).__name__} cannot be stored: convert it to "
        "None, bool, int, float, str, bytes, date, datetime, list or dict"
    )


def _of_numpy(value: np.generic) -> object:
    if isinstance(value, np.datetime64):
        return None if np.isnat(value) else value.astype("datetime64[us]").item()
    return value.item()


def _of_date(value: Any) -> object:
    """None for pandas' NaT; pandas' nanoseconds are cut to microseconds."""
    if value != value:
        return None
    if not isinstance(value, dt.datetime):
        return msgspec.msgpack.Ext(2, struct.pack("<i", (value - _EPOCH.date()).days))
    if hasattr(value, "to_pydatetime"):
        value = value.to_pydatetime(warn=False)
    if value.utcoffset() is not None:
        return value.astimezone(dt.UTC)
    return msgspec.msgpack.Ext(
        1, struct.pack("<q", (value.replace(tzinfo=None) - _EPOCH) // dt.timedelta(microseconds=1))
    )


# -- a search's other arguments ----------------------------------------------------------------


def search_limit(limit: object, nq: int) -> int:
    """Neighbours per query: 1 to `limit_max`, and an answer of at most `search_cells_max` cells."""
    number = (
        limit if type(limit) is int and 0 < limit <= limits.limit_max else _integer(limit, "limit", 1, limits.limit_max)
    )
    if number * nq > limits.search_cells_max:
        raise LimitExceeded(
            f"limit {number:,} times {nq:,} queries passes {limits.search_cells_max:,} results: search in several calls"
        )
    return number


_DEFAULT_PARAMS = SearchParams()


def search_params(params: SearchParams | None, limit: int) -> SearchParams:
    """Checked parameters, defaults for None. An `ef` below `limit` is raised to it: a narrower beam holds too few."""
    if params is None or params is _DEFAULT_PARAMS:
        return _DEFAULT_PARAMS
    if not isinstance(params, SearchParams):
        raise InvalidArgument(f"params must be vecdb.SearchParams(...) or None, got {_show(params)}")
    if not isinstance(params.exact, (bool, np.bool_)):
        raise InvalidArgument(f"SearchParams exact must be True or False, got {_show(params.exact)}")
    recall = params.recall
    if recall is not None:
        if not isinstance(recall, (int, float, np.number)) or isinstance(recall, bool) or not 0.0 < recall <= 1.0:
            raise InvalidArgument(f"SearchParams recall must be above 0 and at most 1, got {_show(recall)}")
        if params.ef is not None or params.nprobe is not None:
            raise InvalidArgument(
                "SearchParams recall picks ef and nprobe itself: give recall, or ef or nprobe, not both"
            )
        recall = float(recall)
    return replace(
        params,
        ef=None if params.ef is None else max(limit, _integer(params.ef, "SearchParams ef", 1, limits.ef_max)),
        nprobe=None if params.nprobe is None else _integer(params.nprobe, "SearchParams nprobe", 1, limits.rows_max),
        recall=recall,
        exact=bool(params.exact),
        threads=_integer(params.threads, "SearchParams threads", 1, limits.threads_max),
    )


def threads(value: object) -> int:
    """A thread count from 1 to `threads_max`; None is every core this process may use."""
    if value is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, limits.threads_max)
    return _integer(value, "threads", 1, limits.threads_max)


def field_selection(fields: object) -> tuple[str, ...] | None:
    """Which fields a call returns: None or True is all of them, False or [] none, else the named ones."""
    if fields is None or fields is True:
        return None
    if fields is False:
        return ()
    if isinstance(fields, str):
        return (fields,)
    if not isinstance(fields, (list, tuple, set, frozenset)) or not all(isinstance(name, str) for name in fields):
        raise InvalidArgument(f"fields must be None (all), [] (none) or a list of field names, got {_show(fields)}")
    return tuple(dict.fromkeys(str(name) for name in fields))
