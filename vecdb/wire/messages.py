"""Configurations, parameters, records and fields on the wire."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from vecdb.errors import InvalidArgument
from vecdb.schema import BITS, CollectionConfig, Curator, Flat, Hnsw, IndexConfig, Record, SearchParams, Spann
from vecdb.v1 import collections_pb2, common_pb2, search_pb2
from vecdb.validate import EncodedFields, decode_fields, fields, request_id
from vecdb.wire.arrays import DTYPE_NUMBERS, DTYPES

METRICS: dict[collections_pb2.Metric, str] = {
    collections_pb2.METRIC_UNSPECIFIED: "cosine",
    collections_pb2.METRIC_COSINE: "cosine",
    collections_pb2.METRIC_L2: "l2",
    collections_pb2.METRIC_IP: "ip",
    collections_pb2.METRIC_HAMMING: "hamming",
    collections_pb2.METRIC_JACCARD: "jaccard",
}
METRIC_NUMBERS = {
    "cosine": collections_pb2.METRIC_COSINE,
    "l2": collections_pb2.METRIC_L2,
    "ip": collections_pb2.METRIC_IP,
    "hamming": collections_pb2.METRIC_HAMMING,
    "jaccard": collections_pb2.METRIC_JACCARD,
}
ZERO_VECTORS: dict[collections_pb2.ZeroVectors, str] = {
    collections_pb2.ZERO_VECTORS_UNSPECIFIED: "refuse",
    collections_pb2.ZERO_VECTORS_REFUSE: "refuse",
    collections_pb2.ZERO_VECTORS_FAR: "far",
}
ZERO_VECTORS_NUMBERS = {
    "refuse": collections_pb2.ZERO_VECTORS_REFUSE,
    "far": collections_pb2.ZERO_VECTORS_FAR,
}
ID_KINDS = {collections_pb2.ID_KIND_INT: "int", collections_pb2.ID_KIND_STRING: "str"}
ID_KIND_NUMBERS = {kind: number for number, kind in ID_KINDS.items()} | {None: collections_pb2.ID_KIND_UNSPECIFIED}
_INDEXES: dict[str, type[IndexConfig]] = {config.kind: config for config in (Flat, Spann, Curator)}

# -- collections -----------------------------------------------------------------------------------


def index_message(index: IndexConfig | None) -> collections_pb2.IndexConfig:
    if index is None:
        return collections_pb2.IndexConfig()
    if isinstance(index, Hnsw):
        hnsw = collections_pb2.HnswIndex(
            m=index.m, ef_construction=index.ef_construction, ef=index.ef, rerank_all=index.quantization is None
        )
        return collections_pb2.IndexConfig(hnsw=hnsw)
    message = collections_pb2.IndexConfig()
    part = getattr(message, index.kind)
    part.SetInParent()
    for name in getattr(index, "__slots__", ()):
        value = getattr(index, name)
        if value is not None:
            setattr(part, name, value)
    return message


def index_of(message: collections_pb2.IndexConfig) -> IndexConfig | None:
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    part = getattr(message, kind)
    given = {field.name: value for field, value in part.ListFields()}
    if kind == "hnsw":
        rerank_all = given.pop("rerank_all", False)
        return Hnsw(**given, quantization=None if rerank_all else "sq8")
    index: IndexConfig = _INDEXES[kind](**given)
    return index


def collection_message(config: CollectionConfig) -> collections_pb2.Collection:
    return collections_pb2.Collection(
        name=config.name,
        dim=config.dim,
        metric=METRIC_NUMBERS[config.metric],
        dtype=number_of_dtype(config.dtype),
        index=index_message(config.index),
        id_kind=ID_KIND_NUMBERS[config.id_kind],
        metadata_json=metadata_json(config.metadata),
        zero_vectors=ZERO_VECTORS_NUMBERS[config.zero_vectors],
    )


def collection_of(message: collections_pb2.Collection) -> CollectionConfig:
    return CollectionConfig(
        message.name,
        message.dim,
        metric_of(message.metric),  # type: ignore[arg-type]
        dtype_of(message.dtype),  # type: ignore[arg-type]
        index_of(message.index),
        ID_KINDS.get(message.id_kind),  # type: ignore[arg-type]
        metadata_of(message.metadata_json),
        zero_vectors_of(message.zero_vectors),  # type: ignore[arg-type]
    )


def metadata_json(metadata: dict[str, Any]) -> str:
    return msgspec.json.encode(metadata).decode() if metadata else ""


def metadata_of(text: str) -> dict[str, Any]:
    """Raises InvalidArgument where it is no JSON object."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any]) if text else {}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidArgument(f"metadata is no JSON object ({error})") from None


