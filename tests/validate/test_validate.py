"""The gate accepts every reasonable shape of the same data, gives one canonical form, and refuses the rest by name.

Oracles are naive Python: struct for keys and floats, dicts for duplicates, the caller's own objects for fields.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import re
import struct
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb import limits, validate
from vecdb.errors import Corruption, InvalidArgument, LimitExceeded
from vecdb.schema import CollectionConfig, Flat, Hnsw, SearchParams

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


def name_of(value: Any) -> str:
    """Of a parameter, without addresses: the processes that share the tests must collect the same."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def config(dim: int = 4, metric: str = "l2", dtype: str = "float32") -> CollectionConfig:
    return validate.collection_config("docs", dim, metric, None, dtype)


def raw(value: Any) -> np.ndarray:
    """An array as a foreign object that only knows `__array__`."""

    class Foreign:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.asarray(value)

    return Foreign()  # type: ignore[return-value]


class OnlyDlpack:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


# -- names and configuration -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "docs 2", "Größe", "x" * 128, "..a"])
def test_printable_collection_names_pass_unchanged(name: str) -> None:
    assert validate.collection_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "..", ".", "../x", "a\\b", "a\x00b", "a\nb", " a", "a ", "é" * 65, "\ud800", None, 3, b"a"]
)
def test_other_collection_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="collection name"):
        validate.collection_name(name)


def test_a_configuration_is_normalised() -> None:
    got = validate.collection_config("docs", np.int32(8), "cosine", Hnsw(m=np.int64(8)), np.float16)  # type: ignore[arg-type]
    assert got == CollectionConfig("docs", 8, "cosine", "float16", Hnsw(m=8))
    assert type(got.dim) is int and isinstance(got.index, Hnsw) and type(got.index.m) is int


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 0},
        {"dim": -1},
        {"dim": limits.dim_max + 1},
        {"dim": 3.0},
        {"dim": True},
        {"dim": "3"},
        {"metric": "euclid"},
        {"metric": None},
        {"dtype": "float64"},
        {"dtype": None},
        {"dtype": np.int16},
        {"index": "hnsw"},
        {"index": Hnsw},
        {"index": Hnsw(m=1)},
        {"index": Hnsw(m=limits.m_max + 1)},
        {"index": Hnsw(ef_construction=0)},
        {"index": Hnsw(ef=limits.ef_max + 1)},
        {"index": Hnsw(ef=True)},
        {"index": Hnsw(quantization="pq")},  # type: ignore[arg-type]
    ],
    ids=name_of,
)
def test_a_configuration_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"name": "docs", "dim": 3, "metric": "l2", "index": None, "dtype": "float32"}
    assert validate.collection_config(**good)
    with pytest.raises(InvalidArgument):
        validate.collection_config(**(good | change))


def test_every_index_choice_within_bounds_passes() -> None:
    for index in (None, Flat(), Hnsw(), Hnsw(m=2, ef_construction=1, ef=1, quantization=None)):
        assert validate.index_config(index) == index


def test_an_owner_is_bytes_and_none_is_the_empty_one() -> None:
    assert validate.owner(None) == validate.owner("") == b""
    assert validate.owner("ä") == "ä".encode()
    assert len(validate.owner("x" * 128)) == 128
    for bad in ("x" * 129, "\udfff", b"a", 0, False):
        with pytest.raises(InvalidArgument, match="owner"):
            validate.owner(bad)


# -- vectors -----------------------------------------------------------------------------------

BASE = np.arange(1, 25, dtype=np.float32).reshape(6, 4) / 8  # exact in every float dtype


