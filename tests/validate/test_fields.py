"""Fields: dicts and tables come back as they went in, within the bounds of a record, and the rest is refused by name.

The oracle is the caller's own objects.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import sys
import uuid
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.gate_values import INT64, TEXT, name_of
from vecdb import limits, validate
from vecdb.errors import Corruption, InvalidArgument, LimitExceeded

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | INT64
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.binary(max_size=20)
    | st.dates()
    | st.datetimes().map(lambda one: one.replace(fold=0))
    | st.datetimes(timezones=st.just(dt.UTC)).map(lambda one: one.replace(fold=0)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=5)


@given(RECORDS)
@settings(max_examples=200)
def test_fields_come_back_as_they_went_in(records: list[dict[str, Any]]) -> None:
    encoded = validate.fields(records, len(records))
    assert encoded is not None and [validate.decode_fields(one) for one in encoded] == records
    for one, record in zip(encoded, records, strict=True):
        back = validate.decode_fields(one)
        assert repr(back) == repr(record)  # types too: 1 is not True, a date is not a datetime
        assert validate.decode_fields(one, list(record)[:1]) == dict(list(record.items())[:1])


def test_no_fields_at_all_is_none_and_empty_fields_are_not() -> None:
    assert validate.fields(None, 3) is None
    encoded = validate.fields([{}, None], 2)
    assert encoded == [b"\x80", b"\x80"]
    assert validate.decode_fields(b"") == validate.decode_fields(b"\x80") == {}
    assert validate.decode_fields(b"\x81\xa1a\x01", ["missing"]) == {}


def test_numpy_values_and_tuples_are_stored_as_pythons() -> None:
    record = {
        "i": np.int32(3),
        "u": np.uint64(2**63 - 1),
        "f": np.float32(0.5),
        "b": np.True_,
        "s": np.str_("x"),
        "y": np.bytes_(b"y"),
        "t": (1, (2, 3)),
        "a": np.arange(3),
        "d": np.datetime64("2020-01-02"),
        "ns": np.datetime64("2020-01-02T03:04:05.000006789"),
        "nat": np.datetime64("NaT"),
        "ts": pd.Timestamp("2020-01-02 03:04:05"),
        "pnat": pd.NaT,
    }
    (one,) = validate.fields([record], 1) or []
    assert validate.decode_fields(one) == {
        "i": 3,
        "u": 2**63 - 1,
        "f": 0.5,
        "b": True,
        "s": "x",
        "y": b"y",
        "t": [1, [2, 3]],
        "a": [0, 1, 2],
        "d": dt.datetime(2020, 1, 2),
        "ns": dt.datetime(2020, 1, 2, 3, 4, 5, 6),
        "nat": None,
        "ts": dt.datetime(2020, 1, 2, 3, 4, 5),
        "pnat": None,
    }


def test_floats_of_every_kind_are_kept() -> None:
    (one,) = validate.fields([{"x": [np.nan, np.inf, -0.0]}], 1) or []
    nan, inf, zero = validate.decode_fields(one)["x"]
    assert nan != nan and inf == np.inf and str(zero) == "-0.0"


def test_an_aware_datetime_comes_back_as_the_same_instant_in_utc() -> None:
    there = dt.datetime(2020, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=-7)))
    (one,) = validate.fields([{"t": there}], 1) or []
    back = validate.decode_fields(one)["t"]
    assert back == there and back.utcoffset() == dt.timedelta(0)


def test_fields_that_come_encoded_are_held_to_the_same_bounds() -> None:
    pack = msgspec.msgpack.encode
    plain = [pack({"a": 1, "b": "x", "c": None, "d": 1.5, "e": True}), pack({}), pack({"a": -(2**63)})]
    assert validate.fields(validate.EncodedFields(plain), 3) == plain
    assert validate.fields(validate.EncodedFields([b""]), 1) == [pack({})]
    nested = {"l": [1, {"k": b"x"}], "m": {"n": [None]}}
    [one] = validate.fields(validate.EncodedFields([pack(nested)]), 1) or []
    assert validate.decode_fields(one) == nested
    deep: Any = 1
    for _ in range(limits.fields_depth_max + 1):
        deep = [deep]
    for raw, message in (
        (pack({"a": 2**63}), "64 bits"), (pack({"a": deep}), "deep"), (b"\x81\x01\x02", "MessagePack map"),
        (pack([1]), "MessagePack map"), (plain[0] + b"\x00", "MessagePack map"), (plain[0][:-1], "MessagePack map"),
        (b"\x81\xa1a\xa1\xff", "MessagePack map"), (b"\xc1", "MessagePack map"), (b"\x91" * 100_000, "MessagePack map"),
        (pack({"a": "x" * limits.fields_bytes_max}), "the most of one record"),
        (b"\x81\xa1a\xc7\x03\x07abc", "MessagePack map"),
    ):  # fmt: skip
        with pytest.raises((InvalidArgument, LimitExceeded), match=message) as caught:
            validate.fields(validate.EncodedFields([*plain, raw]), 4)
        assert str(caught.value).startswith("fields[3]")


@pytest.mark.parametrize("n", [0, 1, 3, 200])
def test_every_table_gives_the_same_records(n: int) -> None:
    records = [{"k": i, "s": f"row {i}", "x": None if i % 3 == 0 else i / 2, "l": [i, i + 1]} for i in range(n)]
    columns = {name: [record[name] for record in records] for name in ("k", "s", "x", "l")}
    frame = pd.DataFrame(columns)
    schema = {"k": pl.Int64, "s": pl.String, "x": pl.Float64, "l": pl.List(pl.Int64)}
    tables: list[Any] = [
        columns,
        {**columns, "k": np.array(columns["k"], np.int32), "s": pa.array(columns["s"], pa.string())},
        {**columns, "x": pl.Series(columns["x"], dtype=pl.Float64), "s": pd.Series(columns["s"], dtype=object)},
        frame,
        frame.set_index(pd.Index(range(n, 0, -1))),  # positions count, not labels
        pl.DataFrame(columns, schema=schema),
        pl.DataFrame(columns, schema=schema).to_arrow(),
    ]
    for table in tables:
        encoded = validate.fields(table, n)
        assert encoded is not None and [validate.decode_fields(one) for one in encoded] == records, type(table)


def test_a_dict_is_one_record_only_when_the_id_is_alone() -> None:
    encoded = validate.fields({"lang": "en", "n": [1, 2]}, 1, single=True)
    assert encoded is not None and validate.decode_fields(encoded[0]) == {"lang": "en", "n": [1, 2]}
    with pytest.raises(InvalidArgument, match=r"column 'lang' is 'en'.*list of dicts"):
        validate.fields({"lang": "en"}, 2)


@pytest.mark.parametrize(
    "value, n, message",
    [
        ([{}], 2, "1 records for 2 ids"),
        ({"a": [1, 2]}, 3, "2 records for 3 ids"),
        ({"a": [1, 2], "b": [1]}, 2, "differ in length"),
        ({"a": 5}, 1, "column 'a' is 5"),
        (pd.DataFrame({"a": [1]}), 2, "1 records"),
        (pd.DataFrame([[1]]), 1, "must be strings"),
        ("text", 1, "list of dicts"),
        (3, 1, "list of dicts"),
        (["a"], 1, r"fields\[0\] is 'a', not a dict"),
        ([{}, [1]], 2, r"fields\[1\] is a list, not a dict"),
        ([{1: 2}], 1, "must be strings"),
        ([{"a": {1: 2}}], 1, r"fields\[0\], field 'a': .*must be strings"),
        ([{}, {"a": 2**63}], 2, r"fields\[1\], field 'a': ints must fit"),
        ([{"a": [1, -(2**63) - 1]}], 1, "ints must fit"),
        ([{"a": np.uint64(2**64 - 1)}], 1, "ints must fit"),
        ([{"a": {1, 2}}], 1, "set cannot be stored"),
        ([{"a": object()}], 1, "object cannot be stored"),
        ([{"a": 1j}], 1, "complex cannot be stored"),
        ([{"a": dt.timedelta(1)}], 1, "timedelta cannot be stored"),
        ([{"a": np.timedelta64(1, "s")}], 1, "timedelta cannot be stored"),
        ([{"a": "\ud800"}], 1, "surrogate"),
        ([{"\ud800": 1}], 1, "surrogate"),
        ([{"a": ["\udfff"]}], 1, "surrogate"),
    ],
    ids=lambda value: ascii(name_of(value))[:40],
)
def test_fields_that_cannot_be_stored_are_refused(value: Any, n: int, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        validate.fields(value, n)


def nested(depth: int) -> Any:
    value: Any = 1
    for i in range(depth):
        value = [value] if i % 2 else {"k": value}
    return value


def test_depth_is_bounded() -> None:
    encoded = validate.fields([{"a": nested(limits.fields_depth_max - 1)}], 1)
    assert encoded is not None and validate.decode_fields(encoded[0]) == {"a": nested(limits.fields_depth_max - 1)}
    for depth in (limits.fields_depth_max, sys.getrecursionlimit() * 3):
        with pytest.raises(LimitExceeded, match="deep"):
            validate.fields([{"a": nested(depth)}], 1)
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(LimitExceeded, match="deep"):
        validate.fields([{"a": ring}], 1)


def test_size_of_a_record_is_bounded_by_its_encoded_bytes() -> None:
    overhead = len((validate.fields([{"a": "x" * 70_000}], 1) or [b""])[0]) - 70_000
    fits = limits.fields_bytes_max - overhead
    encoded = validate.fields([{"a": "x" * fits}], 1)
    assert encoded is not None and len(encoded[0]) == limits.fields_bytes_max
    shared = "x" * 2**19
    for bad in (
        "x" * (fits + 1),
        "é" * (fits // 2 + 1),
        b"x" * (fits + 1),
        [shared] * 3,
        [[shared] * 1_000] * 1_000,  # a terabyte if it were ever encoded
        np.zeros(limits.fields_bytes_max + 1, np.int8),
        {"k" * 2**19 + str(i): 1 for i in range(3)},
        [{shared: 1}] * 100_000,
    ):
        with pytest.raises(LimitExceeded, match="bytes"):
            validate.fields([{"a": bad}], 1)


def test_size_of_a_call_is_bounded() -> None:
    record = {"a": "x" * (limits.fields_bytes_max - 100)}
    n = limits.batch_bytes_max // limits.fields_bytes_max + 65
    with pytest.raises(LimitExceeded, match="atomic"):
        validate.fields([record] * n, n)


@pytest.mark.parametrize(
    "data",
    [b"\xc1", b"\x81", b"\x01", b"\x80\x80", b"\x81\x01\x01", b"\x81\xa1a\xc7\x03\x01abc", b"\x81\xa1a\xd4\x63\x00"],
)
def test_damaged_fields_raise_corruption(data: bytes) -> None:
    with pytest.raises(Corruption):
        validate.decode_fields(data)


@given(st.binary(max_size=40))
def test_random_bytes_decode_or_raise_corruption(data: bytes) -> None:
    with contextlib.suppress(Corruption):
        assert isinstance(validate.decode_fields(data), dict)


@pytest.mark.parametrize("unit", ["D", "h", "s", "ms", "us", "ns"])
def test_times_of_numpy_are_times_in_every_unit(unit: str) -> None:
    when = np.array(["2024-01-02T12", "NaT"], "datetime64[h]").astype(f"datetime64[{unit}]")
    expected = dt.date(2024, 1, 2) if unit == "D" else dt.datetime(2024, 1, 2, 12)
    encoded = validate.fields({"x": when}, 2)
    assert encoded is not None and [validate.decode_fields(one) for one in encoded] == [{"x": expected}, {"x": None}]
    [nested] = validate.fields([{"x": when}], 1) or [b""]
    assert validate.decode_fields(nested) == {"x": [expected, None]}


@pytest.mark.parametrize(
    "value",
    [np.datetime64("20000-01-01"), np.array([5], "timedelta64[ns]"), np.timedelta64(5, "ns"), np.timedelta64(5)],
)
def test_times_that_python_lacks_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"out of range|timedelta cannot be stored"):
        validate.fields([{"x": value}], 1)
    if getattr(value, "ndim", 0):
        with pytest.raises(InvalidArgument, match="timedelta cannot be stored"):
            validate.fields({"x": value}, 1)


def test_two_columns_of_one_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    for frame in (table, pd.DataFrame([[1, 2]], columns=["a", "a"])):
        with pytest.raises(InvalidArgument, match="two columns named 'a'"):
            validate.fields(frame, 1)


def test_what_has_an_exact_text_is_stored_as_its_text() -> None:
    name, price, at = uuid.UUID(int=10**30), decimal.Decimal("1.50"), dt.time(1, 2, 3)
    expected = {"x": [str(name), "1.50", "01:02:03"]}
    for value in ([{"x": [name, price, at]}], [{"x": (name, price, at)}], {"x": [[name, price, at]]}):
        [one] = validate.fields(value, 1) or [b""]
        assert validate.decode_fields(one) == expected
    table = pa.table({"price": pa.array([price]), "at": pa.array([at])})
    for rows in (table, table.to_pandas(), {"price": [price], "at": np.array([at], object)}):
        [one] = validate.fields(rows, 1) or [b""]
        assert validate.decode_fields(one) == {"price": "1.50", "at": "01:02:03"}


def test_what_pandas_has_for_missing_is_none() -> None:
    for value in (pd.NA, pd.NaT, [pd.NA]):
        [one] = validate.fields([{"x": value}], 1) or [b""]
        assert validate.decode_fields(one) == {"x": [None] if isinstance(value, list) else None}


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-5))),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=5))),
        pd.Timestamp(np.datetime64("20000-01-01", "s")),
    ],
)
def test_a_time_that_is_out_of_range_in_utc_is_refused(value: Any) -> None:
    for columns in ([{"x": value}], {"x": [value]}, [{"y": [{"z": value}]}]):
        with pytest.raises(InvalidArgument, match=r"field '[xy]': .* is out of range"):
            validate.fields(columns, 1)


def test_a_column_without_a_length_is_refused() -> None:
    for column in (np.array(3), np.array("abc"), np.array(None), np.datetime64("2020-01-01")):
        with pytest.raises(InvalidArgument, match="fields column 'x' is"):
            validate.fields({"x": column}, 1)


def test_what_a_table_cannot_give_is_an_error_of_ours() -> None:
    class Odd:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, at: slice) -> Any:
            raise ZeroDivisionError("no such part")

    late = pa.array([10**14], pa.timestamp("s"))
    for columns in ({"x": Odd()}, {"x": late}, pa.table({"x": late})):
        with pytest.raises(InvalidArgument, match=r"fields\[0:1\] cannot be read"):
            validate.fields(columns, 1)
