"""Exact ground truth in blocks, and recall against it.

For each (query block, base block): one float32 matrix product gives distances with a known error bound; every pair
that the bound cannot rule out is computed again in float64; the best k by (float64 distance, row) stay.

    queries [nq, dim] -+
                       +-- sgemm -> d32 [q, b] -- d32 <= kth + error --> pairs -- float64 --> merge into best [q, k]
    base [n, dim] -----+

So the answer is that of a float64 brute force, at the speed of BLAS and in bounded memory. Threads: those of BLAS.
Truth is padded to k with row -1 and distance inf when the base has fewer than k rows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import InvalidArgument, Metric

from .formats import VectorSource
from .truth_cache import TruthCache, content_digest

block_cells = 1 << 22  # float32 distances held at a time: 16 MiB
base_cells = 1 << 22  # components of one base block, held as float32 and at moments as float64
query_rows = 512
pair_cells = 1 << 21  # float64 components of one side of a batch of pairs: 16 MiB
_METRICS = ("l2", "cosine", "ip")  # of vectors of numbers
_unit_roundoff = 2.0**-24  # of float32
_smallest = 1e-300  # no norm is divided by less

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Truth:
    """The k nearest base rows of each query, nearest first, ties by row.

    ids : int64[nq, k], base rows; -1 beyond the matches.
    distances : float32[nq, k], vecdb's distances (squared L2, 1 - cosine, minus inner product); inf beyond the matches.
    """

    ids: NDArray[np.int64]
    distances: NDArray[np.float32]

    @property
    def k(self) -> int:
        return int(self.ids.shape[1])


def exact_truth(
    base: Array | VectorSource,
    queries: Array,
    metric: Metric,
    k: int = 100,
    *,
    cache: bool | str | os.PathLike[str] = True,
    zero_vectors: str = "refuse",
) -> Truth:
    """Compute, or fetch from the cache, the exact nearest neighbours.

    Parameters
    ----------
    base : [n, dim] array or VectorSource, any real dtype, finite.
    queries : [nq, dim] array.
    metric : "l2" | "cosine" | "ip"
    k : neighbours per query.
    cache : True for the user's cache folder, False for none, or a folder.
    zero_vectors : under cosine: "refuse" raises InvalidArgument, "far" takes them at distance 1 from everything.

    Returns
    -------
    Truth

    Raises
    ------
    InvalidArgument
        Unknown metric, unequal dims, k < 1, a value that is not finite, a zero vector under cosine where they are
        refused.
    """
    queries = np.asarray(queries)
    if metric not in _METRICS:
        raise InvalidArgument(f"metric {metric!r} is not one of {', '.join(_METRICS)}")
    if k < 1:
        raise InvalidArgument(f"k={k}: expected at least 1")
    if queries.ndim != 2 or queries.shape[1] != base.shape[1]:
        raise InvalidArgument(f"queries have shape {queries.shape}, expected (nq, {base.shape[1]}) as the base")
    if cache is False:
        return _compute(base, queries, metric, k, zero_vectors)
    store = TruthCache(None if cache is True else cache)
    key = content_digest(base, queries, metric, k, zero_vectors)
    found = store.get(key, len(queries), k)
    if found is not None:
        return Truth(*found)
    truth = _compute(base, queries, metric, k, zero_vectors)
    store.put(key, truth.ids, truth.distances)
    return truth


def _compute(base: Array | VectorSource, queries: Array, metric: Metric, k: int, zero_vectors: str) -> Truth:
    nq, n = len(queries), base.shape[0]
    best = np.full((nq, k), np.inf)
    rows = np.full((nq, k), -1, np.int64)
    _check(queries, metric, "queries", 0, zero_vectors)
    step = max(1, min(block_cells // min(max(nq, 1), query_rows), base_cells // max(1, base.shape[1])))
    origin = _origin(base, metric)
    for start in range(0, n, step):
        block = np.asarray(base[start : min(start + step, n)])
        _check(block, metric, "base", start, zero_vectors)
        fast = _prepare(block, metric, origin)
        for q in range(0, nq, query_rows):
            part = slice(q, q + query_rows)
            _merge(best[part], rows[part], queries[part], block, fast, start, metric, origin)
    most = float(np.finfo(np.float32).max)
    best[rows >= 0] = best[rows >= 0].clip(-most, most)  # inf means: no match
    return Truth(rows, best.astype(np.float32))


def _check(block: Array, metric: Metric, what: str, start: int, zero_vectors: str) -> None:
    if block.dtype.kind not in "fiu":
        raise InvalidArgument(f"{what} have dtype {block.dtype}, expected float or integer numbers")
    bad = ~np.isfinite(block).all(axis=1) if block.dtype.kind == "f" else np.zeros(len(block), bool)
    if bad.any():
        raise InvalidArgument(f"{what} row {start + int(bad.argmax())} is not finite; remove it")
    if metric == "cosine" and zero_vectors == "refuse" and not (some := block.any(axis=1)).all():
        raise InvalidArgument(
            f"{what} row {start + int((~some).argmax())} is a zero vector: cosine is undefined; remove it, or take it "
            'with zero_vectors="far"'
        )


def _origin(base: Array | VectorSource, metric: Metric) -> Array:
    """float64[dim] near the data: |a|^2 - 2ab + |b|^2 loses fewest digits there. Zero unless the metric is l2."""
    if metric != "l2" or not base.shape[0] or np.dtype(base.dtype).kind != "f":
        return np.zeros(base.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.mean(np.asarray(base[:1024], np.float64), axis=0)
        return np.asarray(mean.astype(np.float32), np.float64)


def _prepare(block: Array, metric: Metric, origin: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors for the matrix product: float32[rows, dim] (centred, or of unit norm), and their norms float32[rows]."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore"):
        if metric == "cosine":
            wide = block.astype(np.float64)
            wide /= np.maximum(np.sqrt(np.einsum("ij,ij->i", wide, wide)), _smallest)[:, None]  # zeros stay zeros
            vectors = wide.astype(np.float32)
        elif metric == "l2" and origin.any():
            vectors = (block - origin).astype(np.float32)
        else:
            vectors = np.ascontiguousarray(block, np.float32)
        return vectors, np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float32))


def _merge(
    best: Array,
    rows: Array,
    queries: Array,
    block: Array,
    fast: tuple[NDArray[np.float32], NDArray[np.float32]],
    start: int,
    metric: Metric,
    origin: Array,
) -> None:
    """Merge one base block into best and rows (both [q, k], changed in place)."""
    k = best.shape[1]
    vectors, norms = fast
    few, few_norms = _prepare(queries, metric, origin)
    dim = queries.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        near = -few @ vectors.T
        slack = (dim + 16) * _unit_roundoff * 2.0
        tiny = dim * 2e-38  # where float32 runs out of exponent
        if metric == "l2":
            near *= 2
            near += norms**2
            near += (few_norms**2)[:, None]
            size = (few_norms.astype(np.float64) + norms.max()) ** 2
        else:
            size = few_norms.astype(np.float64) * norms.max()
        error = np.where(size < 1e38, slack * size + tiny, np.inf)  # beyond, float32 may overflow: rule nothing out
        kth = best[:, -1] - (1.0 if metric == "cosine" else 0.0)
        if not np.isfinite(kth).all() and k < near.shape[1]:
            kth = np.minimum(kth, np.partition(near, k - 1, axis=1)[:, k - 1] + error)
        cut = np.where(np.isinf(error), np.inf, kth + error).astype(np.float32)
        cut = np.nextafter(cut, np.float32(np.inf))[:, None]
        flat = np.flatnonzero(~(near > cut))  # a NaN from overflow is not ruled out: float64 decides
    query, column = np.divmod(flat, near.shape[1])
    if not len(query):
        return
    exact = np.empty(len(query))
    step = max(1, pair_cells // dim)
    for i in range(0, len(query), step):
        some = slice(i, i + step)
        exact[some] = pair_distances(queries[query[some]], block[column[some]], metric)
    _keep_best(best, rows, query, exact, column + start)


def _keep_best(best: Array, rows: Array, query: Array, distances: Array, candidates: Array) -> None:
    """best, rows [q, k] := the k least of themselves and the candidates, by (distance, row).

    Candidates come ascending by (query, row), and their rows lie beyond all that best holds.
    """
    k = best.shape[1]
    touched = np.unique(query)
    local = np.searchsorted(touched, query)
    all_q = np.concatenate([np.repeat(np.arange(len(touched)), k), local])
    all_d = np.concatenate([best[touched].ravel(), distances])
    all_r = np.concatenate([rows[touched].ravel(), candidates])
    order = np.lexsort((all_d, all_q))  # stable, and rows ascend per query: ties stay in row order
    begins = np.searchsorted(all_q[order], np.arange(len(touched)))
    kept = order[begins[:, None] + np.arange(k)]
    best[touched] = all_d[kept]
    rows[touched] = all_r[kept]


def pair_distances(a: Array, b: Array, metric: Metric) -> NDArray[np.float64]:
    """Distances of a[i] and b[i] in float64: [n, dim], [n, dim] -> float64[n]."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    if metric == "l2":
        x -= y
        return np.asarray(np.einsum("ij,ij->i", x, x))
    dot = np.einsum("ij,ij->i", x, y)
    if metric == "ip":
        return np.asarray(-dot)
    lengths = np.sqrt(np.einsum("ij,ij->i", x, x)), np.sqrt(np.einsum("ij,ij->i", y, y))
    for length in lengths:
        np.divide(dot, length, out=dot, where=length > 0)  # of zeros the product is 0
    return np.asarray(1.0 - dot)


