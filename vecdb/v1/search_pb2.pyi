from vecdb.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SearchParams(_message.Message):
    __slots__ = ("ef", "nprobe", "recall", "exact", "threads", "rerank")
    EF_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    EXACT_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    ef: int
    nprobe: int
    recall: float
    exact: bool
    threads: int
    rerank: int
    def __init__(self, ef: _Optional[int] = ..., nprobe: _Optional[int] = ..., recall: _Optional[float] = ..., exact: bool = ..., threads: _Optional[int] = ..., rerank: _Optional[int] = ...) -> None: ...

class MixtureQuery(_message.Message):
    __slots__ = ("positives", "histories", "components", "smoothing", "neighbours", "owner")
    POSITIVES_FIELD_NUMBER: _ClassVar[int]
    HISTORIES_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    NEIGHBOURS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    positives: _common_pb2.Ids
    histories: _containers.RepeatedCompositeFieldContainer[_common_pb2.Ids]
    components: int
    smoothing: float
    neighbours: int
    owner: str
    def __init__(self, positives: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., histories: _Optional[_Iterable[_Union[_common_pb2.Ids, _Mapping]]] = ..., components: _Optional[int] = ..., smoothing: _Optional[float] = ..., neighbours: _Optional[int] = ..., owner: _Optional[str] = ...) -> None: ...

class FieldSelection(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class QueryFilters(_message.Message):
    __slots__ = ("filters", "which")
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    WHICH_FIELD_NUMBER: _ClassVar[int]
    filters: _containers.RepeatedCompositeFieldContainer[_common_pb2.Filter]
    which: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, filters: _Optional[_Iterable[_Union[_common_pb2.Filter, _Mapping]]] = ..., which: _Optional[_Iterable[int]] = ...) -> None: ...

class NamedRows(_message.Message):
    __slots__ = ("rows", "counts", "generation", "sequence", "estimates", "margins")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ESTIMATES_FIELD_NUMBER: _ClassVar[int]
    MARGINS_FIELD_NUMBER: _ClassVar[int]
    rows: bytes
    counts: _containers.RepeatedScalarFieldContainer[int]
    generation: int
    sequence: int
    estimates: bytes
    margins: bytes
    def __init__(self, rows: _Optional[bytes] = ..., counts: _Optional[_Iterable[int]] = ..., generation: _Optional[int] = ..., sequence: _Optional[int] = ..., estimates: _Optional[bytes] = ..., margins: _Optional[bytes] = ...) -> None: ...

class SearchRequest(_message.Message):
    __slots__ = ("collection", "vectors", "mixture", "limit", "tenants", "params", "fields", "include_vectors", "explain", "filter", "fields_as_json", "filters_each", "name_rows", "score_rows")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    MIXTURE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    FIELDS_AS_JSON_FIELD_NUMBER: _ClassVar[int]
    FILTERS_EACH_FIELD_NUMBER: _ClassVar[int]
    NAME_ROWS_FIELD_NUMBER: _ClassVar[int]
    SCORE_ROWS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    vectors: _common_pb2.Vectors
    mixture: MixtureQuery
    limit: int
    tenants: _containers.RepeatedScalarFieldContainer[str]
    params: SearchParams
    fields: FieldSelection
    include_vectors: bool
    explain: bool
    filter: _common_pb2.Filter
    fields_as_json: bool
    filters_each: QueryFilters
    name_rows: int
    score_rows: NamedRows
    def __init__(self, collection: _Optional[str] = ..., vectors: _Optional[_Union[_common_pb2.Vectors, _Mapping]] = ..., mixture: _Optional[_Union[MixtureQuery, _Mapping]] = ..., limit: _Optional[int] = ..., tenants: _Optional[_Iterable[str]] = ..., params: _Optional[_Union[SearchParams, _Mapping]] = ..., fields: _Optional[_Union[FieldSelection, _Mapping]] = ..., include_vectors: bool = ..., explain: bool = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., fields_as_json: bool = ..., filters_each: _Optional[_Union[QueryFilters, _Mapping]] = ..., name_rows: _Optional[int] = ..., score_rows: _Optional[_Union[NamedRows, _Mapping]] = ...) -> None: ...

class SearchResponse(_message.Message):
    __slots__ = ("ids", "distances", "counts", "sequence", "fields", "vectors", "components", "explain_json", "owners", "named")
    IDS_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    COMPONENTS_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_JSON_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    NAMED_FIELD_NUMBER: _ClassVar[int]
    ids: _common_pb2.Ids
    distances: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sequence: int
    fields: _common_pb2.FieldMaps
    vectors: _common_pb2.Vectors
    components: _containers.RepeatedScalarFieldContainer[int]
    explain_json: str
    owners: _containers.RepeatedScalarFieldContainer[str]
    named: NamedRows
    def __init__(self, ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., distances: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., sequence: _Optional[int] = ..., fields: _Optional[_Union[_common_pb2.FieldMaps, _Mapping]] = ..., vectors: _Optional[_Union[_common_pb2.Vectors, _Mapping]] = ..., components: _Optional[_Iterable[int]] = ..., explain_json: _Optional[str] = ..., owners: _Optional[_Iterable[str]] = ..., named: _Optional[_Union[NamedRows, _Mapping]] = ...) -> None: ...

class StreamSearchRequest(_message.Message):
    __slots__ = ("search",)
    SEARCH_FIELD_NUMBER: _ClassVar[int]
    search: SearchRequest
    def __init__(self, search: _Optional[_Union[SearchRequest, _Mapping]] = ...) -> None: ...

class StreamSearchResponse(_message.Message):
    __slots__ = ("hits",)
    HITS_FIELD_NUMBER: _ClassVar[int]
    hits: SearchResponse
    def __init__(self, hits: _Optional[_Union[SearchResponse, _Mapping]] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("collection", "queries", "limit", "params", "tenants", "truth", "filter")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    collection: str
    queries: _common_pb2.Vectors
    limit: int
    params: SearchParams
    tenants: _containers.RepeatedScalarFieldContainer[str]
    truth: _common_pb2.Ids
    filter: _common_pb2.Filter
    def __init__(self, collection: _Optional[str] = ..., queries: _Optional[_Union[_common_pb2.Vectors, _Mapping]] = ..., limit: _Optional[int] = ..., params: _Optional[_Union[SearchParams, _Mapping]] = ..., tenants: _Optional[_Iterable[str]] = ..., truth: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ...) -> None: ...

class EvaluateResponse(_message.Message):
    __slots__ = ("report_json",)
    REPORT_JSON_FIELD_NUMBER: _ClassVar[int]
    report_json: str
    def __init__(self, report_json: _Optional[str] = ...) -> None: ...

class TuneRequest(_message.Message):
    __slots__ = ("collection", "queries", "recall", "limit", "filter")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    RECALL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    collection: str
    queries: _common_pb2.Vectors
    recall: float
    limit: int
    filter: _common_pb2.Filter
    def __init__(self, collection: _Optional[str] = ..., queries: _Optional[_Union[_common_pb2.Vectors, _Mapping]] = ..., recall: _Optional[float] = ..., limit: _Optional[int] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ...) -> None: ...

class TuneResponse(_message.Message):
    __slots__ = ("curve_json",)
    CURVE_JSON_FIELD_NUMBER: _ClassVar[int]
    curve_json: str
    def __init__(self, curve_json: _Optional[str] = ...) -> None: ...
