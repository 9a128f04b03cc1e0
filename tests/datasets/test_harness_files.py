"""Goal: files for other programs hold the rows, the queries and the truth of a data set, under the names that each of
them has for the distance. Oracle: numpy.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from vecdb_datasets import (
    Csr,
    Dataset,
    Truth,
    exact_truth,
    export_ann_benchmarks,
    export_big_ann,
    export_vectordbbench,
    export_vibe,
    load,
    load_ann_benchmarks,
    open_vectors,
    read_range_truth,
    read_spmat,
    read_truth_file,
    shuffled,
    write_spmat,
)

N, NQ, DIM, K = 400, 12, 16, 7


def made(metric: Any, unit: bool = False, **more: Any) -> Dataset:
    rng = np.random.default_rng(9)
    base, queries = rng.normal(size=(N, DIM)).astype(np.float32), rng.normal(size=(NQ, DIM)).astype(np.float32)
    if unit:
        base, queries = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (base, queries))
    return Dataset("made", base, queries, metric, **more)


def distances(data: Dataset, rows: np.ndarray, distance: str) -> np.ndarray:
    a, b = data.base.astype(np.float64)[rows], data.queries.astype(np.float64)[:, None]
    if distance == "euclidean":
        return np.sqrt(((a - b) ** 2).sum(axis=2))
    products = (a * b).sum(axis=2)
    if distance == "ip":
        return -products
    return 1 - products / np.linalg.norm(a, axis=2) / np.linalg.norm(b, axis=2)


@pytest.mark.parametrize(
    ("metric", "unit", "distance"),
    [
        ("l2", False, "euclidean"),
        ("cosine", False, "cosine"),
        ("cosine", True, "normalized"),
        ("ip", True, "normalized"),
        ("ip", False, "ip"),
    ],
)
def test_a_file_of_vibe_says_its_distance_and_loads_back(
    tmp_path: Path, metric: str, unit: bool, distance: str
) -> None:
    h5py = pytest.importorskip("h5py")
    data = made(metric, unit)
    export_vibe(data, tmp_path / "made.hdf5", k=K)
    with h5py.File(tmp_path / "made.hdf5") as file:
        assert dict(file.attrs) == {"distance": distance, "dimension": DIM, "point_type": "float"}
        rows, told = np.asarray(file["neighbors"]), np.asarray(file["distances"])
    np.testing.assert_allclose(told, distances(data, rows, distance), atol=1e-5)
    assert (np.diff(told, axis=1) >= -1e-6).all() and (rows == data.truth_for(K).ids).all()
    back = load_ann_benchmarks(tmp_path / "made.hdf5")
    assert back.metric == ("cosine" if distance == "normalized" else metric) and back.truth is not None
    assert (back.truth.ids == rows).all() and (back.base == data.base).all()


def test_queries_are_checked_as_rows_are(tmp_path: Path) -> None:
    """Their distances would be 1 minus a product of another length, which is no cosine."""
    data = made("ip", unit=True)
    long = Dataset("long", data.base, 2 * data.queries, "ip")
    with pytest.raises(vecdb.InvalidArgument, match="query 0 is not of unit norm"):
        export_ann_benchmarks(long, tmp_path / "made.hdf5", k=K)
    export_vibe(long, tmp_path / "made.hdf5", k=K)
    assert load_ann_benchmarks(tmp_path / "made.hdf5").metric == "ip"


def test_shuffled_queries_keep_what_belongs_to_them() -> None:
    lines = [[i % 4] * (i % 3) for i in range(NQ)]
    extras = {
        "tag_names": list("abcd"), "query_tags_indptr": np.cumsum([0] + [len(line) for line in lines]),
        "query_tags_indices": np.array([tag for line in lines for tag in line]), "query_rows": np.arange(NQ) + 50,
    }  # fmt: skip
    data = made("l2", extras=extras)
    data = Dataset(data.name, data.base, data.queries, data.metric, data.truth_for(K), extras=extras)
    other, same = shuffled(data, 3), shuffled(data, 3)
    assert (other.queries == same.queries).all() and (other.queries != data.queries).any()
    order = [int(np.flatnonzero((data.queries == one).all(axis=1))[0]) for one in other.queries]
    assert sorted(order) == list(range(NQ)) and (shuffled(data, 4).queries != other.queries).any()
    assert other.truth is not None and data.truth is not None and (other.truth.ids == data.truth.ids[order]).all()
    ends, tags = other.extras["query_tags_indptr"], other.extras["query_tags_indices"]
    assert [tags[a:b].tolist() for a, b in pairwise(ends)] == [lines[i] for i in order]
    assert (other.extras["query_rows"] == np.array(order) + 50).all()


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_a_folder_of_big_ann_holds_what_the_set_holds(tmp_path: Path, dtype: str) -> None:
    data = made("l2")
    base, queries = (np.abs(10 * one).astype(dtype) for one in (data.base, data.queries))
    tags = {"tag_names": ["x", "y", "z"], "tags_indptr": np.arange(N + 1), "tags_indices": np.arange(N) % 3}
    data = Dataset("made", base, queries, "l2", extras=tags)
    export_big_ann(data, tmp_path / "out", k=K)
    suffix = "u8bin" if dtype == "uint8" else "fbin"
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(
        [f"base.{suffix}", f"query.{suffix}", "truth7.bin", "base.tags.spmat"]
    )
    with open_vectors(tmp_path / "out" / f"base.{suffix}") as source:
        assert (source[:] == base).all()
    truth = read_truth_file(tmp_path / "out" / "truth7.bin")
    assert (truth.ids == data.truth_for(K).ids).all()
    matrix = read_spmat(tmp_path / "out" / "base.tags.spmat")
    assert matrix.columns == 3 and (matrix.indices == tags["tags_indices"]).all()
    with pytest.raises(vecdb.AlreadyExists):
        export_big_ann(data, tmp_path / "out", k=K)


def test_a_folder_of_vectordbbench_has_labels_and_the_truth_of_each_filter(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    data = made("cosine")
    export_vectordbbench(data, tmp_path / "out", k=K, shares=(0.25, 0.005, 0.29), cuts=(0.25, 0.58, 0.995))

    def column(file: str, name: str) -> list[Any]:
        found: list[Any] = parquet.read_table(tmp_path / "out" / file).column(name).to_pylist()
        return found

    np.testing.assert_array_equal(np.array(column("train.parquet", "emb"), np.float32), data.base)
    assert column("train.parquet", "id") == list(range(N)) and column("test.parquet", "id") == list(range(NQ))
    assert column("neighbors.parquet", "neighbors_id") == data.truth_for(K).ids.tolist()
    labels = np.array(column("scalar_labels.parquet", "labels"))
    # 100 * 0.29 and 100 * 0.58 are a little below 29 and 58, and VectorDBBench cuts off
    assert set(labels) <= {"label_25p", "label_0.5p", "label_28p", "label_rest"}
    assert 60 < (labels == "label_25p").sum() < 140 and 70 < (labels == "label_28p").sum() < 160
    parts = {f"labels_{label}": np.flatnonzero(labels == label) for label in ("label_25p", "label_28p")}
    parts |= {f"int_{name}": np.arange(least, N) for name, least in (("25p", 100), ("57p", 232), ("99.5p", 398))}
    for name, there in parts.items():
        true = there[np.argsort(distances(data, np.tile(there, (NQ, 1)), "cosine"), axis=1, kind="stable")[:, :K]]
        assert column(f"neighbors_{name}.parquet", "neighbors_id") == true.tolist()
    with pytest.raises(vecdb.InvalidArgument, match="shares"):
        export_vectordbbench(data, tmp_path / "other", shares=(0.7, 0.7))
    with pytest.raises(vecdb.InvalidArgument, match="cuts"):
        export_vectordbbench(data, tmp_path / "other", cuts=(0.5, 1.0))
    assert not list(tmp_path.glob("other*"))


def test_a_folder_of_vectordbbench_may_hold_zeros(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    data = made("cosine")
    data.base[3:20] = 0
    zeros = Dataset("zeros", data.base, data.queries, "cosine", zero_vectors="far")
    export_vectordbbench(zeros, tmp_path / "out", k=K)
    assert (tmp_path / "out" / "neighbors_int_1p.parquet").exists()


def test_a_sparse_matrix_and_a_range_truth_are_read_or_refused(tmp_path: Path) -> None:
    matrix = Csr(np.array([0, 2, 2, 5]), np.array([4, 0, 1, 2, 3], np.int32), 5)
    write_spmat(tmp_path / "a.spmat", matrix)
    back = read_spmat(tmp_path / "a.spmat")
    assert all((a == b).all() for a, b in zip(back[:2], matrix[:2], strict=True)) and back.columns == 5
    scipy_like = np.fromfile(tmp_path / "a.spmat", np.int64, 7)
    assert scipy_like.tolist() == [3, 5, 5, 0, 2, 2, 5]
    raw = (tmp_path / "a.spmat").read_bytes()
    for wrong in (raw[:-1], raw + b"x", b"", raw[:24] + (9).to_bytes(8, "little") + raw[32:]):
        (tmp_path / "b.spmat").write_bytes(wrong)
        with pytest.raises(vecdb.Corruption):
            read_spmat(tmp_path / "b.spmat")
    counts, rows, near = np.array([2, 0, 1], "<u4"), np.array([7, 9, 1], "<u4"), np.array([0.5, 0.75, 2], "<f4")
    whole = np.array([3, 3], "<u4").tobytes() + counts.tobytes() + rows.tobytes() + near.tobytes()
    (tmp_path / "range.bin").write_bytes(whole)
    truth = read_range_truth(tmp_path / "range.bin")
    assert truth.indptr.tolist() == [0, 2, 2, 3] and truth.rows.tolist() == [7, 9, 1] and truth.distances[2] == 2
    (tmp_path / "range.bin").write_bytes(whole[:-4])
    with pytest.raises(vecdb.Corruption):
        read_range_truth(tmp_path / "range.bin")


def test_the_truth_of_zeros_under_cosine_is_asked_for(tmp_path: Path) -> None:
    data = made("cosine")
    data.base[3:20] = 0
    data.queries[1] = 0
    with pytest.raises(vecdb.InvalidArgument, match=r'query row 1|queries row 1.*zero_vectors="far"'):
        exact_truth(data.base, data.queries, "cosine", K, cache=False)
    truth = exact_truth(data.base, data.queries, "cosine", N, cache=False, zero_vectors="far")
    with np.errstate(invalid="ignore"):
        true = np.nan_to_num(distances(data, np.tile(np.arange(N), (NQ, 1)), "cosine"), nan=1.0)
    np.testing.assert_allclose(truth.distances, np.sort(true, axis=1), atol=1e-6)
    assert truth.ids[1].tolist() == list(range(N))
    export_ann_benchmarks(
        Dataset("x", data.base, data.queries, "cosine", Truth(truth.ids, truth.distances)), tmp_path / "z.hdf5", k=K
    )
    again = load_ann_benchmarks(tmp_path / "z.hdf5")
    assert again.zero_vectors == "far" and (again.truth_for(20).ids == truth.ids[:, :20]).mean() > 0.9


@pytest.mark.parametrize("format", ["ann-benchmarks", "vibe", "big-ann", "vectordbbench"])
def test_the_command_writes_each_layout(tmp_path: Path, format: str) -> None:
    out = tmp_path / ("out.hdf5" if format in ("ann-benchmarks", "vibe") else "out")
    told = ["dataset", "export", "clustered-500x8", "--format", format, "--out", str(out), "--k", "5", "--seed", "4"]
    ran = CommandRunner().run([*told, "--json"])
    assert ran.exit_code == 0, ran.output
    assert '"bytes"' in ran.stdout and out.exists()
    if out.suffix:
        assert (load(str(out)).queries == shuffled(load("clustered-500x8"), 4).queries).all()


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_a_folder_of_ones_own_is_a_data_set_with_its_own_truth(tmp_path: Path, metric: Any) -> None:
    data, distance = made(metric), "euclidean" if metric == "l2" else metric
    folder = tmp_path / f"mine-{distance}"
    folder.mkdir()
    np.save(folder / "base.npy", data.base)
    with pytest.raises(vecdb.NotFound, match=r"query\.npy"):
        load(str(folder))
    np.save(folder / "query.npy", data.queries)
    assert load(str(folder)).truth is None and load(str(folder)).metric == metric
    np.save(folder / "truth.npy", data.truth_for(K).ids)
    back = load(str(folder))
    assert back.truth is not None and (back.truth.ids == data.truth_for(K).ids).all()
    np.testing.assert_allclose(back.truth.distances, data.truth_for(K).distances, atol=1e-6)
    np.save(folder / "truth.npy", np.full((NQ, K), N))
    with pytest.raises(vecdb.Corruption, match="below 400"):
        load(str(folder))
    folder.rename(tmp_path / "mine")
    with pytest.raises(vecdb.InvalidArgument, match="mine-euclidean"):
        load(str(tmp_path / "mine"))


def test_what_is_written_for_big_ann_is_read_as_ones_own(tmp_path: Path) -> None:
    data = made("l2")
    export_big_ann(data, tmp_path / "out-euclidean", k=K)
    back = load(str(tmp_path / "out-euclidean"))
    assert (back.base == data.base).all() and back.truth is not None
    assert (back.truth.ids == data.truth_for(K).ids).all()
