"""Rows in memory for index tests, and brute force over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.primitives import checksums
from vecdb.schema import Visibility
from vecdb.storage.disk.row_file import RowArrays


class MemoryRows:
    """A growing RowSource. `delete` marks rows with the next sequence number."""

    def __init__(self, vectors: NDArray[Any], capacity: int | None = None) -> None:
        capacity = capacity or 2 * len(vectors) + 64
        self.arrays = RowArrays(
            np.zeros((capacity, vectors.shape[1]), vectors.dtype),
            np.zeros(capacity, np.uint32),
            np.zeros(capacity // 8 + 8, np.uint8),
            np.zeros(capacity, np.uint64),
        )
        self.sequence = 1
        self.row_count = 0
        self.append(vectors)

    def append(self, vectors: NDArray[Any]) -> None:
        stop = self.row_count + len(vectors)
        self.arrays.vectors[self.row_count : stop] = vectors
        self.arrays.crcs[self.row_count : stop] = checksums.crc_rows(np.ascontiguousarray(vectors))
        self.row_count = stop
        self.sequence += 1

    def delete(self, rows: NDArray[Any]) -> None:
        self.sequence += 1
        self.arrays.deleted[rows] = self.sequence

    def visibility(self) -> Visibility:
        return Visibility(self.sequence, self.row_count, int((self.arrays.deleted[: self.row_count] == 0).sum()))


def distances(metric: str, queries: NDArray[Any], vectors: NDArray[Any]) -> NDArray[np.float64]:
    """float64[nq, n] from the definition."""
    q = queries.astype(np.float64)
    v = vectors.astype(np.float64)
    if metric == "l2":
        return np.asarray(((q[:, None, :] - v[None, :, :]) ** 2).sum(-1))
    if metric == "ip":
        return np.asarray(-(q @ v.T))
    return np.asarray(1.0 - (q @ v.T) / (np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(v, axis=1)[None, :]))


def clustered(n: int, dim: int, dtype: str = "float32", seed: int = 0) -> NDArray[Any]:
    """Points around 30 centres, in the range of the type."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((30, dim))
    points = centres[rng.integers(0, 30, n)] + 0.5 * rng.standard_normal((n, dim))
    if dtype == "int8":
        return np.clip(points * 35, -127, 127).astype(np.int8)
    if dtype == "uint8":
        return np.clip(points * 30 + 120, 0, 255).astype(np.uint8)
    return points.astype(dtype)


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean share of the true rows that were found."""
    return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / len(b) for a, b in zip(found, truth, strict=True)]))