def layouts() -> dict[str, Any]:
    wide = np.zeros((12, 8), np.float32)
    wide[::2, 1::2] = BASE
    frozen = BASE.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + BASE.tobytes(), np.uint8)[1:].view(np.float32).reshape(6, 4)
    return {
        "list": BASE.tolist(),
        "tuples": tuple(map(tuple, BASE.tolist())),
        "list of arrays": list(BASE),
        "contiguous": BASE,
        "fortran": np.asfortranarray(BASE),
        "strided": wide[::2, 1::2],
        "reversed": BASE[::-1][::-1],
        "negative strides": BASE[::-1].copy()[::-1],
        "byte-swapped": BASE.astype(">f4"),
        "read-only": frozen,
        "unaligned": unaligned,
        "float64": BASE.astype(np.float64),
        "float16": BASE.astype(np.float16),
        "longdouble": BASE.astype(np.longdouble),
        "object": BASE.astype(object),
        "array of arrays": pd.Series(list(BASE)),
        "__array__": raw(BASE),
        "dlpack": OnlyDlpack(BASE),
        "pandas": pd.DataFrame(BASE),
        "polars": pl.DataFrame(BASE),
        "polars array": pl.Series(BASE.tolist(), dtype=pl.Array(pl.Float32, 4)),
        "polars lists": pl.Series(BASE.tolist()),
        "arrow fixed": pa.FixedSizeListArray.from_arrays(pa.array(BASE.ravel()), 4),
        "arrow sliced": pa.FixedSizeListArray.from_arrays(pa.array(np.r_[[9] * 4, BASE.ravel()].astype("f4")), 4)[1:],
        "arrow chunked": pa.chunked_array(
            [pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), 4) for part in (BASE[:2], BASE[2:])]
        ),
        "arrow lists": pa.array(BASE.tolist()),
    }


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layout", layouts())
def test_every_layout_gives_the_same_vectors(layout: str, dtype: str) -> None:
    value = layouts()[layout]
    got = validate.vectors(value, config(dtype=dtype))
    assert got.dtype == np.dtype(dtype) and got.dtype.isnative and got.flags.c_contiguous and got.flags.aligned
    assert np.array_equal(got, BASE)
    queries, single = validate.queries(value, config(dtype=dtype))
    assert queries.dtype == np.float32 and queries.flags.c_contiguous and not single
    assert np.array_equal(queries, BASE)


def test_a_memory_mapped_file_is_read(tmp_path: Any) -> None:
    np.save(tmp_path / "v.npy", BASE)
    got = validate.vectors(np.load(tmp_path / "v.npy", mmap_mode="r"), config())
    assert np.array_equal(got, BASE) and not isinstance(got, np.memmap)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_stored_vectors_share_no_memory_with_the_caller(dtype: str) -> None:
    mine = np.ones((3, 4), dtype)
    kept = validate.vectors(mine, config(dtype=dtype))
    alone = validate.vectors(mine[0], config(dtype=dtype))
    mine[:] = 7
    assert (kept == 1).all() and (alone == 1).all() and kept.flags.owndata


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_vectors_that_nobody_can_change_are_checked_where_they_lie(dtype: str) -> None:
    data = np.ones((600, 4), dtype).tobytes()
    snapshot = np.frombuffer(data, dtype).reshape(-1, 4)
    kept = validate.vectors(snapshot, config(dtype=dtype))
    assert np.shares_memory(kept, snapshot) and kept.shape == (600, 4)
    other = validate.vectors(snapshot, config(dtype="int8" if dtype != "int8" else "uint8"))
    assert not np.shares_memory(other, snapshot)
    for mutable in (np.frombuffer(bytearray(data), dtype).reshape(-1, 4), snapshot[::2], snapshot[:, ::-1]):
        assert not np.shares_memory(validate.vectors(mutable, config(dtype=dtype)), mutable)
    if dtype.startswith("float"):
        bad = np.ones((600, 4), dtype)
        bad[577, 3] = np.nan
        with pytest.raises(InvalidArgument, match=r"vectors\[577\] has nan at position 3"):
            validate.vectors(np.frombuffer(bad.tobytes(), dtype).reshape(-1, 4), config(dtype=dtype))


def test_vectors_over_many_chunks_arrive_in_order() -> None:
    rng = np.random.default_rng(5)
    for n, dim in ((1, 1), (255, 3), (256, 300), (1_000, 300), (30, limits.dim_max)):
        data = rng.normal(size=(n, dim))
        assert np.array_equal(validate.vectors(data, config(dim)), data.astype(np.float32))
        assert np.array_equal(validate.vectors(data.tolist(), config(dim)), data.astype(np.float32))


