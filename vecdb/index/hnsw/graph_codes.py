"""Codes of a graph's rows: made in place, and compared with making them again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.sq8_training import quantise
from vecdb.index.hnsw.graph import Graph
from vecdb.kernels.codes import sq8
from vecdb.kernels.primitives import checksums
from vecdb.storage.disk.row_file import RowArrays


def encode(graph: Graph, arrays: RowArrays, metric: int, first: int, stop: int) -> NDArray[np.int32]:
    """Codes of rows [first, stop), in place; returns the far ones among them, ascending."""
    q = graph.quantiser
    far = np.empty(max(0, stop - first), np.int32)
    count = sq8.encode(
        checksums.for_kernels(arrays.vectors), first, stop, q.mean, q.scale, metric, graph.codes, graph.bias, far
    )
    return far[:count].copy()


def recoded_differs(graph: Graph, arrays: RowArrays, metric: int, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Per row of `rows`: whether encoding it again gives another code, bias or far mark than stored."""
    codes, bias, far = quantise(graph.quantiser, np.ascontiguousarray(arrays.vectors[rows]), metric)
    differs: NDArray[np.bool_] = (codes != graph.codes[rows]).any(axis=1)
    if len(graph.bias):  # not kept where `needs_bias` says no
        differs |= bias != graph.bias[rows]
    is_far = np.zeros(len(rows), bool)
    is_far[far] = True
    differs |= is_far != np.isin(rows, graph.far)
    return differs
