"""Codes of a graph's rows: made in place, and compared with making them again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.hnsw.graph import Graph
from vecdb.kernels.primitives import checksums
from vecdb.storage.disk.row_file import RowArrays


def encode(
    graph: Graph, arrays: RowArrays, metric: int, first: int, stop: int, *, find_flat: bool = False
) -> NDArray[np.int32]:
    """Codes of rows [first, stop), in place; returns the far ones among those that have a vector, ascending. find_flat
    : also those that are too short for the scale. Rows that codes were measured on may be, and searches must not score
    them all; rows that came since may be shorter than any of those.
    """
    far = np.empty(max(0, stop - first), np.int32)
    vectors = checksums.for_kernels(arrays.vectors)
    count = graph.quantiser.encode(vectors, first, stop, metric, graph.codes, graph.bias, far, find_flat=find_flat)
    far = far[:count]
    return far[arrays.have_vectors(far)]


def recoded_differs(graph: Graph, arrays: RowArrays, metric: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Per row of `rows`: whether encoding it again gives another code, bias or far mark than stored."""
    n = len(rows)
    codes = np.zeros((n, graph.codes.shape[1]), np.uint8)
    bias = np.zeros(n if len(graph.bias) else 0, np.int32)  # not kept where `needs_bias` says no
    far = np.empty(n, np.int32)
    vectors = checksums.for_kernels(np.ascontiguousarray(arrays.vectors[rows]))
    count = graph.quantiser.encode(vectors, 0, n, metric, codes, bias, far, find_flat=False)
    differs: NDArray[np.bool_] = (codes != graph.codes[rows]).any(axis=1)
    if len(bias):
        differs |= bias != graph.bias[rows]
    is_far = np.zeros(n, bool)
    is_far[far[:count]] = True
    is_far &= arrays.have_vectors(rows)
    listed = np.isin(rows, graph.far)
    may_be = is_far | (bias < graph.quantiser.flat_below(metric)) if len(bias) else is_far
    differs |= (is_far & ~listed) | (listed & ~may_be)
    return differs