def test_one_dimension_is_one_vector_only_when_the_id_is_alone() -> None:
    for value in (BASE[0], BASE[0].tolist(), raw(BASE[0]), np.array(BASE[0], object)):
        assert validate.vectors(value, config(), single=True).shape == (1, 4)
        with pytest.raises(InvalidArgument, match=r"shape \[n, 4\]|not a vector"):
            validate.vectors(value, config(), single=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n, row", [(1, 0), (600, 0), (600, 599), (600, 256)])
@pytest.mark.parametrize("source", [np.float32, np.float64, list])
def test_a_number_that_is_not_finite_is_refused_by_row(bad: float, n: int, row: int, source: Any) -> None:
    data: Any = np.ones((n, 4), np.float32 if source is list else source)
    data[row, 2] = bad
    data = data.tolist() if source is list else data
    for gate in (validate.vectors, validate.queries):
        with pytest.raises(InvalidArgument, match=rf"\[{row}\] has {bad} at position 2: every number must be finite"):
            gate(data, config())
        if n == 1:
            with pytest.raises(InvalidArgument, match=rf"\[0\] has {bad} at position 2"):
                gate(data[0], config())


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_integer_collections_refuse_nan_as_not_whole(dtype: str) -> None:
    with pytest.raises(InvalidArgument, match=r"vectors\[1\] has nan at position 0"):
        validate.vectors([[1, 2, 3, 4], [np.nan, 2, 3, 4]], config(dtype=dtype))


@pytest.mark.parametrize("dtype, low, high", [("int8", -128, 127), ("uint8", 0, 255)])
@pytest.mark.parametrize("source", ["int64", "float64", "float32", "uint64", "int16"])
def test_integer_collections_take_exactly_the_whole_numbers_in_range(
    dtype: str, low: int, high: int, source: str
) -> None:
    start = max(low, 0) if source == "uint64" else low
    good = np.array([[start, high]], source)
    assert validate.vectors(good, config(2, dtype=dtype)).tolist() == [[start, high]]
    bad = [high + 1] + ([low - 1] if source != "uint64" else []) + ([0.5] if source.startswith("f") else [])
    for one in bad:
        with pytest.raises(InvalidArgument, match=r"vectors\[1\] has .* at position 0.*whole numbers"):
            validate.vectors(np.array([[1, 1], [one, 1]], source), config(2, dtype=dtype))


def test_queries_of_integer_collections_are_floats_of_any_value() -> None:
    got, single = validate.queries([0.5, 300], config(2, dtype="uint8"))
    assert got.tolist() == [[0.5, 300]] and got.dtype == np.float32 and single


def test_overflow_of_the_stored_dtype_is_refused_not_stored_as_inf() -> None:
    with pytest.raises(InvalidArgument, match=r"vectors\[1\] has 70000 at position 1, float16 holds at most 65504"):
        validate.vectors([[1, 1], [1, 7e4]], config(2, dtype="float16"))
    assert validate.vectors([[1, 65504]], config(2, dtype="float16"))[0, 1] == 65504
    with pytest.raises(InvalidArgument, match=r"vectors\[0\] has 1e\+39 .* float32 holds at most"):
        validate.vectors([[1, 1e39]], config(2))


@pytest.mark.parametrize("gate", [validate.vectors, validate.queries])
def test_norms_are_bounded_so_that_no_distance_overflows(gate: Any) -> None:
    edge = np.float32(np.sqrt(np.finfo(np.float32).max / 4 / 2)) * np.float32(0.999)
    vector = np.array([edge, edge], np.float32)
    gate(vector, config(2))
    assert np.isfinite(np.sum((vector + vector) ** 2))  # the farthest pair allowed
    with pytest.raises(InvalidArgument, match="too long"):
        gate(vector * np.float32(1.01), config(2))


@pytest.mark.parametrize("gate", [validate.vectors, validate.queries])
@pytest.mark.parametrize("huge", [1e20, 3e38, np.inf, np.nan])
@pytest.mark.filterwarnings("error")
def test_huge_numbers_are_refused_without_a_warning(gate: Any, huge: float) -> None:
    matrix = np.full((300, 4), huge, np.float32)
    in_bytes = np.frombuffer(matrix.tobytes(), np.float32).reshape(300, 4)
    for data in (matrix, matrix[0], in_bytes, in_bytes[0], matrix.astype(np.float64), matrix.tolist()):
        with pytest.raises(InvalidArgument, match=r"too long|must be finite"):
            gate(data, config())


@pytest.mark.parametrize("gate", [validate.vectors, validate.queries])
def test_a_zero_vector_is_refused_under_cosine_only(gate: Any) -> None:
    data = np.ones((300, 4), np.float32)
    data[280] = 0
    gate(data, config(metric="l2"))
    gate(data[280], config(metric="ip"))
    with pytest.raises(InvalidArgument, match=r"\[280\] is zero .*cosine"):
        gate(data, config(metric="cosine"))
    with pytest.raises(InvalidArgument, match=r"\[0\] is zero"):
        gate(data[280], config(metric="cosine"))
    with pytest.raises(InvalidArgument, match="zero"):
        gate(np.full(4, 1e-30, np.float32), config(metric="cosine"))  # its squared norm underflows


def test_a_zero_vector_is_refused_under_cosine_in_every_stored_dtype() -> None:
    for dtype in ("float16", "int8", "uint8"):
        with pytest.raises(InvalidArgument, match=r"vectors\[1\] is zero"):
            validate.vectors([[1, 1], [0, 0]], config(2, "cosine", dtype))
    with pytest.raises(InvalidArgument, match="zero"):
        validate.vectors([[1e-9, 1e-9]], config(2, "cosine", "float16"))  # stored as zero


@pytest.mark.parametrize(
    "value, message",
    [
        (np.ones((2, 5)), "collection 'docs' has dim 4, got 5"),
        ([1.0, 2.0, 3.0], "collection 'docs' has dim 4, got 3"),
        ([[1, 2, 3, 4], [1, 2, 3]], r"dim 4, got 3 in \w+\[1\]"),
        (np.ones((2, 2, 4)), r"shape \[n, 4\], got \[2, 2, 4\]"),
        (np.float32(3), "shape"),
        ([[[1, 2, 3, 4]] * 4], "rows of 4 numbers"),
        ([[1, 2, 3, "x"]], "rows of 4 numbers"),
        (["abcd"], "rows of 4 numbers|array"),
        ([1, 2, None, 4], "numbers"),
        ([[1, 2, None, 4]], "rows of 4 numbers"),
        ([[1, 2, 3, 4], None], r"\[1\] is None, not a vector"),
        (np.array([["a"] * 4]), "numbers"),
        (np.ones((1, 4), bool), "numbers"),
        (np.ones((1, 4), complex), "numbers"),
        (np.ones((1, 4), "m8[s]"), "numbers"),
        (np.ma.masked_array(np.ones((2, 4)), np.eye(2, 4)), "masked"),
        (None, "array"),
        ("abcd", "array"),
        (b"abcd", "array"),
        ({"a": 1}, "array"),
        ({1, 2, 3, 4}, "array"),
        (object(), "numbers|array"),
        (iter([[1, 2, 3, 4]]), "numbers|array"),
    ],
    ids=lambda value: name_of(value)[:30],
)
def test_what_is_not_vectors_of_the_dimension_is_refused(value: Any, message: str) -> None:
    for gate in (validate.vectors, validate.queries):
        with pytest.raises(InvalidArgument, match=message):
            gate(value, config())


def test_an_empty_write_is_refused_and_an_empty_search_is_not() -> None:
    for empty in ([], (), np.empty((0, 4)), np.empty(0), np.empty((0, 4), np.float32)):
        with pytest.raises(InvalidArgument, match="empty"):
            validate.vectors(empty, config())
        got, single = validate.queries(empty, config())
        assert got.shape == (0, 4) and got.dtype == np.float32 and not single


def test_oversized_batches_are_refused_before_anything_is_read() -> None:
    class Endless:
        """Claims a length and fails when read."""

        def __len__(self) -> int:
            raise AssertionError("read")

    with pytest.raises(LimitExceeded, match="split"):
        validate.vectors([Endless()] * (limits.batch_rows_max + 1), config())
    n = limits.batch_bytes_max // (8_192 * 4) + 1
    with pytest.raises(LimitExceeded, match="atomic"):
        validate.vectors(np.broadcast_to(np.float32(1), (n, 8_192)), config(8_192))
    with pytest.raises(LimitExceeded, match="queries"):
        validate.queries(np.broadcast_to(np.float32(1), (limits.queries_max + 1, 4)), config())


def test_an_error_of_a_foreign_array_becomes_ours() -> None:
    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise RuntimeError("call detach() first")

    with pytest.raises(InvalidArgument, match="call detach"):
        validate.vectors(Broken(), config())


def test_contiguous_float32_queries_are_not_copied() -> None:
    unpickled = BASE[2].view(np.dtype(np.float32, copy=True))  # equal to NumPy's own, but not the same object
    for value in (BASE, BASE[2], unpickled):
        got, single = validate.queries(value, config())
        assert np.shares_memory(got, value) and single == (value.ndim == 1) and got.ndim == 2
    got, single = validate.queries(BASE[2].tolist(), config())
    assert single and got.tolist() == [BASE[2].tolist()]


# -- ids ---------------------------------------------------------------------------------------


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


# -- fields ------------------------------------------------------------------------------------

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


# -- a search's other arguments ----------------------------------------------------------------


def test_limits_in_range_pass_as_ints() -> None:
    for value in (1, 10, np.int32(7), limits.limit_max):
        got = validate.search_limit(value, 1)
        assert got == value and type(got) is int


@pytest.mark.parametrize("value", [0, -1, limits.limit_max + 1, 10**30, True, 1.0, "1", None, np.float64(1)])
def test_other_limits_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="limit"):
        validate.search_limit(value, 1)