def metric_of(number: collections_pb2.Metric) -> str:
    if number not in METRICS:
        raise InvalidArgument(f"metric {number} is unknown")
    return METRICS[number]


def zero_vectors_of(number: collections_pb2.ZeroVectors) -> str:
    if number not in ZERO_VECTORS:
        raise InvalidArgument(f"zero_vectors {number} is unknown")
    return ZERO_VECTORS[number]


def dtype_of(number: common_pb2.DataType) -> str:
    if number == common_pb2.DATA_TYPE_BITS:
        return BITS
    if number not in DTYPES:
        raise InvalidArgument(f"data type {number} is unknown")
    return str(DTYPES[number].name)


def number_of_dtype(dtype: str) -> common_pb2.DataType:
    return common_pb2.DATA_TYPE_BITS if dtype == BITS else DTYPE_NUMBERS[dtype]


# -- searches --------------------------------------------------------------------------------------


_DEFAULT_PARAMS = SearchParams()


def params_message(params: SearchParams) -> search_pb2.SearchParams | None:
    """The message; None for the default parameters."""
    if params == _DEFAULT_PARAMS:
        return None
    return search_pb2.SearchParams(
        ef=params.ef,
        nprobe=params.nprobe,
        recall=params.recall,
        exact=params.exact,
        threads=params.threads,
        rerank=params.rerank,
    )


def params_of(message: search_pb2.SearchParams) -> SearchParams:
    return SearchParams(
        ef=message.ef if message.HasField("ef") else None,
        nprobe=message.nprobe if message.HasField("nprobe") else None,
        recall=message.recall if message.HasField("recall") else None,
        exact=message.exact,
        threads=message.threads or 1,
        rerank=message.rerank if message.HasField("rerank") else None,
    )


# -- records ---------------------------------------------------------------------------------------


def request_id_of(given: str) -> str | None:
    """The request_id, checked; None where it is not set. Raises LimitExceeded."""
    checked = request_id(given or None)
    return None if checked is None else checked.decode()


def fields_message(encoded: list[bytes] | None) -> common_pb2.FieldMaps | None:
    """encoded : fields as `vecdb.validate` has encoded them; None where there are none."""
    return None if encoded is None else common_pb2.FieldMaps(msgpack=encoded)


def fields_of(message: common_pb2.FieldMaps) -> EncodedFields | list[dict[str, Any]]:
    """Fields as `vecdb.validate` takes them. Raises InvalidArgument for JSON that is no object."""
    if message.json and message.msgpack:
        raise InvalidArgument("fields: give either msgpack or json, not both")
    if not message.json:
        return EncodedFields(message.msgpack)
    found = []
    for position, raw in enumerate(message.json):
        try:
            one = msgspec.json.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            one = None
        if not isinstance(one, dict):
            raise InvalidArgument(f"fields[{position}] is no JSON object")
        found.append(one)
    return found


def one_field_map(message: common_pb2.FieldMaps) -> dict[str, Any]:
    """The one map of a write to several records. Raises InvalidArgument."""
    if len(message.msgpack) + len(message.json) != 1:
        raise InvalidArgument("a change of the records that match has fields, one map for all of them")
    given = fields_of(message)
    [encoded] = fields(given, 1) or [b""]
    return decode_fields(encoded)


def selected_fields(encoded: bytes, names: tuple[str, ...]) -> bytes:
    """The named ones of one record's encoded fields."""
    [selected] = fields([decode_fields(encoded, names)], 1) or [b""]
    return selected


def fields_as_json(encoded: bytes) -> str:
    return msgspec.json.encode(decode_fields(encoded)).decode()


def record_message(record: Record) -> common_pb2.Record:
    """record : as `get` returns it."""
    message = common_pb2.Record(tenants=record.tenants, owner=record.owner)
    if isinstance(record.id, int):
        message.int_id = record.id
    else:
        message.string_id = record.id
    if record.fields:
        [message.fields] = fields([record.fields], 1) or [b""]
    if record.vector is not None:
        message.vector = np.ascontiguousarray(record.vector, record.vector.dtype.newbyteorder("<")).tobytes()
    return message


def record_of(message: common_pb2.Record, dtype: str) -> Record:
    """dtype : NumPy's name of what a stored vector consists of, which the message does not have."""
    found = message.WhichOneof("id")
    vector = np.frombuffer(message.vector, np.dtype(dtype).newbyteorder("<")).copy() if message.vector else None
    return Record(
        message.string_id if found == "string_id" else message.int_id,
        decode_fields(message.fields),
        list(message.tenants),
        vector,
        message.owner,
    )
