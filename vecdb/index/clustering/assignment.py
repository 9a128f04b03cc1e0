"""Which heads are nearest to a code: the lists or leaf that a row belongs to, and the neighbours of a head.

A code is looked up among the heads as a query is: all groups, then the heads of the nearest ones until enough of them
have been compared. No state; rows are cut by number, so that the answers do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.index.clustering.cluster_tree import Heads
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.kernels.build import list_assignment

_ROWS_PER_SLICE = 4_096  # rows assigned in one kernel call
_REACH = 2_048  # heads compared per row
_CLOSURE_HEADS = 64  # near heads looked at under replicas (SPANN)


class _Scratch:
    """Buffers for comparing with heads."""

    def __init__(self, heads: Heads, candidates: int) -> None:
        self.group_keys = np.zeros(len(heads.group_ends), np.int64)
        self.keys = np.zeros(max(_REACH, 8 * candidates) + heads.largest_group + 64, np.int64)
        self.head8 = np.zeros(heads.codes.shape[1], np.int8)
        self.head16 = np.zeros(heads.codes.shape[1], np.int16)


def assign_to_heads(
    heads: Heads, codes: NDArray[np.uint8], replicas: int, threads: int, workers: ThreadPool
) -> NDArray[np.int32]:
    """The heads whose lists take rows given as codes: int32[n, replicas], nearest first, -1 where there are fewer."""
    labels = np.full((len(codes), replicas), -1, np.int32)
    candidates = 1 if replicas == 1 else _CLOSURE_HEADS

    def one(start: int) -> None:
        part = slice(start, start + _ROWS_PER_SLICE)
        s = _Scratch(heads, candidates)
        list_assignment.assign_rows(
            codes[part], heads.codes, heads.bias, heads.group_codes, heads.group_bias, heads.group_ends, replicas,
            candidates, _REACH, labels[part], s.group_keys, s.keys, s.head8, s.head16, heads.blocks,
        )  # fmt: skip

    workers.map(one, range(0, len(codes), _ROWS_PER_SLICE), threads)
    return labels


def near_heads(heads: Heads, codes: NDArray[np.uint8], wanted: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Near heads of given codes, nearest first: (heads int32[n, wanted], -1 where there are fewer, squared distances in
    the space of codes).
    """
    near = np.full((len(codes), wanted), -1, np.int32)
    distances = np.zeros((len(codes), wanted), np.int32)
    s = _Scratch(heads, wanted)
    list_assignment.near_heads(
        codes, heads.codes, heads.bias, heads.group_codes, heads.group_bias, heads.group_ends, _REACH, near, distances,
        s.group_keys, s.keys, s.head8, s.head16, heads.blocks,
    )  # fmt: skip
    return near, distances


def comparisons_per_row(heads: int) -> int:
    """About how many comparisons it takes to find a row's nearest among so many heads."""
    return int(min(heads, _REACH) + heads**0.5)
