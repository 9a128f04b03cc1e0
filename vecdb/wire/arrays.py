"""Vectors, ids and lists of tenants on the wire.

Arrays that are read from a message are read-only and little-endian; they own their bytes.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidArgument
from vecdb.limits import dim_max
from vecdb.schema import element_type, elements
from vecdb.v1 import common_pb2
from vecdb.validate import AccessLists, IdBatch, SomeVectors
from vecdb.validate.common import check_rows
from vecdb.validate.tenants import TenantColumns, check_pairs

DTYPES: dict[common_pb2.DataType, np.dtype[Any]] = {
    common_pb2.DATA_TYPE_UNSPECIFIED: np.dtype("<f4"),
    common_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    common_pb2.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    common_pb2.DATA_TYPE_INT8: np.dtype("i1"),
    common_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
}
DTYPE_NUMBERS = {dtype.name: number for number, dtype in DTYPES.items() if number}
_NUMBERS = {dtype.newbyteorder("="): number for number, dtype in DTYPES.items() if number}
_SWAPPED = sys.byteorder == "big"


def vectors_message(array: NDArray[Any]) -> common_pb2.Vectors:
    """array : [n, dim] in one of the four types; a [dim] vector is one row."""
    return common_pb2.Vectors(data=little_bytes(array), dtype=_NUMBERS[array.dtype], dim=array.shape[-1])


def vector_bytes(dim: int, dtype: str) -> int:
    """Bytes of a vector of a collection of this dim and dtype, as it is stored and sent."""
    return elements(dim, dtype) * np.dtype(element_type(dtype)).itemsize


def vector_bytes_max(dim: int, dtype: str) -> int:
    """Bytes by which vectors of an answer are counted: those of as many float32, whatever is stored."""
    return 4 * elements(dim, dtype)


def little_bytes(array: NDArray[Any]) -> bytes:
    """The array's numbers one after another, little-endian."""
    return (array.byteswap() if _SWAPPED else array).tobytes()


def little_view(array: NDArray[Any]) -> memoryview:
    """The same bytes where they lie, if the array is contiguous. The caller must not change it meanwhile."""
    return np.ascontiguousarray(array.byteswap() if _SWAPPED else array).data.cast("B")


def vectors_of(
    message: common_pb2.Vectors, what: str = "vectors", numbers: NDArray[np.uint8] | None = None
) -> NDArray[Any]:
    """[n, dim], read-only. numbers : the bytes of `data` where the message itself lacks them; they need not be aligned.
    Raises InvalidArgument where bytes and shape do not agree.
    """
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        raise InvalidArgument(f"{what}: data type {message.dtype} is unknown")
    if not 1 <= message.dim <= dim_max:
        raise InvalidArgument(f"{what}: dim must be from 1 to {dim_max:,}, got {message.dim:,}")
    row_bytes = message.dim * dtype.itemsize
    data = np.frombuffer(message.data, np.uint8) if numbers is None else numbers  # each access to it makes a copy
    if len(data) % row_bytes:
        raise InvalidArgument(
            f"{what}: {len(data):,} bytes are no whole number of vectors of {row_bytes:,} bytes "
            f"({message.dim:,} x {dtype.name})"
        )
    found: NDArray[Any] = data.view(dtype).reshape(-1, message.dim)
    return found


def without_vectors_bits(bare: NDArray[np.bool_] | None) -> bytes:
    """The field of a write that says which of its records have no vector."""
    return b"" if bare is None else np.packbits(bare, bitorder="little").tobytes()


