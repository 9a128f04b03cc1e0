"""Vectors and queries: anything array-like becomes a checked, C-contiguous matrix, a bounded chunk at a time."""

from __future__ import annotations

import decimal
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.schema import BITS, CollectionConfig
from vecdb.validate.common import Array, asarray, check_rows, gil_slices, integer, short_repr

# The squared distance of two vectors is at most 4 times the larger squared norm: under this bound it stays finite.
_NORM_MAX = float(np.finfo(np.float32).max) / 4
_NORM_MIN = float(np.finfo(np.float32).tiny)  # below it (subnormal) the inverse norm of a cosine loses its precision
_F32 = np.dtype(np.float32)
_FLOATS = {float}
_CHUNK_CELLS = 65_536  # numbers per NumPy call, which holds the interpreter lock only at its start and end
_CHUNK_CELLS_LISTS = 4_096  # Python numbers that NumPy reads in one call, holding the lock
_CHUNK_ROWS = 256
# Unlike `ndarray.dot` it does not warn of an overflow; without NumPy's look for an __array_function__ it is as fast.
_dot = inspect.unwrap(np.vdot)


def vectors(
    value: object, config: CollectionConfig, *, what: str = "vectors", single: bool = True, empty_ok: bool = False
) -> Array:
    """Vectors of a write, in the collection's stored dtype, in memory that nobody changes: their own, or `bytes`.

    Parameters
    ----------
    value : array-like [n, dim], or [dim] for one vector when `single`
        Lists, NumPy arrays of any layout and byte order, anything with ``__array__`` or ``__dlpack__``.
    single : whether one dimension is accepted; pass ``IdBatch.scalar``.
    empty_ok : whether there may be none: those of a batch without ids.

    Returns
    -------
    stored dtype[n, dim], C-contiguous, not shared with the caller unless it is immutable.
        Every number is finite; squared norms stay below a quarter of float32's largest number, so that any distance is
        finite; under cosine no vector is zero, unless the collection takes them. Integer dtypes take integral
        values in range only.
    """
    if config.dtype == BITS:
        value = packed_bits(value, config, what)
    source, one = _source(value, what, config)
    if one and not single:
        raise InvalidArgument(
            f"{what} must have shape [n, {config.elements}], got [{config.elements}]: one vector alone goes with one "
            "id alone"
        )
    n = len(source)
    check_rows(n, what)
    dtype = np.dtype(config.element_type)
    if n == 0:
        if not empty_ok:
            raise InvalidArgument(f"{what} is empty: pass at least one vector")
        return np.empty((0, config.elements), dtype)
    if n * config.elements * dtype.itemsize > limits.batch_bytes_max:
        raise LimitExceeded(
            f"{what} take {n * config.elements * dtype.itemsize:,} bytes, one atomic call takes at most "
            f"{limits.batch_bytes_max:,}: write them in several calls, or with atomic=False"
        )
    check = _check_floats if dtype.kind == "f" else _check_integers
    if _is_settled(source, dtype):
        _check_as_they_are(source, config, what, check)
        return source
    return _convert(source, dtype, config, what, check)


def _is_settled(source: Array | Sequence[Any], dtype: np.dtype[Any]) -> TypeGuard[Array]:
    """Whether they lie in a `bytes`, as those of a message do, just as they are stored: a copy would be no safer."""
    return (
        isinstance(source, np.ndarray)
        and source.dtype == dtype
        and source.flags.c_contiguous
        and source.flags.aligned
        and isinstance(_memory_of(source), bytes)
    )


