"""Data of many shapes: what users store, and what makes codes, graphs and learned widths fail.

A shape is a function (rng, n, dim) -> float32[n, dim]; SHAPES names them all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Shape = Callable[[np.random.Generator, int, int], Rows]


def plain(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """A quarter of the dimensions matter, as in most embeddings."""
    inner = max(4, dim // 4)
    basis = rng.standard_normal((inner, dim)) / np.sqrt(inner)
    rows = rng.standard_normal((n, inner)) @ basis + 0.05 * rng.standard_normal((n, dim))
    return rows.astype(np.float32)


def gaussian(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return rng.standard_normal((n, dim)).astype(np.float32)


def uniform(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return rng.random((n, dim)).astype(np.float32)


def long_rows(count: int, factor: float) -> Shape:
    """Some rows that are `factor` times as long as the others."""

    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        rows = plain(rng, n, dim)
        rows[rng.choice(n, count, replace=False)] *= np.float32(factor)
        return rows

    return made


def long_share(share: float, factor: float) -> Shape:
    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        return long_rows(max(1, int(share * n)), factor)(rng, n, dim)

    return made


def clusters(count: int, spread: float) -> Shape:
    """Clusters whose spread is this share of the distance between them."""

    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        centres = rng.standard_normal((count, dim))
        rows = centres[rng.integers(0, count, n)] + spread * rng.standard_normal((n, dim))
        return rows.astype(np.float32)

    return made


def wide_dimensions(count: int, factor: float) -> Shape:
    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        rows = plain(rng, n, dim)
        rows[:, :count] *= np.float32(factor)
        return rows

    return made


def constant_in(count: int, constant: float) -> Shape:
    """A constant in some dimensions, as hidden states of transformers have it."""

    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        rows = plain(rng, n, dim)
        rows[:, : min(count, dim)] += np.float32(constant)
        return rows

    return made


def halves(small: float, large: float) -> Shape:
    """A dense core in a sparse cloud."""

    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        rows = plain(rng, n, dim)
        return (rows * np.where(rng.random(n) < 0.5, small, large)[:, None]).astype(np.float32)

    return made


def lognormal(sigma: float) -> Shape:
    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        return (plain(rng, n, dim) * np.exp(sigma * rng.standard_normal(n))[:, None]).astype(np.float32)

    return made


def scaled(factor: float) -> Shape:
    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        return (plain(rng, n, dim).astype(np.float64) * factor).astype(np.float32)

    return made


def shifted(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """The mean moves after a third."""
    rows = plain(rng, n, dim)
    rows[n // 3 :] += np.float32(8.0)
    return rows


def drifting(decades: float) -> Shape:
    """Each row a little longer than the one before."""

    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        return (plain(rng, n, dim) * (10 ** np.linspace(0, decades, n))[:, None]).astype(np.float32)

    return made


def decades_of_dimensions(decades: float) -> Shape:
    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        return (gaussian(rng, n, dim) * 10 ** np.linspace(0, decades, dim)).astype(np.float32)

    return made


def sparse(share: float) -> Shape:
    def made(rng: np.random.Generator, n: int, dim: int) -> Rows:
        rows = np.abs(gaussian(rng, n, dim)) * (rng.random((n, dim)) < share)
        rows[:, 0] += np.float32(0.01)
        return rows.astype(np.float32)

    return made


def bits(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return np.where(rng.random((n, dim)) < 0.5, -1, 1).astype(np.float32)


def duplicates(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Each row five times."""
    return np.repeat(plain(rng, -(-n // 5), dim), 5, axis=0)[:n]


def few_values(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return rng.integers(-2, 3, (n, dim)).astype(np.float32)


def one_sided(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Counts with a long tail, as histograms have them."""
    return rng.gamma(0.5, 2.0, (n, dim)).astype(np.float32)


def heavy_tailed(rng: np.random.Generator, n: int, dim: int) -> Rows:
    return rng.standard_t(2.0, (n, dim)).astype(np.float32)


def line(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """All rows near one line."""
    direction = rng.standard_normal(dim)
    return (rng.standard_normal((n, 1)) * direction + 1e-3 * rng.standard_normal((n, dim))).astype(np.float32)


def two_far_groups(rng: np.random.Generator, n: int, dim: int) -> Rows:
    rows = plain(rng, n, dim)
    rows[: n // 2] += np.float32(1_000.0)
    return rows


def cluster_beside_plain(rng: np.random.Generator, n: int, dim: int) -> Rows:
    """Half of the rows in one tight cluster."""
    rows = plain(rng, n, dim)
    rows[: n // 2] = rows[0] + 1e-3 * rng.standard_normal((n // 2, dim))
    return rows.astype(np.float32)


SHAPES: dict[str, Shape] = {
    "plain": plain,
    "gaussian": gaussian,
    "uniform": uniform,
    "one row x30": long_rows(1, 30),
    "one row x100": long_rows(1, 100),
    "one row x1e3": long_rows(1, 1e3),
    "one row x1e6": long_rows(1, 1e6),
    "twelve rows x1e4": long_rows(12, 1e4),
    "2 % x100": long_share(0.02, 100),
    "10 % x10": long_share(0.1, 10),
    "one row /1e6": long_rows(1, 1e-6),
    "20 clusters .01": clusters(20, 0.01),
    "30 clusters .01": clusters(30, 0.01),
    "30 clusters .001": clusters(30, 0.001),
    "400 clusters .003": clusters(400, 0.003),
    "400 clusters .1": clusters(400, 0.1),
    "5 clusters 1e-4": clusters(5, 1e-4),
    "one dimension x30": wide_dimensions(1, 30),
    "one dimension x60": wide_dimensions(1, 60),
    "one dimension x100": wide_dimensions(1, 100),
    "one dimension x1000": wide_dimensions(1, 1_000),
    "four dimensions x30": wide_dimensions(4, 30),
    "constant 30 in one": constant_in(1, 30),
    "constant 200 in one": constant_in(1, 200),
    "constant 30 in two": constant_in(2, 30),
    "constant 200 in two": constant_in(2, 200),
    "constant 200 in all": constant_in(10_000, 200),
    "half x.001 half x10": halves(1e-3, 10),
    "half x.1 half x10": halves(0.1, 10),
    "log-normal 1": lognormal(1.0),
    "log-normal 3": lognormal(3.0),
    "scale 1e-30": scaled(1e-18),
    "scale 1e15": scaled(1e15),
    "subnormal": scaled(1e-39),
    "shifted": shifted,
    "drift x1e3": drifting(3),
    "decades of dimensions": decades_of_dimensions(6),
    "sparse": sparse(0.2),
    "very sparse": sparse(0.03),
    "bits": bits,
    "duplicates": duplicates,
    "few values": few_values,
    "one-sided": one_sided,
    "heavy-tailed": heavy_tailed,
    "line": line,
    "two far groups": two_far_groups,
    "cluster beside plain": cluster_beside_plain,
}


def queries_of(rng: np.random.Generator, rows: Rows, count: int) -> Rows:
    """Stored rows with noise of a thousandth of their own mean element."""
    picked = rows[rng.choice(len(rows), count, replace=False)].astype(np.float64)
    noise = 1e-3 * np.abs(picked).mean(axis=1, keepdims=True) * rng.standard_normal(picked.shape)
    return (picked + noise).astype(np.float32)


def exact_distances(rows: Rows, queries: Rows, metric: str) -> NDArray[np.float64]:
    """float64[nq, n] by numpy, in the form that does not cancel."""
    a, b = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "ip":
        return -(a @ b.T)
    if metric == "cosine":
        a = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-300)
        b = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-300)
    out = np.empty((len(a), len(b)))
    for i in range(len(a)):
        difference = b - a[i]
        out[i] = np.einsum("ij,ij->i", difference, difference)
    return out


def recall(found: NDArray[np.int64], distances: NDArray[np.float64], k: int) -> float:
    """Mean recall@k of row numbers int64[nq, k]; rows as near as the k-th count."""
    last = np.partition(distances, k - 1, axis=1)[:, k - 1]
    hits = [(distances[q, found[q]] <= last[q] + 1e-6 * abs(last[q])).sum() for q in range(len(found))]
    return float(np.mean(np.minimum(hits, k)) / k)