def some_vectors_of(request: Any, numbers: NDArray[np.uint8] | None = None) -> Any:
    """Vectors of a write, as `vecdb.validate` takes them. numbers : as in `vectors_of`. Raises InvalidArgument."""
    bits = request.without_vectors
    if not bits:
        return vectors_of(request.vectors, numbers=numbers)
    check_rows(8 * (len(bits) - 1), "records")  # before anything of that size is made
    found = np.empty((0, 1), np.float32)
    if request.HasField("vectors"):
        found = vectors_of(request.vectors, numbers=numbers)
    marks = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").astype(bool)
    n = len(found) + int(marks.sum())
    check_rows(n, "records")
    if len(bits) != -(-n // 8) or marks[n:].any():
        raise InvalidArgument(
            f"without_vectors must have a bit for each of {n:,} records, {len(found):,} with a vector and the others "
            "without"
        )
    return SomeVectors(found, marks[:n])


def ids_message(ids: IdBatch, part: slice = slice(None)) -> common_pb2.Ids:
    if ids.ints is not None:
        return common_pb2.Ids(ints=common_pb2.IntIds(values=ids.ints[part].tolist()))
    return common_pb2.Ids(strings=common_pb2.StringIds(values=[key.decode() for key in ids.keys[part]]))


def id_list_message(ids: list[int] | list[str]) -> common_pb2.Ids:
    """Of ids that the engine has made."""
    if ids and isinstance(ids[0], str):
        return common_pb2.Ids(strings=common_pb2.StringIds(values=ids))
    return common_pb2.Ids(ints=common_pb2.IntIds(values=ids))  # type: ignore[arg-type]


def ids_of(message: common_pb2.Ids) -> NDArray[np.int64] | list[str]:
    """int64[n] or n strings, as `vecdb.validate` takes ids; no ids where the message is not set."""
    if message.WhichOneof("kind") == "strings":
        return list(message.strings.values)
    return ints_of(message.ints.values)


def truth_of(request: Any, queries: int) -> Any:
    """Ids [queries, k] of an EvaluateRequest, as `vecdb.validate` takes them; None where they are not set. Raises
    InvalidArgument where they are not as many of each query.
    """
    if not request.HasField("truth"):
        return None
    found = ids_of(request.truth)
    if not queries or len(found) % queries:
        raise InvalidArgument(f"truth: {len(found):,} ids are not as many of each of {queries:,} queries")
    return np.array(found, None if isinstance(found, np.ndarray) else object).reshape(queries, -1)


def ints_of(values: Any) -> NDArray[np.int64]:
    """A repeated field as an array. Three times as fast as `np.array`, which reads every number twice."""
    return np.fromiter(values, np.int64, len(values))


def access_fields(lists: AccessLists | None, n: int) -> dict[str, Any]:
    """The field of the oneof `access` for the lists of n records: none, one for all of them, or one for each."""
    if lists is None:
        return {}
    names = [name.decode() for name in lists.names]
    if len(lists.records) == n * len(names):
        return {"tenants": common_pb2.TenantNames(names=names)}
    counts = np.bincount(lists.records, minlength=n).tolist()
    return {"tenant_columns": common_pb2.TenantColumns(names=names, counts=counts, which=lists.which.tolist())}


def tenants_of(request: Any) -> frozenset[str] | list[list[str]] | None:
    """None, a set of names for all records, or a list of lists of names, as `vecdb.validate` takes `tenants`.

    request : has the oneof `access`. Raises InvalidArgument where columns do not fit together.
    """
    found = request.WhichOneof("access")
    if found is None:
        return None
    if found == "tenants":
        return frozenset(request.tenants.names)
    if found == "tenant_columns":
        return _columns_of(request.tenant_columns).lists()
    lists = request.tenants_each.lists
    check_rows(len(lists), "lists of tenants")
    return [list(one.names) for one in lists]


def tenant_columns_of(request: Any) -> TenantColumns | frozenset[str] | list[list[str]] | None:
    """The same, but columns stay what they are."""
    if request.WhichOneof("access") == "tenant_columns":
        return _columns_of(request.tenant_columns)
    return tenants_of(request)


def _columns_of(columns: common_pb2.TenantColumns) -> TenantColumns:
    check_rows(len(columns.counts), "lists of tenants")
    check_pairs(len(columns.which))
    found = TenantColumns(list(columns.names), ints_of(columns.counts), ints_of(columns.which))
    if (total := int(found.counts.sum())) != len(found.which):
        raise InvalidArgument(f"tenants: counts are of {total:,} names, {len(found.which):,} are there")
    if (last := int(found.which.max(initial=-1))) >= len(found.names):
        raise InvalidArgument(f"tenants: place {last:,} is asked for, there are {len(found.names):,} names")
    return found
