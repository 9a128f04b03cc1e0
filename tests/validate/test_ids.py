"""Ids: every reasonable shape of a batch of ids gives the same keys, and the rest is refused by name.

The oracles are naive Python: struct for keys, dicts for duplicates.
"""

from __future__ import annotations

import itertools
import struct
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.gate_values import INT64, TEXT, name_of
from vecdb import limits, validate
from vecdb.errors import InvalidArgument, LimitExceeded


def expect_ints(batch: validate.IdBatch, values: list[int]) -> None:
    assert batch.kind == "int" and batch.n == len(values) and batch.ints is not None
    assert batch.ints.dtype == np.int64 and batch.ints.tolist() == values
    assert batch.keys == [struct.pack(">Q", value + 2**63) for value in values]
    assert all(type(key) is bytes for key in batch.keys)
    assert batch.blob == b"".join(struct.pack("<q", value) for value in values)
    assert batch.ends.dtype == np.uint32 and batch.ends.tolist() == [8 * (i + 1) for i in range(len(values))]
    expect_unique(batch, values)


def expect_strings(batch: validate.IdBatch, values: list[str]) -> None:
    assert batch.kind == "str" and batch.n == len(values) and batch.ints is None
    assert batch.keys == [value.encode() for value in values]
    starts = [0, *batch.ends.tolist()]
    assert batch.ends.dtype == np.uint32
    assert [batch.blob[a:b].decode() for a, b in itertools.pairwise(starts)] == values
    assert len(batch.blob) == starts[-1]
    expect_unique(batch, values)


def expect_unique(batch: validate.IdBatch, values: list[Any]) -> None:
    last = {value: i for i, value in enumerate(values)}
    if len(last) == len(values):
        assert batch.unique is None and batch.last_only() is batch
    else:
        assert batch.unique is not None and batch.unique.tolist() == sorted(last.values())
        assert batch.last_only().keys == [batch.keys[i] for i in sorted(last.values())]
        assert batch.last_only().unique is None


@given(st.lists(INT64 | st.integers(0, 5), max_size=40))
def test_int_ids_match_struct_and_sort_as_numbers(values: list[int]) -> None:
    for given_as in (
        values,
        tuple(values),
        np.array(values, np.int64),
        np.array(values, ">i8"),
        pd.Series(values, dtype="int64"),
    ):
        batch = validate.ids(given_as, None)
        expect_ints(batch, values)
        assert not batch.scalar
        assert sorted(batch.keys) == [struct.pack(">Q", value + 2**63) for value in sorted(values)]


@given(st.lists(TEXT | st.sampled_from(["a", "b", "\0", "a\0"]), min_size=1, max_size=40))
def test_string_ids_match_utf8(values: list[str]) -> None:
    for given_as in (values, tuple(values), np.array(values, object), pl.Series(values), pa.array(values)):
        expect_strings(validate.ids(given_as, None), values)


def test_ids_over_many_slices_match() -> None:
    rng = np.random.default_rng(3)
    ints = rng.integers(-4_000, 4_000, 10_000)
    expect_ints(validate.ids(ints), ints.tolist())
    expect_ints(validate.ids(ints.tolist()), ints.tolist())
    strings = [f"id {i}" for i in ints.tolist()]
    expect_strings(validate.ids(strings), strings)
    expect_strings(validate.ids(np.array(strings)), strings)
    expect_ints(validate.ids(range(5_000, 0, -2)), list(range(5_000, 0, -2)))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">u4"])
def test_every_integer_dtype_is_accepted_to_its_ends(dtype: str) -> None:
    info = np.iinfo(dtype)
    values = [int(info.min), 0, min(int(info.max), 2**63 - 1)]
    expect_ints(validate.ids(np.array(values, dtype)), values)
    expect_ints(validate.ids([np.dtype(dtype).type(value) for value in values]), values)


@given(INT64)
def test_a_bare_int_is_a_batch_of_one(value: int) -> None:
    batch = validate.ids(value)
    expect_ints(batch, [value])
    assert batch.scalar and validate.ids(np.int64(value)).scalar and not validate.ids([value]).scalar


@given(TEXT)
def test_a_bare_string_is_a_batch_of_one(value: str) -> None:
    batch = validate.ids(value)
    expect_strings(batch, [value])
    assert batch.scalar and not validate.ids([value]).scalar


def test_strange_strings_are_kept_exactly() -> None:
    strange = ["\0", "a\0", "../x", "é", "é", "\U0001f600", "x" * 256, "é" * 128, " ", "\n", "0"]
    expect_strings(validate.ids(strange), strange)  # the composed and the combining letter stay two ids
    for one in strange:
        assert validate.ids(one).keys == [one.encode()]


