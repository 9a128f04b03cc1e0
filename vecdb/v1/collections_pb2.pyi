from vecdb.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Metric(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_UNSPECIFIED: _ClassVar[Metric]
    METRIC_L2: _ClassVar[Metric]
    METRIC_COSINE: _ClassVar[Metric]
    METRIC_IP: _ClassVar[Metric]
    METRIC_HAMMING: _ClassVar[Metric]
    METRIC_JACCARD: _ClassVar[Metric]

class ZeroVectors(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ZERO_VECTORS_UNSPECIFIED: _ClassVar[ZeroVectors]
    ZERO_VECTORS_REFUSE: _ClassVar[ZeroVectors]
    ZERO_VECTORS_FAR: _ClassVar[ZeroVectors]

class IdKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ID_KIND_UNSPECIFIED: _ClassVar[IdKind]
    ID_KIND_INT: _ClassVar[IdKind]
    ID_KIND_STRING: _ClassVar[IdKind]
METRIC_UNSPECIFIED: Metric
METRIC_L2: Metric
METRIC_COSINE: Metric
METRIC_IP: Metric
METRIC_HAMMING: Metric
METRIC_JACCARD: Metric
ZERO_VECTORS_UNSPECIFIED: ZeroVectors
ZERO_VECTORS_REFUSE: ZeroVectors
ZERO_VECTORS_FAR: ZeroVectors
ID_KIND_UNSPECIFIED: IdKind
ID_KIND_INT: IdKind
ID_KIND_STRING: IdKind

class FlatIndex(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class HnswIndex(_message.Message):
    __slots__ = ("m", "ef_construction", "ef", "rerank_all")
    M_FIELD_NUMBER: _ClassVar[int]
    EF_CONSTRUCTION_FIELD_NUMBER: _ClassVar[int]
    EF_FIELD_NUMBER: _ClassVar[int]
    RERANK_ALL_FIELD_NUMBER: _ClassVar[int]
    m: int
    ef_construction: int
    ef: int
    rerank_all: bool
    def __init__(self, m: _Optional[int] = ..., ef_construction: _Optional[int] = ..., ef: _Optional[int] = ..., rerank_all: bool = ...) -> None: ...

class SpannIndex(_message.Message):
    __slots__ = ("bits", "replicas", "head_ratio", "nprobe", "rerank", "memory_budget_bytes", "posting_bytes_max")
    BITS_FIELD_NUMBER: _ClassVar[int]
    REPLICAS_FIELD_NUMBER: _ClassVar[int]
    HEAD_RATIO_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    RERANK_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    POSTING_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    bits: int
    replicas: int
    head_ratio: float
    nprobe: int
    rerank: int
    memory_budget_bytes: int
    posting_bytes_max: int
    def __init__(self, bits: _Optional[int] = ..., replicas: _Optional[int] = ..., head_ratio: _Optional[float] = ..., nprobe: _Optional[int] = ..., rerank: _Optional[int] = ..., memory_budget_bytes: _Optional[int] = ..., posting_bytes_max: _Optional[int] = ...) -> None: ...

class CuratorIndex(_message.Message):
    __slots__ = ("leaf_rows", "shortlist_max", "scan_max", "nprobe")
    LEAF_ROWS_FIELD_NUMBER: _ClassVar[int]
    SHORTLIST_MAX_FIELD_NUMBER: _ClassVar[int]
    SCAN_MAX_FIELD_NUMBER: _ClassVar[int]
    NPROBE_FIELD_NUMBER: _ClassVar[int]
    leaf_rows: int
    shortlist_max: int
    scan_max: int
    nprobe: int
    def __init__(self, leaf_rows: _Optional[int] = ..., shortlist_max: _Optional[int] = ..., scan_max: _Optional[int] = ..., nprobe: _Optional[int] = ...) -> None: ...

class IndexConfig(_message.Message):
    __slots__ = ("flat", "hnsw", "spann", "curator")
    FLAT_FIELD_NUMBER: _ClassVar[int]
    HNSW_FIELD_NUMBER: _ClassVar[int]
    SPANN_FIELD_NUMBER: _ClassVar[int]
    CURATOR_FIELD_NUMBER: _ClassVar[int]
    flat: FlatIndex
    hnsw: HnswIndex
    spann: SpannIndex
    curator: CuratorIndex
    def __init__(self, flat: _Optional[_Union[FlatIndex, _Mapping]] = ..., hnsw: _Optional[_Union[HnswIndex, _Mapping]] = ..., spann: _Optional[_Union[SpannIndex, _Mapping]] = ..., curator: _Optional[_Union[CuratorIndex, _Mapping]] = ...) -> None: ...

class Collection(_message.Message):
    __slots__ = ("name", "dim", "metric", "dtype", "index", "id_kind", "metadata_json", "zero_vectors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    ID_KIND_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    ZERO_VECTORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    metric: Metric
    dtype: _common_pb2.DataType
    index: IndexConfig
    id_kind: IdKind
    metadata_json: str
    zero_vectors: ZeroVectors
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., dtype: _Optional[_Union[_common_pb2.DataType, str]] = ..., index: _Optional[_Union[IndexConfig, _Mapping]] = ..., id_kind: _Optional[_Union[IdKind, str]] = ..., metadata_json: _Optional[str] = ..., zero_vectors: _Optional[_Union[ZeroVectors, str]] = ...) -> None: ...

class CreateCollectionRequest(_message.Message):
    __slots__ = ("name", "dim", "metric", "dtype", "index", "exist_ok", "metadata_json", "zero_vectors")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    ZERO_VECTORS_FIELD_NUMBER: _ClassVar[int]
    name: str
    dim: int
    metric: Metric
    dtype: _common_pb2.DataType
    index: IndexConfig
    exist_ok: bool
    metadata_json: str
    zero_vectors: ZeroVectors
    def __init__(self, name: _Optional[str] = ..., dim: _Optional[int] = ..., metric: _Optional[_Union[Metric, str]] = ..., dtype: _Optional[_Union[_common_pb2.DataType, str]] = ..., index: _Optional[_Union[IndexConfig, _Mapping]] = ..., exist_ok: bool = ..., metadata_json: _Optional[str] = ..., zero_vectors: _Optional[_Union[ZeroVectors, str]] = ...) -> None: ...

class CreateCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class GetCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetCollectionResponse(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: Collection
    def __init__(self, collection: _Optional[_Union[Collection, _Mapping]] = ...) -> None: ...

class ListCollectionsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListCollectionsResponse(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class DropCollectionRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DropCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenameCollectionRequest(_message.Message):
    __slots__ = ("name", "new_name")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NEW_NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    new_name: str
    def __init__(self, name: _Optional[str] = ..., new_name: _Optional[str] = ...) -> None: ...

class RenameCollectionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetAliasRequest(_message.Message):
    __slots__ = ("alias", "collection")
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    alias: str
    collection: str
    def __init__(self, alias: _Optional[str] = ..., collection: _Optional[str] = ...) -> None: ...

class SetAliasResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DropAliasRequest(_message.Message):
    __slots__ = ("alias",)
    ALIAS_FIELD_NUMBER: _ClassVar[int]
    alias: str
    def __init__(self, alias: _Optional[str] = ...) -> None: ...

class DropAliasResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAliasesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAliasesResponse(_message.Message):
    __slots__ = ("collections",)
    class CollectionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    COLLECTIONS_FIELD_NUMBER: _ClassVar[int]
    collections: _containers.ScalarMap[str, str]
    def __init__(self, collections: _Optional[_Mapping[str, str]] = ...) -> None: ...

class GetCollectionStatsRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class GetCollectionStatsResponse(_message.Message):
    __slots__ = ("stats_json",)
    STATS_JSON_FIELD_NUMBER: _ClassVar[int]
    stats_json: str
    def __init__(self, stats_json: _Optional[str] = ...) -> None: ...

class CheckCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class CheckCollectionResponse(_message.Message):
    __slots__ = ("done", "problems")
    DONE_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    done: bool
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, done: bool = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class OptimizeCollectionRequest(_message.Message):
    __slots__ = ("collection", "threads")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    threads: int
    def __init__(self, collection: _Optional[str] = ..., threads: _Optional[int] = ...) -> None: ...

class OptimizeCollectionResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: _common_pb2.Progress
    def __init__(self, progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ...) -> None: ...

class ReindexCollectionRequest(_message.Message):
    __slots__ = ("collection", "index")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    collection: str
    index: IndexConfig
    def __init__(self, collection: _Optional[str] = ..., index: _Optional[_Union[IndexConfig, _Mapping]] = ...) -> None: ...

class ReindexCollectionResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: _common_pb2.Progress
    def __init__(self, progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ...) -> None: ...

class ClearCollectionRequest(_message.Message):
    __slots__ = ("collection", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    request_id: str
    def __init__(self, collection: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ClearCollectionResponse(_message.Message):
    __slots__ = ("count", "sequence")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    count: int
    sequence: int
    def __init__(self, count: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class SetMetadataRequest(_message.Message):
    __slots__ = ("collection", "metadata_json")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    collection: str
    metadata_json: str
    def __init__(self, collection: _Optional[str] = ..., metadata_json: _Optional[str] = ...) -> None: ...

class SetMetadataResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VacuumCollectionRequest(_message.Message):
    __slots__ = ("collection",)
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    def __init__(self, collection: _Optional[str] = ...) -> None: ...

class VacuumCollectionResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: _common_pb2.Progress
    def __init__(self, progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ...) -> None: ...
