from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DataType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DATA_TYPE_UNSPECIFIED: _ClassVar[DataType]
    DATA_TYPE_FLOAT32: _ClassVar[DataType]
    DATA_TYPE_FLOAT16: _ClassVar[DataType]
    DATA_TYPE_INT8: _ClassVar[DataType]
    DATA_TYPE_UINT8: _ClassVar[DataType]
    DATA_TYPE_BITS: _ClassVar[DataType]

class FilterOperator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILTER_OPERATOR_UNSPECIFIED: _ClassVar[FilterOperator]
    FILTER_OPERATOR_AND: _ClassVar[FilterOperator]
    FILTER_OPERATOR_OR: _ClassVar[FilterOperator]
    FILTER_OPERATOR_NOT: _ClassVar[FilterOperator]
    FILTER_OPERATOR_EQUAL: _ClassVar[FilterOperator]
    FILTER_OPERATOR_LESS: _ClassVar[FilterOperator]
    FILTER_OPERATOR_LESS_OR_EQUAL: _ClassVar[FilterOperator]
    FILTER_OPERATOR_GREATER: _ClassVar[FilterOperator]
    FILTER_OPERATOR_GREATER_OR_EQUAL: _ClassVar[FilterOperator]
    FILTER_OPERATOR_IN: _ClassVar[FilterOperator]
    FILTER_OPERATOR_IS_NULL: _ClassVar[FilterOperator]
    FILTER_OPERATOR_PREFIX: _ClassVar[FilterOperator]
    FILTER_OPERATOR_LIKE: _ClassVar[FilterOperator]
    FILTER_OPERATOR_CONTAINS_ANY: _ClassVar[FilterOperator]
    FILTER_OPERATOR_CONTAINS_ALL: _ClassVar[FilterOperator]
DATA_TYPE_UNSPECIFIED: DataType
DATA_TYPE_FLOAT32: DataType
DATA_TYPE_FLOAT16: DataType
DATA_TYPE_INT8: DataType
DATA_TYPE_UINT8: DataType
DATA_TYPE_BITS: DataType
FILTER_OPERATOR_UNSPECIFIED: FilterOperator
FILTER_OPERATOR_AND: FilterOperator
FILTER_OPERATOR_OR: FilterOperator
FILTER_OPERATOR_NOT: FilterOperator
FILTER_OPERATOR_EQUAL: FilterOperator
FILTER_OPERATOR_LESS: FilterOperator
FILTER_OPERATOR_LESS_OR_EQUAL: FilterOperator
FILTER_OPERATOR_GREATER: FilterOperator
FILTER_OPERATOR_GREATER_OR_EQUAL: FilterOperator
FILTER_OPERATOR_IN: FilterOperator
FILTER_OPERATOR_IS_NULL: FilterOperator
FILTER_OPERATOR_PREFIX: FilterOperator
FILTER_OPERATOR_LIKE: FilterOperator
FILTER_OPERATOR_CONTAINS_ANY: FilterOperator
FILTER_OPERATOR_CONTAINS_ALL: FilterOperator

class Vectors(_message.Message):
    __slots__ = ("data", "dtype", "dim")
    DATA_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    dtype: DataType
    dim: int
    def __init__(self, data: _Optional[bytes] = ..., dtype: _Optional[_Union[DataType, str]] = ..., dim: _Optional[int] = ...) -> None: ...

class Ids(_message.Message):
    __slots__ = ("ints", "strings")
    INTS_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    ints: IntIds
    strings: StringIds
    def __init__(self, ints: _Optional[_Union[IntIds, _Mapping]] = ..., strings: _Optional[_Union[StringIds, _Mapping]] = ...) -> None: ...

