"""Vectors of a write in which some records, or all, have none.

    None                        no record has one
    [[...], None, [...]]        the second has none; also an Arrow column with nulls, a pandas column with None or NaN

What a record has none of is left out: `SomeVectors` has the vectors of the others, and says which these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.schema import CollectionConfig
from vecdb.validate.common import Array, gil_slices
from vecdb.validate.vectors import holds_numbers, vectors

_SLICE_ROWS = 8_192


class SomeVectors(NamedTuple):
    """vectors : [m, dim], of the records that have one, in order.   bare : bool[n], those that have none; None: each
    has one.
    """

    vectors: Any
    bare: NDArray[np.bool_] | None

    @property
    def n(self) -> int:
        return len(self.vectors) if self.bare is None else len(self.bare)

    def take(self, at: NDArray[np.int64]) -> SomeVectors:
        """Those of the records at some positions."""
        if self.bare is None:
            return SomeVectors(np.ascontiguousarray(self.vectors[at]), None)
        bare = self.bare[at]
        places = np.cumsum(~self.bare) - 1
        return SomeVectors(np.ascontiguousarray(self.vectors[places[at[~bare]]]), bare if bare.any() else None)


def some_vectors(
    value: Any,
    n: int,
    config: CollectionConfig,
    shaped: Callable[[Any], CollectionConfig],
    *,
    single: bool,
    empty_ok: bool = False,
) -> SomeVectors:
    """Vectors of a write of n records, in the collection's stored dtype: see `vectors`.

    shaped : of vectors, the configuration with their dim where the collection has none yet. It is not asked where no
    record has a vector.
    Raises InvalidArgument, LimitExceeded.
    """
    given, bare = value if isinstance(value, SomeVectors) else _with_gaps(value, n, single)
    if bare is None or not bare.any():
        return SomeVectors(vectors(given, shaped(given), single=single, empty_ok=empty_ok), None)
    dtype = np.dtype(config.element_type)
    array: Array = np.empty((0, max(1, config.elements)), dtype)
    if not bare.all():
        whole = isinstance(value, SomeVectors)
        first = given if whole else given[int(np.argmin(bare))]
        array = vectors(given, shaped(first), single=False)
        array = array if whole else np.ascontiguousarray(array[~bare])
    size_bytes = len(bare) * array.shape[1] * dtype.itemsize
    if size_bytes > limits.batch_bytes_max:
        raise LimitExceeded(
            f"{len(bare):,} records take the room of {size_bytes:,} bytes of vectors, also those that have none, one "
            f"atomic call takes at most {limits.batch_bytes_max:,}: write them in several calls, or with atomic=False"
        )
    return SomeVectors(array, bare)


def first_vector(value: Any) -> Any:
    """The first vector of a sequence that has gaps; anything else as it is."""
    listed = None if isinstance(value, SomeVectors) else _listed(value)
    if listed is None or not any(one is None for one in listed):
        return value
    return next((one for one in listed if one is not None), ())


def _with_gaps(value: Any, n: int, single: bool) -> tuple[Any, NDArray[np.bool_] | None]:
    """(what `vectors` takes, which of its rows stand for records without a vector). A gap is filled with another
    vector, so that errors name the places that the caller knows.
    """
    if value is None:
        return (), np.ones(n, bool)
    listed = _listed(value)
    if listed is None or not len(listed):
        return value, None
    bare = np.zeros(len(listed), bool)
    for start, stop in gil_slices(len(listed), _SLICE_ROWS):
        bare[start:stop] = [one is None for one in listed[start:stop]]
    if not bare.any():
        return value, None
    if single or holds_numbers([one for one in listed if one is not None][:1]):
        raise InvalidArgument("vectors has None among the numbers of a vector: a record without one has None alone")
    if bare.all():
        return listed, bare
    filling = listed[int(np.argmin(bare))]
    return [filling if one is None else one for one in listed], bare


def _listed(value: Any) -> Sequence[Any] | None:
    """What may have gaps, as a sequence in which they are None."""
    if isinstance(value, (list, tuple)):
        return value
    if getattr(value, "null_count", 0) and hasattr(value, "to_pylist"):  # Arrow
        found: list[Any] = value.to_pylist()
        return found
    if isinstance(value, np.ndarray):
        return value.tolist() if value.dtype == object and value.ndim == 1 else None
    if (
        hasattr(value, "iloc") and str(getattr(value, "dtype", "")) == "object"
    ):  # pandas, which has NaN for None at times
        return [None if isinstance(one, float) and one != one else one for one in value.tolist()]
    return None
