"""Every format against bytes packed by hand or by another library: round trips, sniffing, damage, bounded reads."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vecdb.errors import Corruption, InvalidArgument, NotFound, Unavailable
from vecdb_datasets import FORMATS, create_vectors, open_vectors, sniff, write_vectors
from vecdb_datasets.formats.tables.jsonl import JsonlSource

CODES = {"fvecs": "f", "ivecs": "i", "bvecs": "B", "fbin": "f", "ibin": "i", "hbin": "e", "u8bin": "B", "i8bin": "b"}
DTYPES = {"f": "float32", "i": "int32", "B": "uint8", "e": "float16", "b": "int8"}


def pack(format: str, rows: list[list[Any]]) -> bytes:
    """The oracle: struct, one value at a time."""
    code, dim = CODES[format], len(rows[0])
    values = [struct.pack("<" + code * dim, *row) for row in rows]
    if format.endswith("vecs"):
        return b"".join(struct.pack("<i", dim) + v for v in values)
    return struct.pack("<II", len(rows), dim) + b"".join(values)


def matrix(code: str, n: int = 7, dim: int = 5) -> np.ndarray:
    rng = np.random.default_rng(3)
    if code in "fe":
        return rng.standard_normal((n, dim)).astype(DTYPES[code])
    limits = np.iinfo(DTYPES[code])
    return rng.integers(max(limits.min, -9_999), min(limits.max, 9_999), (n, dim)).astype(DTYPES[code])


def read_all(path: Path, rows: int = 2, **kwargs: Any) -> np.ndarray:
    with open_vectors(path, **kwargs) as source:
        parts = list(source.chunks(rows))
        assert [start for start, _ in parts] == list(range(0, len(source), rows))
        whole = np.concatenate([part for _, part in parts])
        assert whole.shape == source.shape and whole.dtype == source.dtype
        assert np.array_equal(source[1:4], whole[1:4])
        return whole


@pytest.mark.parametrize("format", CODES)
def test_hand_packed_bytes_are_read_and_written_back_the_same(format: str, tmp_path: Path) -> None:
    expected = matrix(CODES[format])
    path = tmp_path / f"a.{format}"
    path.write_bytes(pack(format, expected.tolist()))
    found = read_all(path)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
    again = tmp_path / f"b.{format}"
    with create_vectors(again, dim=5) as writer:
        writer.write(found[:3])
        writer.write(found[3:])
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("format", ["npy", "hdf5", "parquet", "csv", "jsonl"])
def test_other_formats_give_back_float32_bit_for_bit(format: str, tmp_path: Path) -> None:
    if format == "hdf5":
        pytest.importorskip("h5py")
    if format == "parquet":
        pytest.importorskip("pyarrow")
    expected = matrix("f", 2_100, 6)
    path = tmp_path / f"a.{format}"
    with create_vectors(path, dim=6) as writer:
        writer.write(expected[:1000])
        writer.write(expected[1000:])
    assert np.array_equal(read_all(path, 700), expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]


def test_every_format_is_covered_by_these_tests() -> None:
    elsewhere = {"npz", "safetensors", "arrow", "json", "words", "word2vec"}  # tests/files/test_shapes_of_files.py
    moving = {"faiss", "usearch", "copy", "snapshot", "chroma", "qdrant", "lance"}  # tests/files/test_moving_in.py
    assert set(FORMATS) == {*CODES, "npy", "hdf5", "parquet", "csv", "jsonl"} | elsewhere | moving


@settings(max_examples=60, deadline=None)
@given(data=st.data(), format=st.sampled_from(sorted(CODES)), n=st.integers(1, 9), dim=st.integers(1, 17))
def test_any_matrix_survives_any_binary_format(
    data: st.DataObject, format: str, n: int, dim: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    code = CODES[format]
    if code in "fe":
        value: Any = st.floats(width=32 if code == "f" else 16, allow_nan=False, allow_infinity=False)
    else:
        value = st.integers(int(np.iinfo(DTYPES[code]).min), int(np.iinfo(DTYPES[code]).max))
    rows = data.draw(st.lists(st.lists(value, min_size=dim, max_size=dim), min_size=n, max_size=n))
    path = tmp_path_factory.mktemp("any") / f"a.{format}"
    path.write_bytes(pack(format, rows))
    a, b = sorted((data.draw(st.integers(0, n)), data.draw(st.integers(0, n))))
    with open_vectors(path) as source:
        assert source.format == format
        assert source[a:b].tolist() == np.array(rows, DTYPES[code])[a:b].tolist()
    write_vectors(path, np.array(rows, DTYPES[code]))
    assert path.read_bytes() == pack(format, rows)


# -- npy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "u1", "i1", "<f8", ">i4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_numpy_itself_in_any_byte_and_memory_order(dtype: str, order: str, tmp_path: Path) -> None:
    expected = np.array(np.arange(35).reshape(7, 5), dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a", expected)
    found = read_all(tmp_path / "a.npy")
    assert np.array_equal(found, expected) and found.dtype.isnative


def test_our_npy_opens_in_numpy(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.npy", matrix("e"))
    assert np.array_equal(np.load(tmp_path / "a.npy", allow_pickle=False), matrix("e"))


def test_npy_of_objects_or_of_one_dimension_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[{}]], object), allow_pickle=True)
    np.save(tmp_path / "line.npy", np.zeros(9))
    with pytest.raises(InvalidArgument, match="dtype object"):
        open_vectors(tmp_path / "objects.npy")
    with pytest.raises(InvalidArgument, match=r"shape \(9,\)"):
        open_vectors(tmp_path / "line.npy")


# -- sniffing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["fvecs", "ivecs", "bvecs", "fbin", "ibin", "hbin", "npy", "csv", "jsonl"])
def test_a_file_without_extension_is_known_by_its_content(format: str, tmp_path: Path) -> None:
    code = CODES.get(format, "f")
    path = tmp_path / "vectors"
    write_vectors(path, matrix(code, 40, 24), format=format)
    assert sniff(str(path)) == format
    assert np.array_equal(read_all(path), matrix(code, 40, 24))


@pytest.mark.parametrize(("format", "module"), [("hdf5", "h5py"), ("parquet", "pyarrow")])
def test_optional_formats_are_known_by_their_magic(format: str, module: str, tmp_path: Path) -> None:
    pytest.importorskip(module)
    write_vectors(tmp_path / "a.bin", matrix("f"), format=format)
    assert sniff(str(tmp_path / "a.bin")) == format


def test_one_byte_values_without_extension_are_ambiguous_and_the_message_says_so(tmp_path: Path) -> None:
    path = tmp_path / "base.bin"
    path.write_bytes(pack("u8bin", matrix("B").tolist()))
    with pytest.raises(InvalidArgument, match=r"u8bin and i8bin.*format="):
        open_vectors(path)
    assert np.array_equal(read_all(path, format="u8bin"), matrix("B"))


def test_all_zero_words_are_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "zero.bin").write_bytes(pack("fbin", [[0.0, 0.0]] * 3))
    with pytest.raises(InvalidArgument, match="ibin and fbin"):
        open_vectors(tmp_path / "zero.bin")


def test_content_beats_a_wrong_extension(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.fbin", matrix("f"), format="npy")
    write_vectors(tmp_path / "b.fbin", matrix("f"), format="fvecs")
    assert sniff(str(tmp_path / "a.fbin")) == "npy"
    assert sniff(str(tmp_path / "b.fbin")) == "fvecs"


def test_half_an_fbin_is_truncated_and_not_an_hbin(tmp_path: Path) -> None:
    whole = pack("fbin", matrix("f", 8, 4).tolist())
    (tmp_path / "a.fbin").write_bytes(whole[: 8 + 8 * 4 * 2])
    with pytest.raises(Corruption, match=r"expected 136 bytes, the file has 72"):
        open_vectors(tmp_path / "a.fbin")


def test_unknown_packed_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(np.random.default_rng(1).bytes(1001))
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8b" + bytes(30))
    (tmp_path / "empty.fvecs").write_bytes(b"")
    with pytest.raises(InvalidArgument, match="no known format"):
        open_vectors(tmp_path / "noise")
    with pytest.raises(InvalidArgument, match="gzip"):
        open_vectors(tmp_path / "a.gz")
    with pytest.raises(Corruption, match="0 bytes"):
        open_vectors(tmp_path / "empty.fvecs")
    with pytest.raises(NotFound):
        open_vectors(tmp_path / "absent.npy")
    with pytest.raises(NotFound):
        open_vectors(tmp_path / "absent.npy", format="npy")


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=200), extension=st.sampled_from(["", ".bin", *(f".{f}" for f in FORMATS)]))
@example(content=b"\r;", extension=".csv")  # a header line that the csv module refuses
def test_arbitrary_bytes_open_or_raise_a_typed_error(
    content: bytes, extension: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("noise") / f"a{extension}"
    path.write_bytes(content)
    try:
        with open_vectors(path) as source:
            source[0:3]
    except (Corruption, InvalidArgument, Unavailable):
        pass


def test_a_header_line_that_is_no_csv_is_corrupt_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\r;")
    with pytest.raises(Corruption, match=r"a\.csv: record at line 1 \(byte 0\)"):
        open_vectors(tmp_path / "a.csv")


def test_a_source_that_is_not_open_yet_has_a_name() -> None:
    assert repr(JsonlSource.__new__(JsonlSource)) == "<JsonlSource, not open>"


# -- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", [*CODES, "npy", "hdf5", "parquet"])
def test_a_file_cut_anywhere_is_corrupt_and_named(format: str, tmp_path: Path) -> None:
    if format in ("hdf5", "parquet"):
        pytest.importorskip({"hdf5": "h5py", "parquet": "pyarrow"}[format])
    path = tmp_path / f"a.{format}"
    write_vectors(path, matrix(CODES.get(format, "f"), 11, 9))
    whole = path.read_bytes()
    for cut in {1, 5, 11, len(whole) // 2 + 1, len(whole) - 1}:
        path.write_bytes(whole[:cut])
        with pytest.raises((Corruption, InvalidArgument), match=path.name):
            open_vectors(path)
        with pytest.raises(Corruption, match=path.name):
            open_vectors(path, format=format)


def test_a_file_with_extra_bytes_is_corrupt(tmp_path: Path) -> None:
    for format in ("fbin", "npy"):
        path = tmp_path / f"a.{format}"
        write_vectors(path, matrix("f"))
        path.write_bytes(path.read_bytes() + b"1234")
        with pytest.raises(Corruption):
            open_vectors(path)


def test_a_row_of_another_dim_is_named_with_its_place(tmp_path: Path) -> None:
    raw = bytearray(pack("fvecs", matrix("f", 300, 5).tolist()))
    struct.pack_into("<i", raw, 24 * 101, 4)
    path = tmp_path / "a.fvecs"
    path.write_bytes(raw)
    source = open_vectors(path, format="fvecs")
    source[0:101]
    with pytest.raises(Corruption, match=r"row 101 \(byte 2424\) says dim 4, expected 5"):
        source[90:110]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named_by_row_and_component(bad: float, tmp_path: Path) -> None:
    vectors = matrix("f", 50, 5)
    vectors[33, 2] = bad
    for format in ("fvecs", "fbin", "npy", "jsonl", "csv"):
        path = tmp_path / f"a.{format}"
        write_vectors(path, vectors)
        with pytest.raises(InvalidArgument, match=r"row 33, component 2"):
            list(open_vectors(path).chunks(10))
        assert np.array_equal(open_vectors(path, check_finite=False)[0:50], vectors, equal_nan=True)


def test_values_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    for format, value in (("u8bin", 300), ("i8bin", -129), ("fvecs", 1e39), ("ivecs", 0.5)):
        with pytest.raises(InvalidArgument, match="fit"):
            write_vectors(tmp_path / f"a.{format}", np.array([[1, value]]))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.fbin"
    write_vectors(path, matrix("f"))
    with pytest.raises(RuntimeError), create_vectors(path, 5) as writer:
        writer.write(matrix("f"))
        raise RuntimeError
    assert np.array_equal(read_all(path), matrix("f"))


def test_slices_are_plain_and_clamped(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.fbin", matrix("f"))
    source = open_vectors(tmp_path / "a.fbin")
    assert source[5:99].shape == (2, 5) and source[4:2].shape == (0, 5) and source[-2:].shape == (2, 5)
    assert [start for start, _ in source.chunks(2, start=3)] == [3, 5]
    assert source.ids() is None and source.fields() is None
    for wrong in (slice(0, 4, 2), 3):
        with pytest.raises(InvalidArgument):
            source[wrong]  # type: ignore[index]
    source.close()
    with pytest.raises(InvalidArgument, match="closed"):
        source[0:1]


def test_a_missing_optional_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for module, magic in (("h5py", b"\x89HDF\r\n\x1a\n"), ("pyarrow", b"PAR1")):
        monkeypatch.setitem(sys.modules, module, None)
        (tmp_path / "a").write_bytes(magic + bytes(20))
        with pytest.raises(Unavailable, match=r"vecdb-engine\[data\]"):
            open_vectors(tmp_path / "a")


def test_hdf5_asks_which_matrix(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"], file["line"] = matrix("f"), matrix("B"), np.zeros(3)
    with pytest.raises(InvalidArgument, match=r"key=.*one.*two"):
        open_vectors(tmp_path / "a.h5")
    with pytest.raises(NotFound, match="three"):
        open_vectors(tmp_path / "a.h5", key="three")
    assert np.array_equal(read_all(tmp_path / "a.h5", key="two"), matrix("B"))


def test_json_of_the_standard_library_is_the_same_file(tmp_path: Path) -> None:
    write_vectors(tmp_path / "a.jsonl", matrix("f"), ids=list("abcdefg"), fields=[{"year": i} for i in range(7)])
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [r["id"] for r in rows] == list("abcdefg") and rows[3]["year"] == 3
    assert np.array_equal(np.array([r["vector"] for r in rows], "f4"), matrix("f"))