@pytest.mark.parametrize(
    "bad, message",
    [
        ("", "empty"),
        ("x" * 257, "256"),
        ("é" * 129, "256"),
        ("x" * 10**7, "256"),
        ("\ud800", "surrogate"),
        ("a\udfffb", "surrogate"),
    ],
    ids=["empty", "257", "258 bytes", "huge", "high", "low"],
)
def test_strings_out_of_bounds_are_refused_alone_and_in_a_batch(bad: str, message: str) -> None:
    for value in (bad, ["ok", bad], np.array(["ok", bad], object)):
        with pytest.raises(InvalidArgument, match=message):
            validate.ids(value)


@pytest.mark.parametrize("bad", [2**63, -(2**63) - 1, 10**30])
def test_ints_beyond_64_bits_are_refused(bad: int) -> None:
    for value in (bad, [1, bad], range(bad - 1, bad + 2)):
        with pytest.raises(InvalidArgument, match="64 bits"):
            validate.ids(value)


def test_unsigned_ids_beyond_int64_are_refused() -> None:
    assert validate.ids(np.array([2**63 - 1], np.uint64)).ints is not None
    for value in (np.array([0, 2**63], np.uint64), [np.uint64(2**63)]):
        with pytest.raises(InvalidArgument, match=r"2\*\*63 - 1"):
            validate.ids(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        [True],
        [1, True],
        [np.True_],
        np.array([True]),
        1.0,
        [1.0],
        [1, 2.0],
        np.array([1.0]),
        b"a",
        [b"a"],
        np.array([b"a"]),
        [1, "a"],
        ["a", 1],
        [None],
        ["a", None],
        np.array([1, "a"], object),
        [[1]],
        np.ones((2, 2), int),
        {1, 2},
        {"a": 1},
        iter([1]),
        np.array(["2020-01-01"], "M8[D]"),
        pd.Series([1, None]),
        pa.array([1, None]),
    ],
    ids=lambda value: name_of(value)[:40],
)
def test_what_is_neither_all_ints_nor_all_strings_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="ids"):
        validate.ids(value)


def test_ids_of_the_other_kind_are_refused_naming_the_collection() -> None:
    for value, kind in (("a", "int"), (["a"], "int"), (1, "str"), ([1], "str"), (np.array([1]), "str")):
        with pytest.raises(InvalidArgument, match=f"collection 'docs' has {kind} ids, got (str 'a'|int 1)"):
            validate.ids(value, kind, name="docs")  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="this collection"):
            validate.ids(value, kind)  # type: ignore[arg-type]


def test_no_ids_are_an_empty_batch_of_the_collections_kind() -> None:
    for empty in ([], (), np.empty(0), np.empty(0, object), range(0), pd.Series([], dtype=object)):
        assert validate.ids(empty).n == 0 and validate.ids(empty, "int").kind == "int"
        batch = validate.ids(empty, "str")
        assert (batch.kind, batch.n, batch.keys, batch.blob, batch.ends.tolist()) == ("str", 0, [], b"", [])


def test_too_many_ids_are_refused_unread() -> None:
    for value in (range(limits.batch_rows_max + 1), range(10**15), np.zeros(limits.batch_rows_max + 1, np.int8)):
        with pytest.raises(LimitExceeded, match="split"):
            validate.ids(value)


def test_a_kept_batch_does_not_follow_the_callers_array() -> None:
    mine = np.array([1, 2, 3])
    batch = validate.ids(mine)
    mine[:] = 9
    expect_ints(batch, [1, 2, 3])


def test_keys_and_values_of_a_dict_are_ids_in_its_order() -> None:
    expect_ints(validate.ids({3: "a", 1: "b", 2: "c"}.keys()), [3, 1, 2])
    expect_strings(validate.ids({3: "a", 1: "b"}.values()), ["a", "b"])
    for said, odd in (("a dict_items", {1: 2}.items()), ("a Chars", Chars())):
        with pytest.raises(InvalidArgument, match=said):
            validate.ids(odd)


class Chars:
    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, None], dtype="Int64"),
        pd.array([1, None], dtype="Int64"),
        pa.array([1, None]),
        pa.chunked_array([[1], [None]]),
        pl.Series([1, None]),
        pl.Series(["a", None]),
        pd.Series(["a", None], dtype="string"),
        pa.array(["a", None]),
    ],
    ids=lambda column: f"{type(column).__module__}-{getattr(column, 'dtype', getattr(column, 'type', ''))}",
)
def test_a_missing_id_of_a_column_is_named(column: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"ids\[1\] is (missing|None|a NAType)"):
        validate.ids(column)


def test_hashes_of_64_bits_are_told_what_to_become() -> None:
    hashes = np.array([5, 2**63 + 5], np.uint64)
    with pytest.raises(InvalidArgument, match=r"got 9223372036854775813: .*view\('int64'\).*astype\(str\)"):
        validate.ids(hashes)
    expect_ints(validate.ids(hashes.view("int64")), [5, 5 - 2**63])
    expect_strings(validate.ids(hashes.astype(str)), ["5", "9223372036854775813"])
