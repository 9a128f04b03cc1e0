from vecdb.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WriteMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WRITE_MODE_UNSPECIFIED: _ClassVar[WriteMode]
    WRITE_MODE_UPSERT: _ClassVar[WriteMode]
    WRITE_MODE_INSERT: _ClassVar[WriteMode]
    WRITE_MODE_SKIP: _ClassVar[WriteMode]
    WRITE_MODE_ADD: _ClassVar[WriteMode]
WRITE_MODE_UNSPECIFIED: WriteMode
WRITE_MODE_UPSERT: WriteMode
WRITE_MODE_INSERT: WriteMode
WRITE_MODE_SKIP: WriteMode
WRITE_MODE_ADD: WriteMode

class WriteRequest(_message.Message):
    __slots__ = ("collection", "mode", "ids", "vectors", "fields", "tenants", "tenants_each", "tenant_columns", "owner", "request_id", "keep_tenants", "without_vectors")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_EACH_FIELD_NUMBER: _ClassVar[int]
    TENANT_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    KEEP_TENANTS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_VECTORS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    mode: WriteMode
    ids: _common_pb2.Ids
    vectors: _common_pb2.Vectors
    fields: _common_pb2.FieldMaps
    tenants: _common_pb2.TenantNames
    tenants_each: _common_pb2.TenantLists
    tenant_columns: _common_pb2.TenantColumns
    owner: str
    request_id: str
    keep_tenants: bool
    without_vectors: bytes
    def __init__(self, collection: _Optional[str] = ..., mode: _Optional[_Union[WriteMode, str]] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., vectors: _Optional[_Union[_common_pb2.Vectors, _Mapping]] = ..., fields: _Optional[_Union[_common_pb2.FieldMaps, _Mapping]] = ..., tenants: _Optional[_Union[_common_pb2.TenantNames, _Mapping]] = ..., tenants_each: _Optional[_Union[_common_pb2.TenantLists, _Mapping]] = ..., tenant_columns: _Optional[_Union[_common_pb2.TenantColumns, _Mapping]] = ..., owner: _Optional[str] = ..., request_id: _Optional[str] = ..., keep_tenants: bool = ..., without_vectors: _Optional[bytes] = ...) -> None: ...

