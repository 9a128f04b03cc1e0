"""Bodies and a view of lists made by hand, and what a search prepares for it: kernels are called the way the engine
calls them, so that tests of them need not know in which order they take their arguments.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.clustering.cluster_tree import Heads, bias_of
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.index.common.rotation import padded
from vecdb.index.spann.entry_coder import EntryCoder, lossless_for
from vecdb.index.spann.posting_lists import ListsState, ListsView, PostingLists, empty_view
from vecdb.index.spann.searching.list_search import WORK, ListsContext, ListScratch, ListSearch
from vecdb.kernels.build import list_bodies
from vecdb.kernels.codes import rabitq
from vecdb.kernels.primitives import checksums
from vecdb.storage.disk.row_file import RowArrays

ALL_ROWS = np.empty(0, np.uint64)
WIDTH = 16
ENTRY = WIDTH + 8


def arrays_of(vectors: NDArray[Any]) -> RowArrays:
    """Rows in memory, all alive and none compared with its checksum."""
    n = len(vectors)
    return RowArrays(
        vectors, checksums.crc_rows(vectors), np.zeros(n // 8 + 8, np.uint8), np.zeros(n, np.uint64)
    )  # fmt: skip


def lists_over(arrays: RowArrays, folder: Path, replicas: int = 1) -> PostingLists:
    rows: Any = SimpleNamespace(arrays=arrays, path=folder / "rows")
    return PostingLists(rows, folder, ListsState(None, 0, 0, replicas))


def plain_coder(metric: int, dtype: Any, dim: int, bits: int, mean: NDArray[np.float32], scale: float) -> EntryCoder:
    """A coder with units of 1 and no centre, as nothing was measured."""
    signs = np.random.default_rng(dim).choice(np.array([-1, 1], np.float32), (rabitq.ROUNDS, padded(dim, bits)))
    lossless = lossless_for(metric, np.dtype(dtype), bits)
    return EntryCoder(
        metric, dim, bits, lossless, ScalarQuantizer(mean, scale, 1, lossless), np.zeros(dim, np.float32), signs
    )


def view_heads_of(codes: NDArray[np.uint8], groups: int = 1) -> Heads:
    """Heads in groups of equal size, whose own heads are their first members."""
    ends = np.linspace(0, len(codes), groups + 1).astype(np.int32)[1:]
    firsts = codes[np.concatenate([[0], ends[:-1]])]
    return Heads(codes, bias_of(codes), firsts, bias_of(firsts), ends)


def view_of(
    coder: EntryCoder, heads: Heads, places: NDArray[np.int64], lengths: NDArray[np.int32], arena: NDArray[np.uint8],
    indexed: int, replicas: int = 1,
) -> ListsView:  # fmt: skip
    """Bodies that lie in `arena` (uint8, a multiple of 4 bytes)."""
    held: Any = SimpleNamespace(data=arena)
    return replace(
        empty_view(coder, heads, 0, replicas), arena=held, body_offsets=places, lengths=lengths, indexed=indexed
    )  # fmt: skip


def prepared_for(view: ListsView, arrays: RowArrays) -> ListsContext:
    """For searches that read nothing from disk."""
    return ListsContext(view, arrays, view.coder.metric, None, None)  # type: ignore[arg-type]


class Search:
    """One call over `prepared`: its plan, its buffers (b), what it counted (work)."""

    def __init__(
        self, prepared: ListsContext, nq: int, limit: int, probes: int, most: int, row_count: int, sequence: int,
        allow: NDArray[np.uint64] = ALL_ROWS,
    ) -> None:  # fmt: skip
        visibility = schema.Visibility(sequence, row_count, row_count)
        self.plan = ListSearch(prepared, schema.Spann(), limit, probes, visibility)
        self.allow = allow
        self.plan.probes = self.plan.width = probes
        self.b = ListScratch(prepared, nq, limit, probes, most)
        self.work = np.zeros(WORK, np.int64)

    def scan(self, places: NDArray[np.int64] | None = None) -> None:
        """places : where bodies are now, negative for those that are not there; None: all, as the view says."""
        arena = self.plan.view.arena
        where = self.plan.view.body_offsets if places is None else places
        self.plan._scan(self.b, where, arena.data, self.allow, self.work)

    def shortlists(self) -> list[list[tuple[float, int, float]]]:
        """(estimate, row, error) of each query, sorted by the first two as the keys are."""
        out = []
        for keys, errors, size in zip(*self.b.shortlist[:2], self.b.shortlist.sizes.tolist(), strict=True):
            assert (keys[1:size] > keys[:size][:-1]).all()
            values, rows = read_keys(keys[:size])
            out.append(list(zip(values.tolist(), rows.tolist(), errors[:size].tolist(), strict=True)))
        return out


def read_keys(keys: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Distances and rows of `search.key_of` keys."""
    bits = (keys >> 32).astype(np.int32)
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int32).view(np.float32), keys & 0xFFFFFFFF


def key_of(value: float, row: int) -> int:
    bits = int(np.float32(value).view(np.int32))
    return ((bits if bits >= 0 else bits ^ 0x7FFFFFFF) << 32) | row


class Bodies:
    """Lists as a dict {list: [(row, code, factor)]} and as bytes in an arena, side by side."""

    def __init__(self, lists: dict[int, list[tuple[int, bytes, int]]], count: int) -> None:
        self.count = count
        self.lists = lists
        entries = [(head, *entry) for head, line in lists.items() for entry in line]
        self.labels = np.array([e[0] for e in entries], np.int32)
        self.rows = np.array([e[1] for e in entries], np.int64)
        self.codes = np.frombuffer(b"".join(e[2] for e in entries), np.uint8).reshape(-1, WIDTH)
        self.factors = np.array([e[3] for e in entries], np.uint32)
        self.lengths = np.bincount(self.labels, minlength=count).astype(np.int32)
        self.places, self.arena = room_for(self.lengths)
        fill = np.stack([self.lengths, np.zeros(count, np.int32)], axis=1)
        order = np.argsort(self.labels, kind="stable")
        list_bodies.place_entries(
            order, self.labels, self.rows, self.codes, self.factors, self.places, fill, self.arena, WIDTH
        )
        assert np.array_equal(fill[:, 0], fill[:, 1])


def room_for(lengths: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Places with gaps between them, and an arena of a byte that gives away what was not written."""
    sizes = lengths.astype(np.int64) * ENTRY + 8
    return np.cumsum(sizes) - sizes + 8, np.full(int(sizes.sum()) + 64, 0xEE, np.uint8)
