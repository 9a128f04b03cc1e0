"""Parquet, CSV and JSONL: which column is which, ids and fields beside vectors, reads at any place, bad rows named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.errors import Corruption, InvalidArgument, NotFound
from vecdb_datasets import create_vectors, open_vectors

N, DIM = 5_000, 4
VECTORS = np.random.default_rng(5).standard_normal((N, DIM)).astype(np.float32)
IDS = [f"doc, {i}" if i % 7 else f'"{i}"\nline' for i in range(N)]
FIELDS: list[dict[str, Any]] = [
    {"year": 1990 + i % 40, "score": i / 4, "lang": ["en", None, "de"][i % 3]} for i in range(N)
]


@pytest.fixture(scope="module", params=["parquet", "csv", "jsonl"])
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path_factory.mktemp("tables") / f"docs.{request.param}"
    with create_vectors(path, DIM) as writer:
        for start in range(0, N, 1_700):
            rows = slice(start, start + 1_700)
            writer.write(VECTORS[rows], IDS[rows], FIELDS[rows])
    return path


def test_vectors_ids_and_fields_come_back_chunk_by_chunk(table: Path) -> None:
    with open_vectors(table) as source:
        assert source.shape == (N, DIM)
        for start, vectors in source.chunks(900):
            stop = start + len(vectors)
            assert np.array_equal(vectors, VECTORS[start:stop])
            assert source.ids(start, stop) == IDS[start:stop]
            assert source.fields(start, stop) == FIELDS[start:stop]


def test_any_slice_in_any_order_is_the_same_rows(table: Path) -> None:
    rng = np.random.default_rng(8)
    with open_vectors(table) as source:
        for _ in range(25):
            a, b = sorted(rng.integers(0, N + 1, 2).tolist())
            b = min(b, a + 1_500)
            assert source.ids(a, b) == IDS[a:b]
            assert np.array_equal(source[a:b], VECTORS[a:b])
            assert source.fields(a, b) == FIELDS[a:b]


def test_columns_can_be_named(table: Path) -> None:
    with open_vectors(table, vector_column="vector", id_column="year") as source:
        assert source.ids(0, 3) == [1990, 1991, 1992]
        fields = source.fields(0, 1)
        assert fields is not None and set(fields[0]) == {"id", "score", "lang"}
    with pytest.raises(NotFound, match="columns that can"):
        open_vectors(table, vector_column="lang")
    with pytest.raises(NotFound, match="absent"):
        open_vectors(table, id_column="absent")


def test_two_list_columns_without_a_usual_name_are_asked_about(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": [1, 2], "b": [3, 4]}\n')
    with pytest.raises(InvalidArgument, match=r"\['a', 'b'\].*vector_column="):
        open_vectors(tmp_path / "a.jsonl")
    with open_vectors(tmp_path / "a.jsonl", vector_column="b") as source:
        assert source[:].tolist() == [[3, 4]] and source.fields() == [{"a": [1, 2]}]


@pytest.mark.parametrize("cell", ["[0.5, -1, 2e1]", "0.5 -1 20", "0.5;-1;20", "(0.5 -1 20)"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_csv_takes_the_usual_spellings_of_a_vector(cell: str, delimiter: str, tmp_path: Path) -> None:
    lines = [delimiter.join(["word", "embedding", "n"]), delimiter.join(["x", f'"{cell}"', "7"])]
    (tmp_path / "a.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    with open_vectors(tmp_path / "a.csv") as source:
        assert source[:].tolist() == [[0.5, -1.0, 20.0]]
        assert source.fields() == [{"word": "x", "n": 7}]


def test_csv_types_are_those_that_every_row_allows(tmp_path: Path) -> None:
    rows = [f'{i},"1 2",{i}.5,{i if i < 2_500 else "n/a"},00{i},{"" if i == 9 else i}' for i in range(3_000)]
    (tmp_path / "a.csv").write_text("id,vector,real,mixed,code,gap\n" + "\n".join(rows))
    with open_vectors(tmp_path / "a.csv") as source:
        assert source.ids(9, 10) == [9]
        assert source.fields(9, 10) == [{"real": 9.5, "mixed": "9", "code": "009", "gap": None}]
        assert source.fields(2_999) == [{"real": 2999.5, "mixed": "n/a", "code": "002999", "gap": 2999}]


def test_bad_rows_are_named(tmp_path: Path) -> None:
    good = '{"id": 1, "vector": [1, 2]}\n'
    for bad, error, said in (
        ('{"id": 2, "vector": [1, 2, 3]}\n', InvalidArgument, "row 1 has dim 3, expected 2"),
        ('{"id": 2, "vector": [1, "x"]}\n', InvalidArgument, "row 1: vector holds something that is no number"),
        ('{"id": 2}\n', InvalidArgument, "row 1: vector is NoneType"),
        ('{"vector": [1, 2]}\n', InvalidArgument, "row 1 has no id"),
        ('{"id": 2, "vec', Corruption, "line 2 .byte 28. is not whole JSON"),
        ("[1, 2]\n", InvalidArgument, "line 2 is a list"),
    ):
        (tmp_path / "a.jsonl").write_text(good + bad)
        source = open_vectors(tmp_path / "a.jsonl")
        with pytest.raises(error, match=said):
            source[:]
    for bad, said in (
        (b'2,"1 2",5\n', "has 3 cells, expected 2"),
        (b'2,"1 2', "line 3"),
        (b"2,\xff\xfe\n", "not UTF-8"),
    ):
        (tmp_path / "a.csv").write_bytes(b'id,vector\n1,"1 2"\n' + bad)
        with pytest.raises(Corruption, match=said):
            open_vectors(tmp_path / "a.csv")


def test_parquet_lists_of_other_layouts_and_their_bad_rows(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    for kind in (pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16(), 3), pa.list_(pa.uint8())):
        values = [[i % 200, 1, 2] for i in range(1_000)]
        array = pa.array(
            [[np.float16(x) for x in v] for v in values] if kind.value_type == pa.float16() else values, kind
        )
        parquet.write_table(pa.table({"emb": array, "key": list(range(1_000))}), path, row_group_size=170)
        with open_vectors(path) as source:
            assert source.dtype == kind.value_type.to_pandas_dtype()
            assert source[333:700].tolist() == values[333:700] and source.ids(999) == [999]
    for values, said in (
        ([[1.0, 2], [1], [3, 4]], "row 1 has dim 1, expected 2"),
        ([[1.0, 2], None, [3, 4]], "row 1 has no vector"),
        ([[1.0, 2], [3, None], [3, 4]], "row 1: vector holds a null"),
    ):
        parquet.write_table(pa.table({"vector": values}), path)
        with pytest.raises(InvalidArgument, match=said):
            open_vectors(path)[:]
    parquet.write_table(pa.table({"a": [1], "b": ["x"]}), path)
    with pytest.raises(InvalidArgument, match="no column holds lists"):
        open_vectors(path)


def test_columns_of_a_parquet_file_grow_with_what_comes(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    chunks: list[list[dict[str, Any]]] = [
        [{"tenants": [], "n": 1}, {"tenants": [], "title": None, "late": {"a": 1}}],
        [{"tenants": ["x"], "n": 2.5}, {}],
        [{"tenants": [], "n": 3}, {"title": "t", "late": {"b": "z"}, "more": True}],
        [{}, {}],
    ]
    with create_vectors(tmp_path / "a.parquet", 2) as writer:
        for at, chunk in enumerate(chunks):
            writer.write(np.full((2, 2), at), [2 * at, 2 * at + 1], chunk)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
    names = ["id", "vector", "tenants", "n", "title", "late", "more"]
    rows = [row for chunk in chunks for row in chunk]
    expected = [
        {"id": i, "vector": [float(i // 2)] * 2} | {n: row.get(n) for n in names[2:]} for i, row in enumerate(rows)
    ]
    for row in expected:
        row["late"] = row["late"] and {"a": None, "b": None} | row["late"]
    found = parquet.read_table(tmp_path / "a.parquet")
    assert found.column_names == names and found.to_pylist() == expected


@pytest.mark.parametrize("later", [{"n": "x"}, {"n": 0.5}, {"n": True}, {"id": 3}, {"vector": None}], ids=str)
def test_a_table_that_cannot_hold_what_comes_is_refused_and_leaves_nothing(
    tmp_path: Path, later: dict[str, Any]
) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_text("what was there")
    with pytest.raises(InvalidArgument, match=r"a\.parquet: "), create_vectors(tmp_path / "a.parquet", 2) as writer:
        writer.write(np.ones((1, 2)), [1], [{"n": 2**60 + 1}])
        writer.write(np.ones((1, 2)), [2], [{"other": 1}])
        writer.write(np.ones((1, 2)), [3], [later])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["what was there"]


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_all_rows_of_a_table_have_ids_or_none(tmp_path: Path, format: str) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(InvalidArgument, match="every chunk or for none"):
        with create_vectors(tmp_path / f"a.{format}", 2) as writer:
            writer.write(np.ones((1, 2)), [1])
            writer.write(np.ones((1, 2)))
    assert not list(tmp_path.iterdir())


def test_a_damaged_parquet_page_is_corruption(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    with create_vectors(path, 8) as writer:
        writer.write(np.arange(8_000, dtype=np.float32).reshape(-1, 8))
    raw = bytearray(path.read_bytes())
    raw[4:60] = bytes(56)
    path.write_bytes(raw)
    with pytest.raises(Corruption, match="cannot be read"):
        open_vectors(path)[:]