class WriteResponse(_message.Message):
    __slots__ = ("count", "ids", "sequence")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    count: int
    ids: _common_pb2.Ids
    sequence: int
    def __init__(self, count: _Optional[int] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class IngestRequest(_message.Message):
    __slots__ = ("batch", "write")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    batch: int
    write: WriteRequest
    def __init__(self, batch: _Optional[int] = ..., write: _Optional[_Union[WriteRequest, _Mapping]] = ...) -> None: ...

class IngestResponse(_message.Message):
    __slots__ = ("batch", "count", "sequence")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    batch: int
    count: int
    sequence: int
    def __init__(self, batch: _Optional[int] = ..., count: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("collection", "ids", "vectors", "fields", "owner", "request_id", "filter", "only_owner", "tenants")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ONLY_OWNER_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    vectors: _common_pb2.Vectors
    fields: _common_pb2.FieldMaps
    owner: str
    request_id: str
    filter: _common_pb2.Filter
    only_owner: str
    tenants: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., vectors: _Optional[_Union[_common_pb2.Vectors, _Mapping]] = ..., fields: _Optional[_Union[_common_pb2.FieldMaps, _Mapping]] = ..., owner: _Optional[str] = ..., request_id: _Optional[str] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., only_owner: _Optional[str] = ..., tenants: _Optional[_Iterable[str]] = ...) -> None: ...

class UpdateResponse(_message.Message):
    __slots__ = ("count", "sequence")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    count: int
    sequence: int
    def __init__(self, count: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("collection", "ids", "owner", "request_id", "filter", "only_owner", "tenants")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ONLY_OWNER_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    owner: str
    request_id: str
    filter: _common_pb2.Filter
    only_owner: str
    tenants: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., owner: _Optional[str] = ..., request_id: _Optional[str] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., only_owner: _Optional[str] = ..., tenants: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("count", "sequence")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    count: int
    sequence: int
    def __init__(self, count: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("collection", "ids", "include_vectors", "owner", "tenants", "filter", "limit", "only_owner")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ONLY_OWNER_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    include_vectors: bool
    owner: str
    tenants: _containers.RepeatedScalarFieldContainer[str]
    filter: _common_pb2.Filter
    limit: int
    only_owner: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., include_vectors: bool = ..., owner: _Optional[str] = ..., tenants: _Optional[_Iterable[str]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., only_owner: _Optional[str] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[FoundRecord]
    def __init__(self, records: _Optional[_Iterable[_Union[FoundRecord, _Mapping]]] = ...) -> None: ...

class FoundRecord(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: _common_pb2.Record
    def __init__(self, record: _Optional[_Union[_common_pb2.Record, _Mapping]] = ...) -> None: ...

class CountRequest(_message.Message):
    __slots__ = ("collection", "tenants", "filter")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    collection: str
    tenants: _containers.RepeatedScalarFieldContainer[str]
    filter: _common_pb2.Filter
    def __init__(self, collection: _Optional[str] = ..., tenants: _Optional[_Iterable[str]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ...) -> None: ...

class CountResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("collection", "batch", "include_vectors", "tenants", "filter", "after", "limit", "order_by", "descending", "only_owner")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_VECTORS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    DESCENDING_FIELD_NUMBER: _ClassVar[int]
    ONLY_OWNER_FIELD_NUMBER: _ClassVar[int]
    collection: str
    batch: int
    include_vectors: bool
    tenants: _containers.RepeatedScalarFieldContainer[str]
    filter: _common_pb2.Filter
    after: str
    limit: int
    order_by: str
    descending: bool
    only_owner: str
    def __init__(self, collection: _Optional[str] = ..., batch: _Optional[int] = ..., include_vectors: bool = ..., tenants: _Optional[_Iterable[str]] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ..., order_by: _Optional[str] = ..., descending: bool = ..., only_owner: _Optional[str] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("records", "cursor")
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[_common_pb2.Record]
    cursor: str
    def __init__(self, records: _Optional[_Iterable[_Union[_common_pb2.Record, _Mapping]]] = ..., cursor: _Optional[str] = ...) -> None: ...

class FacetsRequest(_message.Message):
    __slots__ = ("collection", "field", "filter", "limit", "tenants")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    field: str
    filter: _common_pb2.Filter
    limit: int
    tenants: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., field: _Optional[str] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., limit: _Optional[int] = ..., tenants: _Optional[_Iterable[str]] = ...) -> None: ...

class FacetsResponse(_message.Message):
    __slots__ = ("values", "counts")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    values: _common_pb2.FieldValues
    counts: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Union[_common_pb2.FieldValues, _Mapping]] = ..., counts: _Optional[_Iterable[int]] = ...) -> None: ...

class DistinctRequest(_message.Message):
    __slots__ = ("collection", "field", "filter", "tenants")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    field: str
    filter: _common_pb2.Filter
    tenants: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., field: _Optional[str] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., tenants: _Optional[_Iterable[str]] = ...) -> None: ...

class DistinctResponse(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _common_pb2.FieldValues
    def __init__(self, values: _Optional[_Union[_common_pb2.FieldValues, _Mapping]] = ...) -> None: ...

class MinMaxRequest(_message.Message):
    __slots__ = ("collection", "field", "filter", "tenants", "largest")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_FIELD_NUMBER: _ClassVar[int]
    collection: str
    field: str
    filter: _common_pb2.Filter
    tenants: _containers.RepeatedScalarFieldContainer[str]
    largest: bool
    def __init__(self, collection: _Optional[str] = ..., field: _Optional[str] = ..., filter: _Optional[_Union[_common_pb2.Filter, _Mapping]] = ..., tenants: _Optional[_Iterable[str]] = ..., largest: bool = ...) -> None: ...

class MinMaxResponse(_message.Message):
    __slots__ = ("value",)
    VALUE_FIELD_NUMBER: _ClassVar[int]
    value: _common_pb2.FieldValue
    def __init__(self, value: _Optional[_Union[_common_pb2.FieldValue, _Mapping]] = ...) -> None: ...

class FieldsRequest(_message.Message):
    __slots__ = ("collection", "tenants")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    tenants: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, collection: _Optional[str] = ..., tenants: _Optional[_Iterable[str]] = ...) -> None: ...

class FieldsResponse(_message.Message):
    __slots__ = ("fields",)
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.RepeatedCompositeFieldContainer[FieldFacts]
    def __init__(self, fields: _Optional[_Iterable[_Union[FieldFacts, _Mapping]]] = ...) -> None: ...

class FieldFacts(_message.Message):
    __slots__ = ("name", "types", "count")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    name: str
    types: _containers.RepeatedScalarFieldContainer[str]
    count: int
    def __init__(self, name: _Optional[str] = ..., types: _Optional[_Iterable[str]] = ..., count: _Optional[int] = ...) -> None: ...