class IntIds(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class StringIds(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class FieldMaps(_message.Message):
    __slots__ = ("msgpack", "json")
    MSGPACK_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    msgpack: _containers.RepeatedScalarFieldContainer[bytes]
    json: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, msgpack: _Optional[_Iterable[bytes]] = ..., json: _Optional[_Iterable[str]] = ...) -> None: ...

class TenantNames(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class TenantLists(_message.Message):
    __slots__ = ("lists",)
    LISTS_FIELD_NUMBER: _ClassVar[int]
    lists: _containers.RepeatedCompositeFieldContainer[TenantNames]
    def __init__(self, lists: _Optional[_Iterable[_Union[TenantNames, _Mapping]]] = ...) -> None: ...

class TenantColumns(_message.Message):
    __slots__ = ("names", "counts", "which")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    WHICH_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    counts: _containers.RepeatedScalarFieldContainer[int]
    which: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, names: _Optional[_Iterable[str]] = ..., counts: _Optional[_Iterable[int]] = ..., which: _Optional[_Iterable[int]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("int_id", "string_id", "fields", "tenants", "vector", "owner")
    INT_ID_FIELD_NUMBER: _ClassVar[int]
    STRING_ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    TENANTS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    int_id: int
    string_id: str
    fields: bytes
    tenants: _containers.RepeatedScalarFieldContainer[str]
    vector: bytes
    owner: str
    def __init__(self, int_id: _Optional[int] = ..., string_id: _Optional[str] = ..., fields: _Optional[bytes] = ..., tenants: _Optional[_Iterable[str]] = ..., vector: _Optional[bytes] = ..., owner: _Optional[str] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("expression", "operator", "field", "terms", "value", "values")
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    TERMS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    expression: str
    operator: FilterOperator
    field: str
    terms: _containers.RepeatedCompositeFieldContainer[Filter]
    value: FieldValue
    values: FieldValues
    def __init__(self, expression: _Optional[str] = ..., operator: _Optional[_Union[FilterOperator, str]] = ..., field: _Optional[str] = ..., terms: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., value: _Optional[_Union[FieldValue, _Mapping]] = ..., values: _Optional[_Union[FieldValues, _Mapping]] = ...) -> None: ...

class FieldValue(_message.Message):
    __slots__ = ("bool_value", "int_value", "large_int_value", "double_value", "string_value", "bytes_value", "date_value", "instant_value", "local_time_value")
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    LARGE_INT_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_VALUE_FIELD_NUMBER: _ClassVar[int]
    DATE_VALUE_FIELD_NUMBER: _ClassVar[int]
    INSTANT_VALUE_FIELD_NUMBER: _ClassVar[int]
    LOCAL_TIME_VALUE_FIELD_NUMBER: _ClassVar[int]
    bool_value: bool
    int_value: int
    large_int_value: str
    double_value: float
    string_value: str
    bytes_value: bytes
    date_value: int
    instant_value: int
    local_time_value: int
    def __init__(self, bool_value: bool = ..., int_value: _Optional[int] = ..., large_int_value: _Optional[str] = ..., double_value: _Optional[float] = ..., string_value: _Optional[str] = ..., bytes_value: _Optional[bytes] = ..., date_value: _Optional[int] = ..., instant_value: _Optional[int] = ..., local_time_value: _Optional[int] = ...) -> None: ...

class FieldValues(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[ValueRun]
    def __init__(self, runs: _Optional[_Iterable[_Union[ValueRun, _Mapping]]] = ...) -> None: ...

class ValueRun(_message.Message):
    __slots__ = ("bools", "ints", "large_ints", "doubles", "strings", "byte_strings", "dates", "instants", "local_times")
    BOOLS_FIELD_NUMBER: _ClassVar[int]
    INTS_FIELD_NUMBER: _ClassVar[int]
    LARGE_INTS_FIELD_NUMBER: _ClassVar[int]
    DOUBLES_FIELD_NUMBER: _ClassVar[int]
    STRINGS_FIELD_NUMBER: _ClassVar[int]
    BYTE_STRINGS_FIELD_NUMBER: _ClassVar[int]
    DATES_FIELD_NUMBER: _ClassVar[int]
    INSTANTS_FIELD_NUMBER: _ClassVar[int]
    LOCAL_TIMES_FIELD_NUMBER: _ClassVar[int]
    bools: BoolValues
    ints: IntValues
    large_ints: TextValues
    doubles: DoubleValues
    strings: TextValues
    byte_strings: ByteValues
    dates: IntValues
    instants: IntValues
    local_times: IntValues
    def __init__(self, bools: _Optional[_Union[BoolValues, _Mapping]] = ..., ints: _Optional[_Union[IntValues, _Mapping]] = ..., large_ints: _Optional[_Union[TextValues, _Mapping]] = ..., doubles: _Optional[_Union[DoubleValues, _Mapping]] = ..., strings: _Optional[_Union[TextValues, _Mapping]] = ..., byte_strings: _Optional[_Union[ByteValues, _Mapping]] = ..., dates: _Optional[_Union[IntValues, _Mapping]] = ..., instants: _Optional[_Union[IntValues, _Mapping]] = ..., local_times: _Optional[_Union[IntValues, _Mapping]] = ...) -> None: ...

class BoolValues(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[bool]
    def __init__(self, values: _Optional[_Iterable[bool]] = ...) -> None: ...

class IntValues(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, values: _Optional[_Iterable[int]] = ...) -> None: ...

class DoubleValues(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class TextValues(_message.Message):
    __slots__ = ("text", "lengths")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    text: str
    lengths: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, text: _Optional[str] = ..., lengths: _Optional[_Iterable[int]] = ...) -> None: ...

class ByteValues(_message.Message):
    __slots__ = ("data", "lengths")
    DATA_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    lengths: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, data: _Optional[bytes] = ..., lengths: _Optional[_Iterable[int]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("done", "total")
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    done: int
    total: int
    def __init__(self, done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...
