"""Files as people have them: each is read as the same rows, whatever tool wrote it."""

from __future__ import annotations

import bz2
import datetime as dt
import decimal
import gzip
import json
import lzma
import os
import threading
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vecdb.errors import Corruption, InvalidArgument, NotFound
from vecdb_datasets import open_vectors

N, DIM = 20, 8
X = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
LISTS = [[float(str(x)) for x in row] for row in X]
ROWS = [{"id": i, "embedding": LISTS[i]} for i in range(N)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
WORDS = ["the", ",", ". . .", "1999"] + [f"w{i}" for i in range(4, N)]
INTS = list(range(N))

TEXTS: dict[str, tuple[str, Any, dict[str, Any]]] = {  # name: (content, ids, options)
    "array.json": (json.dumps(ROWS), INTS, {}),
    "pretty.json": (json.dumps(ROWS, indent=1), INTS, {}),
    "brackets.json": (json.dumps([row | {"t": 'a ] } \\ " ['} for row in ROWS]), INTS, {}),
    "vectors.json": (json.dumps(LISTS), None, {}),
    "vectors.jsonl": ("".join(json.dumps(row) + "\n" for row in LISTS), None, {}),
    "openai.json": (
        json.dumps({"object": "list", "data": [{"index": i, "embedding": LISTS[i]} for i in INTS], "usage": {"n": 1}}),
        INTS,
        {"id_column": "index"},
    ),
    "openai-pretty.json": (
        json.dumps({"object": "list", "data": [{"index": i, "embedding": LISTS[i]} for i in INTS]}, indent=2),
        None,
        {},
    ),
    "points.json": (
        json.dumps({"result": {"points": [{"id": i, "vector": LISTS[i], "payload": {}} for i in INTS]}, "ok": True}),
        INTS,
        {},
    ),
    "savetxt.txt": ("".join(" ".join(f"{x:.18e}" for x in row) + "\n" for row in LISTS), None, {}),
    "columns.json": (json.dumps({"ids": [f"d{i}" for i in INTS], "embeddings": LISTS}), [f"d{i}" for i in INTS], {}),
    "batch.jsonl": (
        "".join(
            json.dumps(
                {
                    "id": f"b{i}",
                    "custom_id": f"doc{i}",
                    "response": {"status_code": 200, "body": {"data": [{"index": 0, "embedding": LISTS[i]}]}},
                    "error": None,
                }
            )
            + "\n"
            for i in INTS
        ),
        [f"doc{i}" for i in INTS],
        {"vector_column": "response.body.data.0.embedding", "id_column": "custom_id"},
    ),
    "spelled.jsonl": ("".join(json.dumps({"id": i, "embedding": str(LISTS[i])}) + "\n" for i in INTS), INTS, {}),
    "whole-floats.jsonl": ("".join(json.dumps({"id": float(i), "v": LISTS[i]}) + "\n" for i in INTS), INTS, {}),
    "numpy2.csv": ("id,embedding\n" + "".join(f'{i},"{[np.float32(x) for x in X[i]]}"\n' for i in INTS), INTS, {}),
    "repr.csv": ("id,embedding\n" + "".join(f'{i},"array({LISTS[i]}, dtype=float32)"\n' for i in INTS), INTS, {}),
    "postgres.csv": (
        "id,embedding\n" + "".join(f'{i},"{{{",".join(map(str, LISTS[i]))}}}"\n' for i in INTS),
        INTS,
        {},
    ),
    "wide.csv": (
        "id," + ",".join(f"f{j}" for j in range(DIM)) + "\n"
        + "".join(f"{i}," + ",".join(map(str, LISTS[i])) + "\n" for i in INTS),
        INTS,
        {},
    ),
    "pandas.csv": (
        "," + ",".join(map(str, range(DIM))) + "\n"
        + "".join(f"{i}," + ",".join(map(str, LISTS[i])) + "\n" for i in INTS),
        INTS,
        {},
    ),
    "no-header.csv": ("".join(",".join(map(str, row)) + "\n" for row in LISTS), None, {}),
    "pipes.csv": ("id|text|embedding\n" + "".join(f"{i}|t|{LISTS[i]}\n" for i in INTS), INTS, {}),
    "mac.csv": ("id,text,embedding\r" + "".join(f'{i},t,"{LISTS[i]}"\r' for i in INTS), INTS, {}),
    "index.csv": (",embedding\n" + "".join(f'k{i},"{LISTS[i]}"\n' for i in INTS), [f"k{i}" for i in INTS], {}),
    "floats.csv": ("id,embedding\n" + "".join(f'{i}.0,"{LISTS[i]}"\n' for i in INTS), INTS, {}),
    "glove.txt": ("".join(f"{WORDS[i]} " + " ".join(map(str, LISTS[i])) + "\n" for i in INTS), WORDS, {}),
    "word2vec.vec": (
        f"{N} {DIM}\n" + "".join(f"{WORDS[i]} " + " ".join(map(str, LISTS[i])) + " \n" for i in INTS),
        WORDS,
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_read(name: str, tmp_path: Path) -> None:
    content, ids, options = TEXTS[name]
    (tmp_path / name).write_bytes(content.encode())
    with open_vectors(tmp_path / name, **options) as source:
        assert np.array_equal(source[:], X)
        assert source.ids() == ids
        assert np.array_equal(source[7:9], X[7:9]) and (ids is None or source.ids(7, 9) == ids[7:9])


def test_a_document_that_is_called_lines_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(json.dumps(ROWS))
    with open_vectors(tmp_path / "x", format="jsonl") as source:
        assert np.array_equal(source[:], X)


def test_what_is_left_of_nested_values_are_fields(tmp_path: Path) -> None:
    (tmp_path / "batch.jsonl").write_text(TEXTS["batch.jsonl"][0])
    with open_vectors(tmp_path / "batch.jsonl") as source:  # the only list of numbers is found
        assert np.array_equal(source[:], X)
        body = {"data": [{"index": 0}]}
        [fields] = source.fields(3, 4) or []
        assert fields == {"custom_id": "doc3", "response": {"status_code": 200, "body": body}, "error": None}


def test_columns_choose_the_fields(tmp_path: Path) -> None:
    row = {"id": 1, "embedding": [1, 2], "a": 1, "b": 2}
    (tmp_path / "x.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"id": 2, "c": 3}) + "\n")
    with open_vectors(tmp_path / "x.jsonl", columns=["a", "c"]) as source:
        assert source.fields() == [{"a": 1}, {"a": 1, "c": 3}]
    with pytest.raises(NotFound, match="no column 'd' that can be a field"):
        open_vectors(tmp_path / "x.jsonl", columns=["d"])
    with open_vectors(tmp_path / "x.jsonl", new_ids=True, columns=[]) as source:
        assert source.ids() is None and source.fields() in (None, [{}, {}])


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_is_packed_is_unpacked(suffix: str, tmp_path: Path) -> None:
    packed = PACKERS[suffix](LINES.encode())
    (tmp_path / f"x.jsonl.{suffix}").write_bytes(packed)
    with open_vectors(tmp_path / f"x.jsonl.{suffix}") as source:
        assert np.array_equal(source[:], X) and source.path.endswith(suffix)
    (tmp_path / f"cut.jsonl.{suffix}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(Corruption, match=f"cut.jsonl.{suffix}"):
        open_vectors(tmp_path / f"cut.jsonl.{suffix}")


def test_a_zip_of_one_file_is_unpacked_and_one_of_several_is_told(tmp_path: Path) -> None:
    for names in (["x.jsonl"], ["a.jsonl", "b.jsonl"]):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name in names:
                archive.writestr(name, LINES)
        if len(names) == 1:
            with open_vectors(tmp_path / "x.zip") as source:
                assert np.array_equal(source[:], X)
        else:
            with pytest.raises(InvalidArgument, match="zip of 2 files"):
                open_vectors(tmp_path / "x.zip")


def test_a_pipe_is_read_and_a_directory_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text(LINES), daemon=True)
    writer.start()
    with open_vectors(tmp_path / "pipe") as source:
        assert np.array_equal(source[:], X)
    writer.join(60)
    with pytest.raises(InvalidArgument, match="is a directory"):
        open_vectors(tmp_path)


def test_other_encodings(tmp_path: Path) -> None:
    text = "id\tt\tembedding\r\n" + "".join(f"{i}\tcafé\t{LISTS[i]}\r\n" for i in INTS)
    (tmp_path / "utf16.csv").write_text(text, encoding="utf-16")
    (tmp_path / "latin1.csv").write_text(text, encoding="latin-1")
    for name, options in (("utf16.csv", {}), ("latin1.csv", {"encoding": "latin-1"})):
        with open_vectors(tmp_path / name, **options) as source:  # type: ignore[arg-type]
            assert np.array_equal(source[:], X) and source.fields(0, 1) == [{"t": "café"}]
    with pytest.raises(Corruption, match=r"latin1\.csv: line 2 .* is not UTF-8: say what it is with encoding="):
        open_vectors(tmp_path / "latin1.csv")
    with pytest.raises(InvalidArgument, match="encoding 'klingon' is unknown"):
        open_vectors(tmp_path / "latin1.csv", encoding="klingon")


def test_several_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    for at in range(3):
        part = [ROWS[i] for i in range(at, N, 3)]
        (tmp_path / f"part-{9 + at}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    order = [i for at in range(3) for i in range(at, N, 3)]
    with open_vectors(tmp_path / "part-*.jsonl") as source:  # 9 before 10
        assert source.shape == (N, DIM) and source.ids() == order
        assert np.array_equal(source[5:15], X[order[5:15]]) and source.ids(5, 15) == order[5:15]
        assert source.place(7) == f"{tmp_path / 'part-10.jsonl'}: line 1: row 0"
    np.save(tmp_path / "wide.npy", np.ones((2, DIM + 1), np.float32))
    np.save(tmp_path / "same.npy", np.ones((2, DIM), np.float32))
    for names, said in ((["wide.npy", "same.npy"], "has dim 8"), (["part-9.jsonl", "same.npy"], "has none")):
        with pytest.raises(InvalidArgument, match=said):
            open_vectors([tmp_path / name for name in names])
    with pytest.raises(NotFound, match="no file matches"):
        open_vectors(tmp_path / "none-*.npy")


def test_named_arrays(tmp_path: Path) -> None:
    ids = [f"k{i}" for i in INTS]
    np.savez(tmp_path / "one.npz", vectors=X)
    np.savez_compressed(tmp_path / "two.npz", a=X + 1, b=X, ids=np.array(ids))
    head = {"emb": {"dtype": "F32", "shape": [N, DIM], "data_offsets": [0, 4 * N * DIM]}, "__metadata__": {"a": "b"}}
    raw = json.dumps(head).encode()
    (tmp_path / "x.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + X.tobytes())
    halves = (X.view("u4") >> 16).astype("<u2")
    head = {"emb": {"dtype": "BF16", "shape": [N, DIM], "data_offsets": [0, 2 * N * DIM]}}
    raw = json.dumps(head).encode()
    (tmp_path / "half.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + halves.tobytes())
    for name in ("one.npz", "x.safetensors"):
        with open_vectors(tmp_path / name) as source:
            assert np.array_equal(source[:], X) and source.ids() is None
    with open_vectors(tmp_path / "two.npz", key="b") as source:
        assert np.array_equal(source[:], X) and source.ids() == ids
    with pytest.raises(InvalidArgument, match=r"key=.*'a', 'b'"):
        open_vectors(tmp_path / "two.npz")
    with open_vectors(tmp_path / "half.safetensors") as source:
        assert np.array_equal(source[:], (halves.astype("u4") << 16).view("f4"))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-5])
    with pytest.raises(Corruption, match=r"cut\.safetensors"):
        open_vectors(tmp_path / "cut.safetensors")
    np.savez(tmp_path / "objects.npz", vectors=np.array([[1.0], None], dtype=object))
    with pytest.raises(InvalidArgument):
        open_vectors(tmp_path / "objects.npz")


def test_hdf5_at_any_path_with_ids_beside_and_its_metric(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data/embeddings"], file["data/names"] = X, [f"k{i}" for i in INTS]
        file["test"] = X[:3]
        file.attrs["distance"] = "euclidean"
    for key in ("data/embeddings", "/data/embeddings"):
        with open_vectors(tmp_path / "x.h5", key=key, id_column="data/names") as source:
            assert np.array_equal(source[:], X) and source.ids(3, 5) == ["k3", "k4"] and source.metric == "l2"
    with h5py.File(tmp_path / "x.h5", "a") as file:
        file["data/id"] = INTS
    with open_vectors(tmp_path / "x.h5") as source:
        assert source.ids() == INTS
    with pytest.raises(NotFound, match="no array 'none' that can be the ids"):
        open_vectors(tmp_path / "x.h5", id_column="none")


def test_binary_word2vec(tmp_path: Path) -> None:
    for end in (b"\n", b""):
        words = b"".join(f"w{i} ".encode() + X[i].astype("<f4").tobytes() + end for i in INTS)
        (tmp_path / "w.bin").write_bytes(f"{N} {DIM}\n".encode() + words)
        with open_vectors(tmp_path / "w.bin") as source:
            assert np.array_equal(source[3:], X[3:]) and source.ids() == [f"w{i}" for i in INTS]
    (tmp_path / "w.bin").write_bytes((tmp_path / "w.bin").read_bytes()[:-5])
    with pytest.raises(Corruption, match="truncated"):
        open_vectors(tmp_path / "w.bin")


def _arrow() -> tuple[Any, Any]:
    return pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


def test_arrow_files_streams_and_feather(tmp_path: Path) -> None:
    pa, _ = _arrow()
    feather = pytest.importorskip("pyarrow.feather")
    table = pa.table({"id": INTS, "embedding": LISTS, "t": ["x"] * N})
    feather.write_feather(table, tmp_path / "x.feather")
    feather.write_feather(table, tmp_path / "small.feather", chunksize=3, compression="zstd")
    for name, opened in (("x.arrow", pa.ipc.new_file), ("x.arrows", pa.ipc.new_stream)):
        with opened(tmp_path / name, table.schema) as out:
            out.write_table(table, max_chunksize=6)
    for name in ("x.feather", "small.feather", "x.arrow", "x.arrows"):
        with open_vectors(tmp_path / name) as source:
            assert np.allclose(source[:], X) and source.ids() == INTS
            for a, b in ((11, 17), (2, 7), (7, 20)):
                assert source.ids(a, b) == INTS[a:b] and np.allclose(source[a:b], X[a:b])
            assert source.fields(4, 5) == [{"t": "x"}]


def test_vectors_of_other_layouts_in_parquet(tmp_path: Path) -> None:
    pa, parquet = _arrow()
    path = tmp_path / "x.parquet"
    columns = {
        "bytes": [row.tobytes() for row in X],
        "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(X),
        "text": [str(row) for row in LISTS],
    }
    for values in columns.values():
        parquet.write_table(pa.table({"id": INTS, "embedding": values}), path, row_group_size=7)
        with open_vectors(path) as source:
            assert np.array_equal(source[:], X) and source.ids() == INTS and source.fields() is None
    parquet.write_table(pa.table({"id": INTS, "emb": [{"dense": row, "n": 1} for row in LISTS]}), path)
    with open_vectors(path) as source:
        assert source.vector_column == "emb.dense" and np.allclose(source[:], X)  # type: ignore[attr-defined]
    parquet.write_table(pa.table({"id": INTS} | {f"f{j}": X[:, j] for j in range(DIM)} | {"t": ["x"] * N}), path)
    with open_vectors(path, vector_column="f*") as source:
        assert np.array_equal(source[:], X) and source.fields(0, 1) == [{"t": "x"}]


def test_ids_of_other_types(tmp_path: Path) -> None:
    pa, parquet = _arrow()
    names = [uuid.UUID(int=10**30 + i) for i in INTS]
    path = tmp_path / "x.parquet"
    for column, ids in (
        (pa.array([float(100 + i) for i in INTS]), [100 + i for i in INTS]),
        (pa.array([f"s{i}" for i in INTS], pa.string_view()), [f"s{i}" for i in INTS]),
        (pa.array([one.bytes for one in names], pa.binary(16)), list(map(str, names))),
        (pa.array([one.bytes for one in names], pa.uuid()), list(map(str, names))),
        (pa.array([decimal.Decimal(i) for i in INTS], pa.decimal128(38, 0)), INTS),
    ):
        parquet.write_table(pa.table({"id": column, "embedding": LISTS}), path)
        with open_vectors(path) as source:
            assert source.ids() == ids, column.type
    for column, said in (
        (pa.array([b"k%d" % i for i in INTS]), "column 'id' cannot be the id: it is binary"),
        (pa.array([[i] for i in INTS]), "column 'id' cannot be the id"),
        (pa.array([i / 2 for i in INTS]), "row 1: its id 0.5 is no whole number"),
        (pa.array([None, *INTS[1:]]), "row 0 has no id in column 'id'"),
    ):
        parquet.write_table(pa.table({"id": column, "embedding": LISTS}), path)
        with pytest.raises(InvalidArgument, match=said):
            open_vectors(path, vector_column="embedding").ids()
        with open_vectors(path, vector_column="embedding", new_ids=True) as source:
            assert source.ids() is None and (source.fields() or [{}])[0].keys() == {"id"}


def test_the_index_of_pandas_is_the_id(tmp_path: Path) -> None:
    _arrow()
    pd = pytest.importorskip("pandas")
    for named in (None, "word"):
        frame = pd.DataFrame({"embedding": LISTS, "t": "x"}, index=pd.Index([f"d{i}" for i in INTS], name=named))
        frame.to_parquet(tmp_path / "x.parquet")
        with open_vectors(tmp_path / "x.parquet") as source:
            assert source.ids() == [f"d{i}" for i in INTS] and source.fields(0, 1) == [{"t": "x"}]


def test_fields_of_kinds_that_records_do_not_have(tmp_path: Path) -> None:
    pa, parquet = _arrow()
    columns = {
        "price": pa.array([decimal.Decimal("1.50")] * N),
        "at": pa.array([dt.time(1)] * N),
        "took": pa.array([dt.timedelta(seconds=90)] * N),
        "big": pa.array([2**64 - 1] * N, pa.uint64()),
        "nested": pa.array([{"p": [decimal.Decimal("2.5")]}] * N),
        "when": pa.array([1_700_000_000_123_456_789] * N, pa.timestamp("ns")),
    }
    parquet.write_table(pa.table({"id": INTS, "embedding": LISTS} | columns), tmp_path / "x.parquet")
    with open_vectors(tmp_path / "x.parquet") as source:
        assert source.fields(0, 1) == [
            {
                "price": "1.50",
                "at": "01:00:00",
                "took": 90.0,
                "big": str(2**64 - 1),
                "nested": {"p": ["2.5"]},
                "when": dt.datetime(2023, 11, 14, 22, 13, 20, 123456),
            }
        ]
    array = pa.Table.from_arrays([pa.array(LISTS), pa.array(INTS), pa.array(INTS)], ["v", "a", "a"])
    with pa.OSFile(str(tmp_path / "twice.arrow"), "wb") as sink, pa.ipc.new_file(sink, array.schema) as out:
        out.write_table(array)
    with pytest.raises(InvalidArgument, match="two columns share a name"):
        open_vectors(tmp_path / "twice.arrow")


def test_every_row_of_jsonl_has_its_own_fields_and_id(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": 0, "embedding": [1, 0.5]}, {"id": 1, "embedding": [1, 1], "title": "t"}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open_vectors(tmp_path / "x.jsonl") as source:
        assert source.fields() == [{}, {"title": "t"}] and source.field_columns == ["title"]  # type: ignore[attr-defined]
    del rows[0]["id"]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows * 700))
    source = open_vectors(tmp_path / "x.jsonl")
    with pytest.raises(InvalidArgument, match=r"x\.jsonl: line 1: row 0 has no id 'id'"):
        source.ids()
    with pytest.raises(InvalidArgument, match=r"line 1399: row 1398 has no id"):
        source.ids(1398)
    (tmp_path / "x.jsonl").write_text('{"id": 1, "v": [1, 2]}\n{"id": "a", "v": [1, 2]}\n')
    with pytest.raises(InvalidArgument, match="line 2: row 1: its id 'a' is text, those before are numbers"):
        open_vectors(tmp_path / "x.jsonl")[:]


def test_numbers_that_numpy_left_out_are_told(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('id,embedding\n1,"[0.1 0.2 ... 0.9]"\n')
    with pytest.raises(InvalidArgument, match=r"line 2: row 0: the vector is cut by '\.\.\.'"):
        open_vectors(tmp_path / "x.csv")[:]


def test_a_document_that_is_cut_off_or_has_no_rows_is_told(tmp_path: Path) -> None:
    for content, error, said in (
        (json.dumps(ROWS)[:-30], Corruption, "ends in the middle, after 19 whole rows"),
        ("[{]}", Corruption, "closes nothing"),
        ('{\n"a": 1\n}', InvalidArgument, "without rows"),
        ('{"a": [{"v": [1, 2]}], "b": [{"v": [1, 2]}]}', InvalidArgument, "2 arrays of objects"),
    ):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(error, match=said):
            open_vectors(tmp_path / "x.json")


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "npy"])
def test_rows_that_cannot_be_read_are_told_one_by_one(suffix: str, tmp_path: Path) -> None:
    bad = {3, 11}
    if suffix == "npy":
        block = X.copy()
        block[sorted(bad), 2] = np.nan
        np.save(tmp_path / "x.npy", block)
    elif suffix == "jsonl":
        lines = LINES.splitlines()
        lines[3], lines[11] = '{"id": 3, "emb', '{"id": 11, "embedding": [1, 2]}'
        (tmp_path / "x.jsonl").write_text("\n".join(lines))
    elif suffix == "csv":
        rows = [f'{i},"{LISTS[i]}"' for i in INTS]
        rows[3], rows[11] = '3,"[0.1]",more', f',"{LISTS[11]}"'
        (tmp_path / "x.csv").write_text("id,embedding\n" + "\n".join(rows) + "\n")
    else:
        pa, parquet = _arrow()
        values: list[Any] = [*LISTS]
        values[3], values[11] = None, [1.0, None, *LISTS[11][2:]]
        parquet.write_table(pa.table({"id": INTS, "embedding": values}), tmp_path / "x.parquet")
    with open_vectors(tmp_path / f"x.{suffix}", lenient=True) as source:
        found = source.bad_rows()
        assert set(found) == bad and list(source.bad_rows(5)) == [11]
        good = [i for i in INTS if i not in bad]
        assert (np.allclose(source[:][good], X[good]) and not source[:][sorted(bad)].any()) or suffix == "csv"
    with pytest.raises((InvalidArgument, Corruption), match="3"):
        open_vectors(tmp_path / f"x.{suffix}")[:]