def recall_per_query(
    found: Array | Sequence[Sequence[Any]], truth_ids: Array, truth_distances: Array, k: int
) -> NDArray[np.float64]:
    """Share of the k nearest that each query found, float64[nq]; see `recall`."""
    truth_ids, truth_distances = np.asarray(truth_ids), np.asarray(truth_distances)
    if k < 1 or truth_ids.shape[1] < k:
        raise InvalidArgument(
            f"recall@{k} needs truth for at least 1 <= k = {k} neighbours, it has {truth_ids.shape[1]}"
        )
    if len(found) != len(truth_ids) or truth_ids.shape != truth_distances.shape:
        raise InvalidArgument(
            f"{len(found)} answers, truth ids {truth_ids.shape}, truth distances {truth_distances.shape}: "
            "expected one per query"
        )
    out = np.empty(len(truth_ids))
    for i, (ids, distances) in enumerate(zip(truth_ids, truth_distances, strict=True)):
        there = np.isfinite(distances)
        matches = min(k, int(np.count_nonzero(there)))
        if matches == 0:
            out[i] = 1.0
            continue
        good = set(ids[there & (distances <= distances[matches - 1])].tolist())
        answers = np.asarray(found[i])[:k].tolist()
        out[i] = min(matches, len(good.intersection(answers))) / matches
    return out


def recall(found: Array | Sequence[Sequence[Any]], truth_ids: Array, truth_distances: Array, k: int) -> float:
    """Mean recall@k = |returned and true| / min(k, matches); ties at the k-th distance count.

    Parameters
    ----------
    found : [nq, >= 0] ids, best first, or one sequence per query. Only the first k count; short answers count against.
    truth_ids : [nq, width >= k], best first. Ties beyond rank k are seen up to this width.
    truth_distances : [nq, width], inf where there is no match.
    k : int
    """
    if len(found) == 0:
        raise InvalidArgument("recall of no queries: give at least one answer")
    return float(recall_per_query(found, truth_ids, truth_distances, k).mean())