def _memory_of(array: Array) -> object:
    """What an array is, in the end, a view of."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base


@np.errstate(all="ignore")  # an overflow shows as inf and is named by the check
def _check_as_they_are(source: Array, config: CollectionConfig, what: str, check: Check) -> None:
    for start, stop in gil_slices(len(source), _chunk_rows(config.elements), yielding=False):
        check(source[start:stop], source[start:stop], start, config, what)


def dim_of(value: Any, what: str) -> int:
    """The dim that vectors or queries have, [dim] or [n, dim], where nothing says which they must have; 1 where there
    are none and their shape has none. Looks at the first one only.
    """
    list_size = getattr(getattr(value, "type", None), "list_size", None)
    if list_size is not None:
        return integer(list_size, f"the dim of {what}", 1, limits.dim_max)
    source = value if isinstance(value, (list, tuple)) else asarray(value, what)
    if len(source if isinstance(source, (list, tuple)) else np.atleast_1d(source)) == 0:
        return max(1, source.shape[1]) if isinstance(source, np.ndarray) and source.ndim == 2 else 1
    if isinstance(source, np.ndarray) and source.dtype != object:
        dim = source.shape[-1] if source.ndim in (1, 2) else 0
    else:
        one = source if holds_numbers(source) else source[0]
        dim = len(one) if hasattr(one, "__len__") and not isinstance(one, (str, bytes, dict)) else 0
    if not dim:
        raise InvalidArgument(f"{what} must be vectors, [dim] or [n, dim], got {short_repr(value)}")
    return integer(dim, f"the dim of {what}", 1, limits.dim_max)


def is_one_vector(value: object, config: CollectionConfig) -> bool:
    """Whether what `vectors` takes is one vector, [dim], not a matrix of them."""
    return _source(value, "vectors", config)[1]


def query_norms(metric: str) -> tuple[float, float]:
    """Between which squared norms a query is searched for: what `queries` holds."""
    return _NORM_MIN if metric == "cosine" else 0.0, _NORM_MAX


def queries(value: object, config: CollectionConfig) -> tuple[NDArray[np.float32], bool]:
    """Queries as float32[nq, dim], C-contiguous, whatever the collection stores; and whether one vector was given.

    Not copied when already float32 and contiguous. nq may be 0. The same bounds on norms hold as for `vectors`.
    """
    if config.dtype == BITS:
        return _bit_queries(value, config)
    if type(value) is list and len(value) == config.dim and holds_numbers(value):
        value = asarray(value, "queries")
    if type(value) is np.ndarray and value.shape == (config.elements,) and value.dtype.kind in "fiu":
        one = value if value.dtype == _F32 and value.flags.carray else as_floats(value)
        norm = float(_dot(one, one))
        if norm <= _NORM_MAX and (norm >= _NORM_MIN or config.metric != "cosine"):
            return one[None], True
    source, single = _source(value, "queries", config)
    _check_query_count(len(source))
    if isinstance(source, np.ndarray) and source.dtype == _F32 and source.flags.c_contiguous and source.flags.aligned:
        _check_as_they_are(source, config, "queries", _check_floats)
        return source, single
    return _convert(source, _F32, config, "queries", _check_floats), single


def _bit_queries(value: object, config: CollectionConfig) -> tuple[NDArray[np.float32], bool]:
    """The bytes of bits as whole numbers."""
    source, single = _source(packed_bits(value, config, "queries"), "queries", config)
    _check_query_count(len(source))
    return _convert(source, np.dtype(np.uint8), config, "queries", _check_integers).astype(_F32), single


def _check_query_count(nq: int) -> None:
    if nq > limits.queries_max:
        raise LimitExceeded(
            f"one search takes at most {limits.queries_max:,} queries, got {nq:,}: search in several calls"
        )


def packed_bits(value: Any, config: CollectionConfig, what: str) -> Any:
    """Vectors of bits as bytes, uint8[n, dim / 8] or [dim / 8], in the order of `numpy.packbits`: the first of eight is
    the highest. They are packed where each is `dim` times True or False, or 1 or 0; anything else is left as it is.
    """
    if isinstance(value, (list, tuple)):
        first = value if len(value) == 0 or holds_numbers(value) or isinstance(value[0], np.bool_) else value[0]
        if not hasattr(first, "__len__") or len(first) != config.dim:
            return value
    array = asarray(value, what)
    if array.ndim not in (1, 2) or array.shape[-1] != config.dim or array.dtype.kind not in "biuf":
        if array.dtype.kind == "b" and array.ndim:
            _check_dim(array.shape[-1], what, config)
        return value
    good = (array == 0) | (array == 1) if array.dtype.kind != "b" else np.ones((), bool)
    if not good.all():
        row, at = (int(i) for i in np.unravel_index(int(np.argmin(good)), np.atleast_2d(array).shape))
        raise InvalidArgument(
            f"{what}[{row}] has {np.atleast_2d(array)[row, at]} at position {at}: bits are 0 and 1, or True and False, "
            "or come packed, eight to a byte, as numpy.packbits makes them"
        )
    return np.packbits(array != 0, axis=-1)


@np.errstate(all="ignore")  # an overflow shows as inf, and the look that names it follows
def as_floats(value: Array) -> NDArray[np.float32]:
    """A copy, in which what is too large is infinite, for a check of norms to refuse."""
    with np.errstate(over="ignore"):
        return np.array(value, _F32, order="C")


def numbers_of(value: Array | list[Any]) -> NDArray[np.float32] | None:
    """float32[n] of a list of n Python floats; None of anything else."""
    return as_floats(value) if set(map(type, value)) == _FLOATS else None  # type: ignore[arg-type]


def _chunk_rows(dim: int, cells: int = _CHUNK_CELLS) -> int:
    return max(1, min(_CHUNK_ROWS, cells // dim))


def holds_numbers(value: Sequence[Any] | Array) -> bool:
    """Whether it begins as one vector, not as a sequence of vectors."""
    return len(value) > 0 and (
        isinstance(value[0], (int, float, np.number, decimal.Decimal)) or getattr(value[0], "ndim", None) == 0
    )


def _source(value: object, what: str, config: CollectionConfig) -> tuple[Array | Sequence[Any], bool]:
    """Numeric ndarray[n, dim], or a sequence of n rows not looked at yet; and whether it was one vector alone.

    Allocates nothing of the size of the data.
    """
    if isinstance(value, (list, tuple)):
        if not holds_numbers(value):
            return value, False
        _check_dim(len(value), what, config)  # before NumPy makes an array of it
    elif isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise InvalidArgument(f"{what} has masked values: fill or drop them first")
    elif hasattr(getattr(value, "type", None), "list_size") and hasattr(value, "flatten"):  # Arrow fixed-size lists
        value = _arrow_rows(value, what, config)
    array = asarray(value, what)
    if array.ndim == 1 and not array.size:
        return np.empty((0, config.elements), _F32), False
    if array.dtype == object and array.ndim:
        if array.ndim == 2 or not holds_numbers(array):
            return array, False
        _check_dim(len(array), what, config)
        array = asarray(array.tolist(), what)
        if array.dtype.kind not in "fiu" and array.ndim == 1:
            return _numbers_of([array.tolist()], 0, config, what), True
    if array.dtype.kind == "V":
        array = _plain_floats(array)
    if array.dtype.kind not in "fiu":
        raise InvalidArgument(f"{what} must hold numbers, got dtype {array.dtype}: convert to {config.dtype} first")
    if array.ndim not in (1, 2):
        raise InvalidArgument(f"{what} must have shape [n, {config.elements}], got {list(array.shape)}: reshape it")
    _check_dim(array.shape[-1], what, config)
    return (array[None], True) if array.ndim == 1 else (array, False)


def _arrow_rows(value: Any, what: str, config: CollectionConfig) -> Array:
    flat = value.combine_chunks() if hasattr(value, "combine_chunks") else value
    if flat.null_count:
        raise InvalidArgument(f"{what} has {flat.null_count:,} null rows: drop them first")
    _check_dim(flat.type.list_size, what, config)
    return np.asarray(flat.flatten()).reshape(-1, config.elements)


def _check_dim(got: int, what: str, config: CollectionConfig) -> None:
    if got != config.elements:
        raise InvalidArgument(f"collection '{config.name}' has {_shape_words(config)}, got {got:,} in {what}")


def _shape_words(config: CollectionConfig) -> str:
    if config.dtype != BITS:
        return f"dim {config.dim:,}"
    return f"dim {config.dim:,}, as {config.elements:,} bytes or {config.dim:,} bits"


def _block(source: Array | Sequence[Any], start: int, stop: int, config: CollectionConfig, what: str) -> Array:
    """Numeric array[stop - start, dim] of some rows of a source."""
    rows = source[start:stop]
    if isinstance(rows, np.ndarray) and rows.dtype != object:
        return rows
    for row, one in enumerate(rows, start):
        try:
            got = len(one)
        except TypeError:
            raise InvalidArgument(f"{what}[{row}] is {short_repr(one)}, not a vector of dim {config.dim:,}") from None
        _check_dim(got, f"{what}[{row}]", config)
    values = rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
    block = asarray(values, f"{what}[{start}:{stop}]")
    if block.dtype.kind == "V" and block.shape == (stop - start, config.elements):
        block = _plain_floats(block)
    if block.dtype.kind not in "fiu" and block.ndim == 2:
        block = _numbers_of(values, start, config, what)
    if block.dtype.kind not in "fiu" or block.shape != (stop - start, config.elements):
        raise InvalidArgument(
            f"{what}[{start}:{stop}] must be rows of {config.elements:,} numbers, got dtype {block.dtype}"
        )
    return block


def _numbers_of(rows: list[Any], first: int, config: CollectionConfig, what: str) -> Array:
    """float64[n, dim] of rows that NumPy makes no numbers of: Decimals become floats, the first that is no number is
    named.
    """
    block = np.empty((len(rows), config.elements))
    for row, one in enumerate(rows):
        for at, value in enumerate(one):
            if isinstance(value, (bool, np.bool_)) or not isinstance(
                value, (int, float, np.integer, np.floating, decimal.Decimal)
            ):
                raise InvalidArgument(
                    f"{what}[{first + row}] has {short_repr(value)} at position {at}: "
                    f"pass rows of {config.elements:,} numbers"
                )
            try:
                block[row, at] = value
            except (OverflowError, ValueError):  # an int past 1,024 bits; a signalling NaN
                raise InvalidArgument(
                    f"{what}[{first + row}] has {short_repr(value)} at position {at}: every number must be finite"
                ) from None
    return block


def _plain_floats(array: Array) -> Array:
    """float32 of the short floats of the package ml_dtypes, such as bfloat16; any other array as it is."""
    return array.astype(_F32) if array.dtype.name.startswith(("bfloat", "float")) else array


Check = Callable[[Array, Array, int, CollectionConfig, str], None]


def _convert(
    source: Array | Sequence[Any], dtype: np.dtype[Any], config: CollectionConfig, what: str, check: Check
) -> Array:
    """Copy a source into dtype[n, dim], checking each chunk after it (and before anything is handed out)."""
    n = len(source)
    lists = not isinstance(source, np.ndarray) or source.dtype == object
    step = _chunk_rows(config.elements, _CHUNK_CELLS_LISTS if lists else _CHUNK_CELLS)
    out = np.empty((n, config.elements), dtype)
    with np.errstate(all="ignore"):  # an overflow shows as inf and is named by the check
        for start, stop in gil_slices(n, step, yielding=lists):
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
        if config.zero_vectors == "far" and not good.all():
            good |= ~exact.any(axis=1)
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
        if config.zero_vectors == "far":
            raise InvalidArgument(f"{name} is too small: its squared norm is below {_NORM_MIN:.3g}; scale it up")
        raise InvalidArgument(
            f"{name} is zero (or too small for its norm), cosine needs a direction: drop it, use metric l2 or ip, or "
            'create the collection with zero_vectors="far"'
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
    if config.metric == "cosine" and config.zero_vectors == "refuse":
        nonzero = np.asarray(stored.any(axis=1))
        if not nonzero.all():
            name = f"{what}[{first + int(np.argmin(nonzero))}]"
            raise InvalidArgument(
                f"{name} is zero, cosine needs a direction: drop it, use metric l2 or ip, or create the collection "
                'with zero_vectors="far"'
            )
