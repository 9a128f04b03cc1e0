from vecdb.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GrantRequest(_message.Message):
    __slots__ = ("collection", "ids", "tenants", "tenants_each", "tenant_columns", "owner", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_EACH_FIELD_NUMBER: _ClassVar[int]
    TENANT_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    tenants: _common_pb2.TenantNames
    tenants_each: _common_pb2.TenantLists
    tenant_columns: _common_pb2.TenantColumns
    owner: str
    request_id: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., tenants: _Optional[_Union[_common_pb2.TenantNames, _Mapping]] = ..., tenants_each: _Optional[_Union[_common_pb2.TenantLists, _Mapping]] = ..., tenant_columns: _Optional[_Union[_common_pb2.TenantColumns, _Mapping]] = ..., owner: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class GrantResponse(_message.Message):
    __slots__ = ("count", "sequence")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    count: int
    sequence: int
    def __init__(self, count: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ("collection", "ids", "tenants", "tenants_each", "tenant_columns", "owner", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_EACH_FIELD_NUMBER: _ClassVar[int]
    TENANT_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    ids: _common_pb2.Ids
    tenants: _common_pb2.TenantNames
    tenants_each: _common_pb2.TenantLists
    tenant_columns: _common_pb2.TenantColumns
    owner: str
    request_id: str
    def __init__(self, collection: _Optional[str] = ..., ids: _Optional[_Union[_common_pb2.Ids, _Mapping]] = ..., tenants: _Optional[_Union[_common_pb2.TenantNames, _Mapping]] = ..., tenants_each: _Optional[_Union[_common_pb2.TenantLists, _Mapping]] = ..., tenant_columns: _Optional[_Union[_common_pb2.TenantColumns, _Mapping]] = ..., owner: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ("count", "sequence")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    count: int
    sequence: int
    def __init__(self, count: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class CreateTenantsRequest(_message.Message):
    __slots__ = ("collection", "names", "exist_ok", "records_max", "request_id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    EXIST_OK_FIELD_NUMBER: _ClassVar[int]
    RECORDS_MAX_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    names: _containers.RepeatedScalarFieldContainer[str]
    exist_ok: bool
    records_max: int
    request_id: str
    def __init__(self, collection: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ..., exist_ok: bool = ..., records_max: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class CreateTenantsResponse(_message.Message):
    __slots__ = ("count", "sequence")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    count: int
    sequence: int
    def __init__(self, count: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class DropTenantRequest(_message.Message):
    __slots__ = ("collection", "name", "request_id", "records")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    name: str
    request_id: str
    records: bool
    def __init__(self, collection: _Optional[str] = ..., name: _Optional[str] = ..., request_id: _Optional[str] = ..., records: bool = ...) -> None: ...

class DropTenantResponse(_message.Message):
    __slots__ = ("deleted", "sequence")
    DELETED_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    sequence: int
    def __init__(self, deleted: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class ListTenantsRequest(_message.Message):
    __slots__ = ("collection", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTenantsResponse(_message.Message):
    __slots__ = ("names", "next_page_token")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    next_page_token: str
    def __init__(self, names: _Optional[_Iterable[str]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetTenantStatsRequest(_message.Message):
    __slots__ = ("collection", "tenant")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    collection: str
    tenant: str
    def __init__(self, collection: _Optional[str] = ..., tenant: _Optional[str] = ...) -> None: ...

class GetTenantStatsResponse(_message.Message):
    __slots__ = ("stats_json",)
    STATS_JSON_FIELD_NUMBER: _ClassVar[int]
    stats_json: str
    def __init__(self, stats_json: _Optional[str] = ...) -> None: ...
