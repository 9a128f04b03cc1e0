"""The clustering tree of posting lists and of Curator: groups of heads, heads of lists, by balanced k-means in the
space of codes.

    root
     +- group 0: head 0, head 1, ..., head e0 - 1          group_ends = [e0, e1, ...]; heads of a group are adjacent
     +- group 1: head e0, ..., head e1 - 1
     ...

About sqrt(lists) groups of about sqrt(lists) heads: a query is compared with every group and then with the heads of
the nearest ones, a few thousand codes in a row, which measures faster than a walk through a graph of heads.

Heads are 8-bit codes (kernels/codes/sq8.py) and what they decode to is the centre itself, so nothing is lost by them.
Deterministic: samples and first centroids are chosen by number, ties go to the lower number, and threads only share
out rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.quantizer import block_count
from vecdb.index.common.sampling import evenly_spaced
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Progress
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.build import balanced_kmeans as kernels
from vecdb.kernels.search.list_probe import HeadArrays

_NO_BIAS: NDArray[np.int32] = np.empty(0, np.int32)
_ITERATIONS = 8
_SLICE = 8_192  # members assigned in one kernel call
_PENALTY = 0.25  # of the mean distance, for a cluster twice its fair size
_TRAIN_PER_CLUSTER = 192  # members that train each centroid of a level; the rest are only assigned


@dataclass(frozen=True, slots=True)
class Heads:
    """codes uint8[L, 64 * blocks], bias int32[L] (|code - 128|^2); the same of groups; group_ends int32[G]."""

    codes: NDArray[np.uint8]
    bias: NDArray[np.int32]
    group_codes: NDArray[np.uint8]
    group_bias: NDArray[np.int32]
    group_ends: NDArray[np.int32]

    @property
    def count(self) -> int:
        return len(self.codes)

    @property
    def blocks(self) -> tuple[int, ...]:
        count: int = self.codes.shape[1] // 64
        return (0,) * count

    @property
    def largest_group(self) -> int:
        return int(np.diff(self.group_ends, prepend=0).max(initial=1))

    def group_of(self) -> NDArray[np.int64]:
        """int64[L]: the group of each head."""
        return np.repeat(np.arange(len(self.group_ends)), np.diff(self.group_ends, prepend=0))

    def table(self, *, by_inner_product: bool = False) -> ArrayTable:
        """What kernels take: heads that are compared by l2, or by inner product, where no bias counts."""
        bias, group_bias = (_NO_BIAS, _NO_BIAS) if by_inner_product else (self.bias, self.group_bias)
        return ArrayTable(HeadArrays(self.codes, bias, self.group_codes, group_bias, self.group_ends))

    def nbytes(self) -> int:
        return sum(a.nbytes for a in (self.codes, self.bias, self.group_codes, self.group_bias, self.group_ends))


def bias_of(codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """|code - 128|^2 of each row."""
    out = np.empty(len(codes), np.int32)
    for start in range(0, len(codes), _SLICE):
        x = codes[start : start + _SLICE].astype(np.int32) - 128
        out[start : start + _SLICE] = np.einsum("ij,ij->i", x, x)
    return out


def heads_of(codes: NDArray[np.uint8], groups: NDArray[np.int64], group_codes: NDArray[np.uint8]) -> Heads:
    """Heads in the order of their groups. codes : in that order already; groups : int64[L] ascending."""
    ends = np.cumsum(np.bincount(groups, minlength=len(group_codes))).astype(np.int32)
    return Heads(codes, bias_of(codes), group_codes, bias_of(group_codes), ends)


def grow_tree(
    codes: NDArray[np.uint8], dim: int, lists: int, threads: int, workers: ThreadPool, progress: Progress = None
) -> Heads:
    """Cluster a sample into about `lists` heads. codes : uint8[n, 64 * blocks], the sample.

    progress : (comparisons made, comparisons).
    """
    members = np.arange(len(codes), dtype=np.int64)
    lists = max(1, min(lists, len(codes)))
    first_level, whole = comparisons(len(codes), lists)
    if progress is not None:
        progress(0, whole)
    group_means, labels = _cluster(codes, members, dim, max(1, round(lists**0.5)), threads, workers)
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels, minlength=len(group_means)))
    head_codes: list[NDArray[np.uint8]] = []
    groups: list[NDArray[np.int64]] = []
    kept: list[NDArray[np.uint8]] = []
    first = 0
    for end in ends.tolist():
        inside = order[first:end]
        if progress is not None:
            progress(first_level + (whole - first_level) * first // len(codes), whole)
        first = end
        if len(inside) == 0:
            continue
        share = max(1, round(lists * len(inside) / len(codes)))
        means, _ = _cluster(codes, inside, dim, share, threads, workers)
        head_codes.append(_codes_of(means, codes.shape[1]))
        groups.append(np.full(len(means), len(kept)))
        kept.append(_codes_of(codes[inside].mean(axis=0, dtype=np.float64)[None, :dim] - 128.0, codes.shape[1]))
    return heads_of(np.concatenate(head_codes), np.concatenate(groups), np.concatenate(kept))


def balanced_kmeans(codes: NDArray[np.uint8], dim: int, count: int, workers: ThreadPool) -> NDArray[np.float32]:
    """Balanced k-means in one level. Returns float32[min(count, n), dim]: means of codes - 128."""
    return _cluster(codes, np.arange(len(codes), dtype=np.int64), dim, count, 1, workers)[0]


def comparisons(rows: int, lists: int) -> tuple[int, int]:
    """About how many comparisons of a row with a centroid it takes to grow a tree of so many lists from a sample of
    `rows`: (those of the first level, those of both).
    """
    groups = max(1, round(lists**0.5))
    first = groups * (_ITERATIONS * min(rows, _TRAIN_PER_CLUSTER * groups) + rows)
    return first, first + (_ITERATIONS + 1) * rows * max(1, lists // groups)


def regroup(heads: Heads, dim: int, threads: int, workers: ThreadPool) -> tuple[Heads, NDArray[np.int64]]:
    """New groups for heads whose number has changed much. Returns them and the old number of each (int64[L])."""
    members = np.arange(heads.count, dtype=np.int64)
    means, labels = _cluster(heads.codes, members, dim, max(1, round(heads.count**0.5)), threads, workers)
    order = np.argsort(labels, kind="stable")
    return heads_of(heads.codes[order], labels[order].astype(np.int64), _codes_of(means, heads.codes.shape[1])), order


def split(
    codes: NDArray[np.uint8], dim: int, parts: int, workers: ThreadPool
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Balanced k-means of one list's rows. Returns (head codes uint8[k, width], labels int32[n]), every k with rows.

    Where the rows cannot be told apart they are cut by their order: two heads in one place, each with its half.
    """
    means, labels = _cluster(codes, np.arange(len(codes), dtype=np.int64), dim, parts, 1, workers)
    sizes = np.bincount(labels, minlength=parts)
    if len(means) < 2 or sizes.max() > 0.9 * len(codes):
        labels = (np.arange(len(codes)) * parts // len(codes)).astype(np.int32)
        means = np.stack([codes[labels == part, :dim].mean(axis=0) - 128.0 for part in range(parts)]).astype(np.float32)
    used, numbers = np.unique(labels, return_inverse=True)
    return _codes_of(means[used], codes.shape[1]), numbers.astype(np.int32)


def _codes_of(means: NDArray[np.floating], width: int) -> NDArray[np.uint8]:
    """Means in code space as codes, padded with 128."""
    codes = np.full((len(means), width), 128, np.uint8)
    codes[:, : means.shape[1]] = np.clip(np.floor(means + 128.5), 0, 255)
    return codes


def _cluster(
    codes: NDArray[np.uint8], members: NDArray[np.int64], dim: int, k: int, threads: int, workers: ThreadPool
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Balanced k-means of codes[members]. Returns (means float32[k, dim] in code space, labels int32[members])."""
    m = len(members)
    k = min(k, m)
    blocks = (0,) * block_count(dim)
    picked = members[evenly_spaced(m, _TRAIN_PER_CLUSTER * k)]
    # Seeds: a farther-first choice among a few would cost more than the iterations that it saves.
    means = (codes[picked[(np.arange(k) * len(picked)) // k], :dim].astype(np.float32) - 128.0).astype(np.float32)
    cent8 = np.zeros((k, codes.shape[1]), np.int8)
    cent16 = np.zeros((k, codes.shape[1]), np.int16)
    constants = np.zeros(k, np.int32)
    penalties = np.zeros(k, np.int32)
    squares = float(np.mean([float(s) for s in bias_of(codes[picked[: 4 * _SLICE]])]))

    def assign(which: NDArray[np.int64], labels: NDArray[np.int32]) -> float:
        def one(start: int) -> int:
            part = slice(start, start + _SLICE)
            return int(kernels.assign(codes, which[part], cent8, cent16, constants, penalties, labels[part], blocks))

        return float(sum(workers.map(one, range(0, len(which), _SLICE), threads)))

    labels = np.zeros(len(picked), np.int32)
    for _ in range(_ITERATIONS if k > 1 else 1):
        kernels.set_centroids(means, cent8, cent16, constants)
        mean_d = max(assign(picked, labels) / len(picked) + squares, 1.0)
        sums = np.zeros((k, dim), np.int64)
        counts = np.zeros(k, np.int64)
        kernels.accumulate(codes, picked, labels, dim, sums, counts)
        filled = counts > 0
        means[filled] = (sums[filled] / counts[filled, None]).astype(np.float32)
        _reseed(codes, picked, labels, counts, means, dim)
        over = np.maximum(counts * (k / len(picked)) - 1.0, 0.0)
        penalties = np.minimum(_PENALTY * mean_d * over, 2**29).astype(np.int32)
    kernels.set_centroids(means, cent8, cent16, constants)
    labels = np.zeros(m, np.int32)
    assign(members, labels)
    return means, labels


def _reseed(
    codes: NDArray[np.uint8],
    picked: NDArray[np.int64],
    labels: NDArray[np.int32],
    counts: NDArray[np.int64],
    means: NDArray[np.float32],
    dim: int,
) -> None:
    """Give empty clusters a member of the largest ones each."""
    empty = np.flatnonzero(counts == 0)
    if len(empty) == 0:
        return
    largest = np.argsort(-counts, kind="stable")[: len(empty)]
    for cluster, donor in zip(empty.tolist(), largest.tolist(), strict=False):
        if counts[donor] > 1:
            inside = np.flatnonzero(labels == donor)
            means[cluster] = codes[picked[inside[len(inside) // 2]], :dim].astype(np.float32) - 128.0