def test_the_size_of_an_answer_is_bounded() -> None:
    nq = limits.search_cells_max // limits.limit_max
    assert validate.search_limit(limits.limit_max, nq) == limits.limit_max
    with pytest.raises(LimitExceeded, match="several calls"):
        validate.search_limit(limits.limit_max, nq + 1)


def test_a_flag_is_true_or_false_and_nothing_that_counts_as_either() -> None:
    for value in (True, False, np.True_, np.False_):
        assert validate.flag(value, "explain") is bool(value)
    for other in ("no", "", 0, 1, None, [], 1.0, np.int64(1), np.array(True)):
        with pytest.raises(InvalidArgument, match="explain must be True or False, got "):
            validate.flag(other, "explain")


def test_search_parameters_are_normalised() -> None:
    assert validate.search_params(None, 10) == SearchParams()
    assert validate.search_params(SearchParams(ef=np.int64(5)), 10) == SearchParams(ef=10)  # type: ignore[arg-type]
    assert validate.search_params(SearchParams(ef=50, threads=2, exact=np.True_), 10) == SearchParams(  # type: ignore[arg-type]
        ef=50, threads=2, exact=True
    )
    assert validate.search_params(SearchParams(recall=1), 10).recall == 1.0


@pytest.mark.parametrize(
    "params",
    [
        SearchParams(ef=0),
        SearchParams(ef=limits.ef_max + 1),
        SearchParams(ef=1.5),  # type: ignore[arg-type]
        SearchParams(ef=True),
        SearchParams(nprobe=0),
        SearchParams(recall=0),
        SearchParams(recall=1.01),
        SearchParams(recall=float("nan")),
        SearchParams(recall=True),
        SearchParams(recall="high"),  # type: ignore[arg-type]
        SearchParams(recall=0.9, ef=10),
        SearchParams(recall=0.9, nprobe=10),
        SearchParams(exact=1),  # type: ignore[arg-type]
        SearchParams(threads=0),
        SearchParams(threads=limits.threads_max + 1),
        SearchParams(threads=None),  # type: ignore[arg-type]
        {"ef": 10},
        10,
    ],
    ids=name_of,
)
def test_search_parameters_out_of_bounds_are_refused(params: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"[pP]arams"):
        validate.search_params(params, 10)


def test_thread_counts() -> None:
    assert validate.threads(3) == 3 and 1 <= validate.threads(None) <= limits.threads_max
    for bad in (0, -1, limits.threads_max + 1, 2.0, True, "2"):
        with pytest.raises(InvalidArgument, match="threads"):
            validate.threads(bad)


def test_field_selections() -> None:
    assert validate.field_selection(None) is None and validate.field_selection(True) is None
    assert validate.field_selection([]) == validate.field_selection(False) == ()
    assert validate.field_selection("lang") == ("lang",)
    assert validate.field_selection(["b", "a", "b"]) == ("b", "a")
    for bad in (1, [1], {"a": 1}, b"a"):
        with pytest.raises(InvalidArgument, match="fields"):
            validate.field_selection(bad)


def test_the_gate_does_not_import_numba() -> None:
    code = "import sys; import vecdb.validate, vecdb.api.hits; sys.exit('numba' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(p for p in sys.path if p)}
        ).returncode
        == 0
    )
