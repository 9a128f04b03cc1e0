"""Vectors, ids and lists of tenants on the wire.

Arrays that are read from a message are views of its bytes: read-only, little-endian, alive with the message.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import InvalidArgument
from vecdb.limits import dim_max
from vecdb.v1 import common_pb2
from vecdb.validate import AccessLists, IdBatch

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
    """Of [n, dim] in one of the four types; a vector alone is one row."""
    return common_pb2.Vectors(data=little_bytes(array), dtype=_NUMBERS[array.dtype], dim=array.shape[-1])


def little_bytes(array: NDArray[Any]) -> bytes:
    """Its numbers one after another, little-endian."""
    return (array.byteswap() if _SWAPPED else array).tobytes()


def vectors_of(message: common_pb2.Vectors, what: str = "vectors") -> NDArray[Any]:
    """[n, dim], a view. Raises InvalidArgument where bytes and shape do not agree."""
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        raise InvalidArgument(f"{what}: data type {message.dtype} is unknown")
    if not 1 <= message.dim <= dim_max:
        raise InvalidArgument(f"{what}: dim must be from 1 to {dim_max:,}, got {message.dim:,}")
    row_bytes = message.dim * dtype.itemsize
    if len(message.data) % row_bytes:
        raise InvalidArgument(
            f"{what}: {len(message.data):,} bytes are no whole number of vectors of {row_bytes:,} bytes "
            f"({message.dim:,} x {dtype.name})"
        )
    found: NDArray[Any] = np.frombuffer(message.data, dtype).reshape(-1, message.dim)
    return found


def ids_message(ids: IdBatch, part: slice = slice(None)) -> common_pb2.Ids:
    if ids.ints is not None:
        return common_pb2.Ids(ints=common_pb2.IntIds(values=ids.ints[part].tolist()))
    return common_pb2.Ids(strings=common_pb2.StringIds(values=[key.decode() for key in ids.keys[part]]))


def ids_of(message: common_pb2.Ids) -> NDArray[np.int64] | list[str]:
    """What the gate takes as ids: int64[n] or n strings; of a message that is not set, no ids."""
    if message.WhichOneof("kind") == "strings":
        return list(message.strings.values)
    return ints_of(message.ints.values)


def ints_of(values: Any) -> NDArray[np.int64]:
    """Of a repeated field; three times as fast as `np.array`, which asks it for every number twice."""
    return np.fromiter(values, np.int64, len(values))


def access_fields(
    lists: AccessLists | None, n: int, shared: str = "tenants", each: str = "tenants_each"
) -> dict[str, Any]:
    """The field of the oneof `access` that says what `lists` of n records say: none, one for all, or one each."""
    if lists is None:
        return {}
    names = [name.decode() for name in lists.names]
    if len(lists.records) == n * len(names):
        return {shared: common_pb2.TenantNames(names=names)}
    ends = np.searchsorted(lists.records, np.arange(1, n)).tolist()
    parts = zip([0, *ends], [*ends, len(lists.which)], strict=True)
    chosen = [[names[which] for which in lists.which[start:end].tolist()] for start, end in parts]
    return {each: common_pb2.TenantLists(lists=[common_pb2.TenantNames(names=one) for one in chosen])}


def tenants_of(request: Any) -> Any:
    """What the gate takes as `tenants`: None, a list of names, or a list of such lists.

    request : has the oneof `access`.
    """
    found = request.WhichOneof("access")
    if found is None:
        return None
    if found == "tenants":
        return list(request.tenants.names)
    return [list(one.names) for one in request.tenants_each.lists]
