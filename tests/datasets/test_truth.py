"""Exact ground truth against a naive float64 brute force, its cache, and recall by hand-counted cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb_datasets.truth as truth_module
from vecdb.errors import InvalidArgument
from vecdb.schema import Metric
from vecdb_datasets import content_digest, exact_truth, open_vectors, recall, recall_per_query, write_vectors

METRICS: tuple[Metric, ...] = ("l2", "cosine", "ip")


def naive(base: np.ndarray, queries: np.ndarray, metric: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """One query and one row at a time, in float64; k rows by (distance, row)."""
    rows, distances = [], []
    b = base.astype(np.float64)
    for q in queries.astype(np.float64):
        if metric == "l2":
            d = np.array([np.einsum("i,i", x - q, x - q) for x in b])
        elif metric == "ip":
            d = np.array([-np.einsum("i,i", q, x) for x in b])
        else:
            d = np.array(
                [
                    1 - np.einsum("i,i", q, x) / np.sqrt(np.einsum("i,i", q, q)) / np.sqrt(np.einsum("i,i", x, x))
                    for x in b
                ]
            )
        order = np.lexsort((np.arange(len(b)), d))[:k]
        rows.append(order)
        distances.append(d[order])
    return np.array(rows), np.array(distances)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth_module, "block_cells", 700)
    monkeypatch.setattr(truth_module, "query_rows", 8)
    monkeypatch.setattr(truth_module, "pair_cells", 300)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int8"])
def test_truth_is_that_of_a_naive_search(metric: Metric, dtype: str) -> None:
    rng = np.random.default_rng(11)
    base, queries = (rng.standard_normal((n, 13)) * 20 + 3 for n in (900, 19))
    if dtype == "uint8":
        base, queries = np.abs(base), np.abs(queries)
    base, queries = base.astype(dtype), queries.astype(dtype)
    base[base.any(axis=1) == 0] = 1
    queries[queries.any(axis=1) == 0] = 1
    base[400:430] = base[10]  # exact ties
    rows, distances = naive(base, queries, metric, 50)
    found = exact_truth(base, queries, metric, 50, cache=False)
    assert found.ids.dtype == np.int64 and found.distances.dtype == np.float32
    assert np.allclose(found.distances, distances, rtol=1e-6, atol=1e-6)
    differ = found.ids != rows  # float64 sums in another order may swap what ties to the last bit under cosine
    assert not differ.any() if metric != "cosine" else differ.mean() < 0.02


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("offset", "scale"), [(1e4, 1.0), (0.0, 1e-25), (0.0, 1e25), (1.0, 1e-6)])
def test_distances_that_float32_cannot_tell_apart_are_ranked_in_float64(
    metric: Metric, offset: float, scale: float
) -> None:
    rng = np.random.default_rng(12)
    base, queries = ((rng.standard_normal((n, 8)) * scale + offset).astype(np.float32) for n in (600, 9))
    rows, _ = naive(base, queries, metric, 20)
    found = exact_truth(base, queries, metric, 20, cache=False)
    assert (found.ids != rows).mean() <= (0.01 if metric == "cosine" else 0.0)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.integers(-3, 3), min_size=2, max_size=2), min_size=1, max_size=40),
    k=st.integers(1, 12),
    metric=st.sampled_from(["l2", "ip"]),
    cells=st.integers(1, 64),
)
def test_ties_go_to_the_lower_row_whatever_the_blocks(
    values: list[list[int]], k: int, metric: Metric, cells: int
) -> None:
    base = np.array(values, np.float32)
    before = truth_module.block_cells
    truth_module.block_cells = cells
    try:
        found = exact_truth(base, base[:3], metric, k, cache=False)
    finally:
        truth_module.block_cells = before
    rows, distances = naive(base, base[:3], metric, k)
    have = min(k, len(base))
    assert np.array_equal(found.ids[:, :have], rows) and np.array_equal(found.distances[:, :have], distances)
    assert (found.ids[:, have:] == -1).all() and np.isinf(found.distances[:, have:]).all()


def test_a_base_of_equal_rows_is_all_ties() -> None:
    found = exact_truth(np.ones((5_000, 4), np.float32), np.ones((2, 4), np.float32), "l2", 10, cache=False)
    assert found.ids.tolist() == [list(range(10))] * 2


def test_wrong_values_are_refused() -> None:
    good = np.ones((5, 4), np.float32)
    bad = good.copy()
    bad[3, 1] = np.nan
    for base, queries, metric, k, said in (
        (good, good, "l1", 3, "metric"),
        (good, good, "l2", 0, "k=0"),
        (good, good[:, :3], "l2", 3, r"\(nq, 4\)"),
        (bad, good, "l2", 3, "base row 3"),
        (good, bad, "ip", 3, "queries row 3"),
        (np.zeros((2, 4), np.float32), good, "cosine", 1, "zero vector"),
    ):
        with pytest.raises(InvalidArgument, match=said):
            exact_truth(base, queries, metric, k, cache=False)  # type: ignore[arg-type]


def test_a_second_call_reads_the_cache_and_a_damaged_file_is_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = np.random.default_rng(1).standard_normal((300, 6)).astype(np.float32)
    first = exact_truth(base, base[:5], "l2", 4, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    compute = truth_module._compute
    calls: list[int] = []
    monkeypatch.setattr(truth_module, "_compute", lambda *a: calls.append(1) or compute(*a))
    again = exact_truth(base, base[:5], "l2", 4, cache=tmp_path)
    assert not calls and np.array_equal(again.ids, first.ids) and np.array_equal(again.distances, first.distances)
    flipped = bytearray(whole)
    flipped[60] ^= 1
    for damage in (whole[:-1], bytes(flipped), whole[:8] + b"\xff" + whole[9:], b""):
        file.write_bytes(damage)
        calls.clear()
        again = exact_truth(base, base[:5], "l2", 4, cache=tmp_path)
        assert calls and np.array_equal(again.ids, first.ids) and file.read_bytes() == whole


def test_what_zero_vectors_are_is_part_of_what_the_cache_is_asked(tmp_path: Path) -> None:
    base = np.zeros((4, 3), np.float32)
    base[1:] = np.eye(3)
    assert exact_truth(base, base[1:], "cosine", 4, cache=tmp_path, zero_vectors="far").ids[0, 0] == 1
    for _ in range(2):
        with pytest.raises(InvalidArgument, match="zero vector"):
            exact_truth(base, base[1:], "cosine", 4, cache=tmp_path)


def test_the_cache_lives_where_xdg_says_and_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = np.eye(4, dtype=np.float32)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    exact_truth(base, base, "ip", 2)
    assert len(list((tmp_path / "vecdb" / "truth").iterdir())) == 1
    (tmp_path / "file").write_text("")
    assert exact_truth(base, base, "ip", 2, cache=tmp_path / "file").ids.shape == (4, 2)


def test_every_part_of_the_question_changes_the_digest_and_the_kind_of_source_does_not(tmp_path: Path) -> None:
    base = np.arange(40, dtype=np.float32).reshape(10, 4)
    changed = base.copy()
    changed[9, 3] += 1
    keys = {
        content_digest(base, base[:2], "l2", 3),
        content_digest(changed, base[:2], "l2", 3),
        content_digest(base, base[1:3], "l2", 3),
        content_digest(base, base[:2], "ip", 3),
        content_digest(base, base[:2], "l2", 4),
        content_digest(base.view(np.int32), base[:2], "l2", 3),
    }
    assert len(keys) == 6
    write_vectors(tmp_path / "a.fvecs", base)
    with open_vectors(tmp_path / "a.fvecs") as source:
        assert content_digest(source, base[:2], "l2", 3) in keys
        assert np.array_equal(
            exact_truth(source, base[:2], "l2", 3, cache=False).ids,
            exact_truth(base, base[:2], "l2", 3, cache=False).ids,
        )


def test_recall_counts_by_hand() -> None:
    ids = np.array([[1, 2, 3, 4]])
    distances = np.array([[0.1, 0.2, 0.2, 0.9]], np.float32)
    for found, k, expected in (
        ([1, 2], 2, 1.0),
        ([1, 3], 2, 1.0),  # 3 ties with 2 at the second distance
        ([3, 2], 2, 1.0),
        ([1, 4], 2, 0.5),
        ([1], 2, 0.5),  # short answers count against
        ([], 2, 0.0),
        ([1, 1], 2, 0.5),  # the same record twice is one
        ([9, 9, 1, 2], 2, 0.0),  # only the first k count
        ([-1, -1], 2, 0.0),
    ):
        assert recall([found], ids, distances, k) == expected, (found, k)


def test_recall_divides_by_the_matches_there_are() -> None:
    ids, distances = np.array([[5, -1, -1], [1, 2, 3]]), np.array([[0.5, np.inf, np.inf], [1, 2, 3]], np.float32)
    found = np.array([[5, -1, -1], [1, 2, 9]])
    assert recall_per_query(found, ids, distances, 3).tolist() == [1.0, pytest.approx(2 / 3)]
    assert recall([["a"]], np.array([["a", "b"]], object), np.array([[1.0, 2.0]]), 1) == 1.0


def test_recall_deeper_than_the_truth_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="recall@10"):
        recall([[1]], np.array([[1]]), np.array([[0.0]]), 10)
    with pytest.raises(InvalidArgument, match="expected one per query"):
        recall([[1], [2]], np.array([[1]]), np.array([[0.0]]), 1)
