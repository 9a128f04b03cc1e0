"""Hits on the wire: hits of all queries one after another, without padding, and how many each query has."""

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
from vecdb.wire.messages import fields_as_json, trimmed


def encoded(hits: Hits, select: tuple[str, ...] | None, *, as_json: bool = False) -> bytes:
    """The bytes of a SearchResponse. select : names of the fields that were asked for, None for all, () for none.

    Most answers are ids, distances and counts alone: those are written from the arrays, as building the message takes
    longer than a short search may add to its kernel.
    """
    ids = _real(hits.ids, hits)
    if ids.dtype == object:
        made = _field(b"\x0a", _field(b"\x12", common_pb2.StringIds(values=ids.tolist()).SerializeToString()))
    else:
        made = _field(b"\x0a", _field(b"\x0a", _field(b"\x0a", little_bytes(ids)) if len(ids) else b""))
    if len(ids):
        made += _field(b"\x12", little_bytes(_real(hits.distances, hits)))
    if len(hits.counts):
        made += _field(b"\x1a", b"".join(map(_varint, hits.counts.tolist())))
    if hits.sequence:
        made += b"\x20" + _varint(hits.sequence)
    if hits.packed is None and hits.vectors is None and hits.components is None and hits.explain is None:
        return made
    rest: bytes = _rest(hits, select, as_json).SerializeToString()
    return made + rest


def streamed(response: bytes) -> bytes:
    """The bytes of a StreamSearchResponse with those of its SearchResponse."""
    return _field(b"\x0a", response)


_ONE_BYTE = tuple(bytes([value]) for value in range(128))


def _varint(value: int) -> bytes:
    if value < 128:
        return _ONE_BYTE[value]
    return bytes([value & 127 | 128]) + _varint(value >> 7)


def _field(tag: bytes, data: bytes) -> bytes:
    """Of bytes, a string, a message, or numbers one after another."""
    return tag + _varint(len(data)) + data


def _rest(hits: Hits, select: tuple[str, ...] | None, as_json: bool) -> search_pb2.SearchResponse:
    """What a search has to ask for; fields of a message may come in parts."""
    made = search_pb2.SearchResponse()
    if hits.packed is not None and select != ():
        packed = hits.packed if hits.single else [one for query in hits.packed for one in query]
        _add_fields(made.fields, packed, select, as_json)
    if hits.vectors is not None:
        made.vectors.MergeFrom(vectors_message(_real(hits.vectors, hits)))
    if hits.components is not None:
        made.components.extend(hits.components.tolist())
    if hits.explain is not None:
        made.explain_json = report(hits.explain)
    return made


def _real(values: NDArray[Any], hits: Hits) -> NDArray[Any]:
    """Of an array that is padded where there are several queries, what is of a hit."""
    if hits.single:
        return values
    limit = values.shape[1]
    if (hits.counts == limit).all():
        return values.reshape(-1, *values.shape[2:])
    return values[np.arange(limit) < hits.counts[:, None]]


def _add_fields(message: Any, packed: Sequence[Any], select: tuple[str, ...] | None, as_json: bool) -> None:
    message.SetInParent()  # no hits, but fields
    if select is not None:
        packed = [trimmed(bytes(one), select) for one in packed]
    if as_json:
        message.json.extend(fields_as_json(bytes(one)) for one in packed)
    else:
        message.msgpack.extend(map(bytes, packed))


def hits_of(
    message: search_pb2.SearchResponse, limit: int, metric: Metric, single: bool, select: tuple[str, ...] | None
) -> Hits:
    """The hits that `encoded` was given. limit : columns of the padded arrays of a batch."""
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
    return Hits(
        values, distances, counts, message.sequence, metric, single, packed, vectors, explain, select, components
    )  # fmt: skip


def _padded(values: NDArray[Any], counts: NDArray[np.int64], limit: int, padding: Any) -> NDArray[Any]:
    """[nq, limit, ...] of values that follow one another."""
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
