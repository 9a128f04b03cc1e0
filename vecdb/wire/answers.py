"""Hits on the wire: hits of all queries one after another, without padding, and how many each query has."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb.hits import Hits
from vecdb.schema import Metric
from vecdb.v1 import search_pb2
from vecdb.wire.arrays import column_message, ids_of, vectors_message, vectors_of
from vecdb.wire.nouns import fields_as_json, trimmed


def response(hits: Hits, select: tuple[str, ...] | None, *, as_json: bool = False) -> search_pb2.SearchResponse:
    """select : names of the fields that were asked for, None for all, () for none."""
    real = None if hits.single else np.arange(hits.ids.shape[1]) < hits.counts[:, None]
    ids = hits.ids if real is None else hits.ids[real]
    distances = hits.distances if real is None else hits.distances[real]
    made = search_pb2.SearchResponse(
        ids=column_message(ids.tolist(), "str" if ids.dtype == object else "int"),
        distances=distances.tolist(),
        counts=hits.counts.tolist(),
        sequence=hits.sequence,
    )
    if hits.packed is not None and select != ():
        packed = hits.packed if hits.single else [one for query in hits.packed for one in query]
        if select is not None:
            packed = [trimmed(bytes(one), select) for one in packed]
        if as_json:
            made.fields.json.extend(fields_as_json(bytes(one)) for one in packed)
        else:
            made.fields.msgpack.extend(bytes(one) for one in packed)
    if hits.vectors is not None:
        vectors = hits.vectors if real is None else hits.vectors[real]
        made.vectors.CopyFrom(vectors_message(vectors))
    if hits.components is not None:
        made.components.extend(hits.components.tolist())
    if hits.explain is not None:
        made.explain_json = report(hits.explain)
    return made


def hits_of(
    message: search_pb2.SearchResponse, limit: int, metric: Metric, single: bool, select: tuple[str, ...] | None
) -> Hits:
    """The hits that `response` was made of. limit : columns of the padded arrays of a batch."""
    counts = np.array(message.counts, np.int64)
    distances = np.array(message.distances, np.float32)
    ids = ids_of(message.ids)
    values = np.array(ids, object) if isinstance(ids, list) else ids
    packed: Any = list(message.fields.msgpack) if message.HasField("fields") else None
    vectors = vectors_of(message.vectors, "hits") if message.HasField("vectors") else None
    if not single:
        values = _padded(values, counts, limit, None if values.dtype == object else -1)
        distances = _padded(distances, counts, limit, np.inf)
        vectors = None if vectors is None else _padded(vectors, counts, limit, 0)
        if packed is not None:
            ends = np.cumsum(counts).tolist()
            packed = [packed[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    explain = msgspec.json.decode(message.explain_json) if message.explain_json else None
    components = np.array(message.components, np.int64) if message.components else None
    return Hits(
        values, distances, counts, message.sequence, metric, single, packed, vectors, explain, select, components
    )  # fmt: skip


def _padded(values: NDArray[Any], counts: NDArray[np.int64], limit: int, padding: Any) -> NDArray[Any]:
    """[nq, min(limit, most)] of values that follow one another."""
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
