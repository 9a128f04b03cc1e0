"""SearchResponse <-> Hits. On the wire the hits of all queries follow one another without padding, with counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb.api.hits import Hits
from vecdb.schema import Metric
from vecdb.v1 import common_pb2, search_pb2
from vecdb.wire.arrays import ids_of, ints_of, little_bytes, vectors_message, vectors_of
from vecdb.wire.messages import fields_as_json, selected_fields


def encoded(hits: Hits, select: tuple[str, ...] | None, *, as_json: bool = False, reader: str | None = None) -> bytes:
    """The bytes of a SearchResponse. select : names of the fields to send, None for all, () for none.

    reader : the tenant that asks, who learns which records are its own, and no other owner; None for an administrator.

    Most responses have ids, distances and counts alone. These bytes are written directly from the arrays, because
    building the message takes too long beside a short search.
    """
    if reader is not None:
        _conceal(hits)
    ids = _unpadded(hits.ids, hits)
    if ids.dtype == object:
        made = _field(b"\x0a", _field(b"\x12", common_pb2.StringIds(values=ids.tolist()).SerializeToString()))
    else:
        made = _field(b"\x0a", _field(b"\x0a", _field(b"\x0a", little_bytes(ids)) if len(ids) else b""))
    if len(ids):
        made += _field(b"\x12", little_bytes(_unpadded(hits.distances, hits)))
    if len(hits.counts):
        made += _field(b"\x1a", b"".join(map(_varint, hits.counts.tolist())))
    if hits.sequence:
        made += b"\x20" + _varint(hits.sequence)
    if hits.owners is not None:
        made += _owners(_unpadded(hits.owners, hits).tolist(), reader)
    if hits.packed is None and hits.vectors is None and hits.components is None and hits.explain is None:
        return made
    rest: bytes = _optional_fields(hits, select, as_json).SerializeToString()
    return made + rest


def _owners(names: list[str], reader: str | None) -> bytes:
    if reader is not None:
        names = [name if name == reader else "" for name in names]
    found: bytes = search_pb2.SearchResponse(owners=names if any(names) else ()).SerializeToString()
    return found


def streamed(response: bytes) -> bytes:
    """The bytes of a StreamSearchResponse. response : the bytes of its SearchResponse."""
    return _field(b"\x0a", response)


_ONE_BYTE = tuple(bytes([value]) for value in range(128))


def _varint(value: int) -> bytes:
    if value < 128:
        return _ONE_BYTE[value]
    return bytes([value & 127 | 128]) + _varint(value >> 7)


def _field(tag: bytes, data: bytes) -> bytes:
    """A length-delimited field. data : bytes, a string, a message, or packed numbers."""
    return tag + _varint(len(data)) + data


def _optional_fields(hits: Hits, select: tuple[str, ...] | None, as_json: bool) -> search_pb2.SearchResponse:
    """A message with the fields that a search must ask for. The bytes of two messages in a row are read as one."""
    made = search_pb2.SearchResponse()
    if hits.packed is not None and select != ():
        packed = hits.packed if hits.single else [one for query in hits.packed for one in query]
        _add_fields(made.fields, packed, select, as_json)
    if hits.vectors is not None:
        made.vectors.MergeFrom(vectors_message(_unpadded(hits.vectors, hits)))
    if hits.components is not None:
        made.components.extend(hits.components.tolist())
    if hits.explain is not None:
        made.explain_json = report(hits.explain)
    return made


def _unpadded(values: NDArray[Any], hits: Hits) -> NDArray[Any]:
    """[hits, ...] of an array that is padded where there are several queries."""
    if hits.single:
        return values
    limit = values.shape[1]
    if (hits.counts == limit).all():
        return values.reshape(-1, *values.shape[2:])
    return values[np.arange(limit) < hits.counts[:, None]]


def _add_fields(message: Any, packed: Sequence[Any], select: tuple[str, ...] | None, as_json: bool) -> None:
    message.SetInParent()  # so that a response without hits says, too, that fields were asked for
    if select is not None:
        packed = [selected_fields(bytes(one), select) for one in packed]
    if as_json:
        message.json.extend(fields_as_json(bytes(one)) for one in packed)
    else:
        message.msgpack.extend(map(bytes, packed))


def hits_of(
    message: search_pb2.SearchResponse, limit: int, metric: Metric, single: bool, select: tuple[str, ...] | None
) -> Hits:
    """The hits that `encoded` was called with. limit : columns of the padded arrays of a batch."""
    counts = ints_of(message.counts)
    distances = np.fromiter(message.distances, np.float32, len(message.distances))
    ids = ids_of(message.ids)
    values = np.array(ids, object) if isinstance(ids, list) else ids
    packed: Any = list(message.fields.msgpack) if message.HasField("fields") else None
    vectors = vectors_of(message.vectors, "hits").copy() if message.HasField("vectors") else None
    if not single:
        values = _padded(values, counts, limit, None if values.dtype == object else -1)
        distances = _padded(distances, counts, limit, np.inf)
        vectors = None if vectors is None else _padded(vectors, counts, limit, 0)
        if packed is not None:
            ends = np.cumsum(counts)
            packed = [packed[start:end] for start, end in zip((ends - counts).tolist(), ends.tolist(), strict=True)]
    explain = msgspec.json.decode(message.explain_json) if message.explain_json else None
    components = ints_of(message.components) if message.components else None
    owners = np.array(message.owners, object) if message.owners else None
    if owners is not None and not single:
        owners = _padded(owners, counts, limit, "")
    return Hits(
        values, distances, counts, message.sequence, metric, single, packed, vectors, explain, select, components,
        owners,
    )  # fmt: skip


def _padded(values: NDArray[Any], counts: NDArray[np.int64], limit: int, padding: Any) -> NDArray[Any]:
    """[nq, limit, ...] from values without padding."""
    if (counts == limit).all():
        return values.reshape(len(counts), limit, *values.shape[1:])
    real = np.arange(limit) < counts[:, None]
    made = np.full((len(counts), limit, *values.shape[1:]), padding, values.dtype)
    made[real] = values
    return made


def report(facts: Any) -> str:
    """JSON of what `stats`, `explain` and the like return."""
    return msgspec.json.encode(facts, enc_hook=_plain).decode()


def report_of(text: str) -> Any:
    return msgspec.json.decode(text)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return str(value)


# of `explain`, what says nothing about records of others
_OF_THE_SEARCH = frozenset(
    ("plan", "ef", "nprobe", "search_ms", "fetch_ms", "total_ms", "weights", "quotas", "sizes", "cells")
)


def _conceal(hits: Hits) -> None:
    """Take out what tells a tenant how large the whole is, and how often others write."""
    hits.sequence = 0
    if hits.explain is not None:
        hits.explain = {name: value for name, value in hits.explain.items() if name in _OF_THE_SEARCH}
