from vecdb.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ("min_sequence",)
    MIN_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    min_sequence: int
    def __init__(self, min_sequence: _Optional[int] = ...) -> None: ...

class GetServerInfoResponse(_message.Message):
    __slots__ = ("version", "principal", "scope", "sequence", "tenant")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    version: str
    principal: str
    scope: str
    sequence: int
    tenant: str
    def __init__(self, version: _Optional[str] = ..., principal: _Optional[str] = ..., scope: _Optional[str] = ..., sequence: _Optional[int] = ..., tenant: _Optional[str] = ...) -> None: ...

class GetDatabaseStatsRequest(_message.Message):
    __slots__ = ("without_disk",)
    WITHOUT_DISK_FIELD_NUMBER: _ClassVar[int]
    without_disk: bool
    def __init__(self, without_disk: bool = ...) -> None: ...

class GetDatabaseStatsResponse(_message.Message):
    __slots__ = ("stats_json",)
    STATS_JSON_FIELD_NUMBER: _ClassVar[int]
    stats_json: str
    def __init__(self, stats_json: _Optional[str] = ...) -> None: ...

class CheckDatabaseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckDatabaseResponse(_message.Message):
    __slots__ = ("done", "problems")
    DONE_FIELD_NUMBER: _ClassVar[int]
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    done: bool
    problems: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, done: bool = ..., problems: _Optional[_Iterable[str]] = ...) -> None: ...

class BackupRequest(_message.Message):
    __slots__ = ("name", "keep")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    name: str
    keep: int
    def __init__(self, name: _Optional[str] = ..., keep: _Optional[int] = ...) -> None: ...

class BackupResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: _common_pb2.Progress
    def __init__(self, progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ...) -> None: ...

class VacuumRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VacuumResponse(_message.Message):
    __slots__ = ("progress",)
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    progress: _common_pb2.Progress
    def __init__(self, progress: _Optional[_Union[_common_pb2.Progress, _Mapping]] = ...) -> None: ...
