"""Clustered synthetic vectors, deletion of shares, and figures over a collection that several tests need."""

from __future__ import annotations

from typing import Any

import numpy as np

import vecdb

GRAPH = vecdb.Hnsw(m=16, ef_construction=100, ef=64)
EXACT = vecdb.SearchParams(exact=True)


def clustered(n: int, dim: int = 32, seed: int = 1, clusters: int = 60) -> np.ndarray:
    """float32[n, dim] around random centres, as embeddings are; the centres are the same for every seed."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(dim).normal(0, 1, (clusters, dim))
    return (centres[rng.integers(0, clusters, n)] + rng.normal(0, 0.35, (n, dim))).astype(np.float32)


def recall(docs: Any, queries: np.ndarray, limit: int = 10, ef: int = 64) -> float:
    """Mean recall@limit of a graph search against the exact one, ties counted as found."""
    near = docs.search(queries, limit, params=vecdb.SearchParams(ef=ef))
    true = docs.search(queries, limit, params=EXACT)
    return float((near.distances <= true.distances[:, -1:] * (1 + 1e-5) + 1e-6).mean())


def sound(hits: Any, live: set[Any], limit: int) -> None:
    """min(limit, live) distinct live ids for every query, nearest first."""
    expected = min(limit, len(live))
    assert hits.counts.tolist() == [expected] * len(hits.counts)
    for ids, distances in zip(np.atleast_2d(hits.ids), np.atleast_2d(hits.distances), strict=True):
        found = ids[:expected].tolist()
        assert len(set(found)) == expected and set(found) <= live, set(found) - live
        assert (np.diff(distances[:expected]) >= 0).all()
