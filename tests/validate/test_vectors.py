"""Vectors and queries: every layout and type of the same numbers gives the same array; the rest is refused by name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tests.support.gate_values import config, name_of
from vecdb import limits, validate
from vecdb.errors import InvalidArgument, LimitExceeded


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


@pytest.mark.parametrize("bad", [None, "x", "1.5", b"1", object(), 1j, np.complex64(1), Decimal("sNaN"), 10**400])
def test_what_is_no_number_is_named_by_row_and_position(bad: Any) -> None:
    rows = np.ones((900, 4)).tolist()
    rows[777][2] = bad
    rows[3][1] = Decimal("0.5")
    for given in (rows, np.array(rows, object)):
        for gate in (validate.vectors, validate.queries):
            with pytest.raises(InvalidArgument, match=r"(vectors|queries)\[777\] has .* at position 2"):
                gate(given, config(dim=4))


def test_decimals_are_numbers() -> None:
    rows = [[Decimal(str(value)) for value in row] for row in BASE.tolist()]
    for given in (rows, np.array(rows, object), [tuple(row) for row in rows]):
        assert validate.vectors(given, config(dim=4)).tolist() == BASE.tolist()
    for one in (rows[0], np.array(rows[0], object), pd.Series(rows[0])):
        queries, single = validate.queries(one, config(dim=4))
        assert single and queries.tolist() == BASE[:1].tolist()
    for value, said in (("NaN", "nan at position 1"), ("Infinity", "inf at position 1"), ("1e39", "position 1")):
        rows[5][1] = Decimal(value)
        with pytest.raises(InvalidArgument, match=rf"vectors\[5\] has .*{said}"):
            validate.vectors(rows, config(dim=4))


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_short_floats_are_read(name: str) -> None:
    short = np.dtype(getattr(pytest.importorskip("ml_dtypes"), name))
    values = np.array([[1, -2, 0.5, 4], [0.25, 8, 1, -1]], np.float32)
    array = values.astype(short)
    for given in (array, np.asfortranarray(array), list(array), array.astype(object)):
        assert validate.vectors(given, config(dim=4)).tolist() == values.tolist()
    queries, single = validate.queries(array[0], config(dim=4))
    assert single and queries.tolist() == values[:1].tolist()


def test_a_structure_is_no_number() -> None:
    with pytest.raises(InvalidArgument, match="must hold numbers"):
        validate.vectors(np.zeros((2, 4), [("float", "f4")]), config(dim=4))
