"""The Curator index: many tenants over one clustering tree (after Curator, Jin et al., 2024).

    a tenant's rows -> its slots, ascending -> few:  the codes in all of them are compared
                                               many: nodes of the tree are looked at, nearest first

    slot = the position of a row's code in the order of the tree (tree_order.py)

All tenants share one structure: codes, a tree of groups and leaves, a permutation. A tenant adds its sorted slots; they
are derived when it is searched and kept with its rows, and a node of the tree is a range of them. Granting and revoking
change the tenant's rows alone. A search without a tenant compares all codes, or walks the tree over all slots. The
first search that compares a large part of the codes has panels made: the one-bit codes once more, 32 rows beside one
another (one_bit_fastscan.py).

Thread rule (the three roles of contract.py): searches read `self._view` once and hold no lock, except for the one that
publishes panels; the maintenance caller makes a new order and publishes it; the publisher encodes new rows into the
slots behind the order. Whoever publishes holds the lock.

Invariants (`check` proves them, invariants.py): rows_of and slots_of are each other's inverse; leaf_ends ascend to
`indexed`; codes and biases are what encoding gives. A build splits every leaf with more rows than `ceiling`, unless its
rows have equal codes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, schema
from vecdb.index.clustering import partition
from vecdb.index.clustering.assignment import assign_to_heads, comparisons_per_row
from vecdb.index.clustering.cluster_tree import comparisons, grow_tree
from vecdb.index.common import code_choice, sealed_file, sq8_training
from vecdb.index.common.batching import as_float32_queries
from vecdb.index.common.memory import grown
from vecdb.index.common.progress import WeightedProgress
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.index.common.sampling import spaced_rows
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import HasCompanionGraph, Index, Neighbors, Progress, RowSource, SealedFile
from vecdb.index.curator import tree_file
from vecdb.index.curator.companion_graph import CompanionGraph
from vecdb.index.curator.invariants import violations
from vecdb.index.curator.one_bit_filter import trained_filter
from vecdb.index.curator.tree_file import CuratorState
from vecdb.index.curator.tree_order import CodeArrays, TreeOrderedCodes, identity, ordered, reserve_lines, split_leaves
from vecdb.index.curator.tree_search import TreeScratch, TreeSearch, TreeView
from vecdb.index.curator.tree_space import RowsInSpace
from vecdb.index.exact.scan import scan_exactly
from vecdb.index.row_set import RowSet
from vecdb.kernels.primitives.distance import METRIC_CODES
from vecdb.kernels.search.tree_search import PANEL_SHARE, TreeWork
from vecdb.schema import SearchParams, Visibility

_GROWTH = 4  # the tree is grown anew each time that there are so many times as many rows
_SAMPLE_ROWS = 65_536  # rows that a tree is grown from, at least 24 a leaf
_SAMPLE_PER_LEAF = 24
_ASSIGN_ROWS = 65_536  # rows between two reports of progress
# Splitting leaves and moving codes into their order takes this share of the time that assigning rows takes (measured).
_ORDER_COST = 0.1
_STEP_SHARE = 16  # a tail of 1/16 of the rows is worth a new order
_CEILING = 4  # most rows of a leaf, in multiples of `leaf_rows`


class CuratorIndex(Index, HasCompanionGraph):
    """See the module's text. state : what the index holds from the start; None: nothing."""

    kind = "curator"
    prefers_bulk_build = True

    def __init__(
        self,
        config: schema.Curator,
        metric: str,
        rows: RowSource,
        state: CuratorState | None = None,
        companion: CompanionGraph | None = None,
    ) -> None:
        state = CuratorState(None, 0, 0) if state is None else state
        self.config = config
        self.metric = metric
        self.removed = state.removed
        self._metric = METRIC_CODES[metric]
        self._rows = rows
        self._view: TreeView | None = None
        if state.order is not None:
            self._view = TreeView(state.order, rows.arrays, self._metric)
        self._coded = self._published = self.indexed_rows
        self._built_rows = state.built_rows
        self._lock = threading.Lock()
        self._workers = ThreadPool()
        self._partition = partition.Partition()
        self._free: list[TreeScratch] = []
        self.companion = CompanionGraph(metric, rows) if companion is None else companion

    # -- publisher ---------------------------------------------------------------------------------

    @property
    def indexed_rows(self) -> int:
        return self._view.order.indexed if self._view is not None else 0

    @property
    def version(self) -> object:
        return self if self._view is None else self._view

    @property
    def scan_share(self) -> int:
        view = self._view
        return PANEL_SHARE if view is not None and view.order.can_have_panels else 1

    @property
    def step_rows(self) -> int:
        return max(limits.index_step_rows, min(self.indexed_rows // _STEP_SHARE, limits.tail_rows_max // 2))

    def publish_rows(self, row_count: int) -> None:
        with self._lock:
            self._published = max(self._published, row_count)
            self.companion.publish_rows(row_count)
            if self._view is not None and row_count > self._coded:
                self._publish(self._with_codes(self._view.order, row_count))

    def _with_codes(self, order: TreeOrderedCodes, row_count: int) -> TreeOrderedCodes:
        """The order, and behind it the codes of rows up to `row_count`. The caller holds the lock."""
        if row_count > order.capacity:
            capacity = max(row_count, 2 * order.capacity)
            order = replace(
                order,
                codes=grown(order.codes, capacity, self._coded),
                bias=grown(order.bias, capacity, self._coded) if len(order.bias) else order.bias,
                lines=_grown_lines(order, capacity, self._coded),
                rows_of=_longer(order.rows_of, capacity, order.indexed),
                slots_of=_longer(order.slots_of, capacity, order.indexed),
            )
        # Among the rows that codes were made from some may be short, and searches must not score them all; rows that
        # came since may be shorter than any of those.
        arrays, first = self._rows.arrays, self._coded
        far = order.coded.encode(arrays.vectors, self._metric, first, row_count, find_flat=True)
        far = far[arrays.have_vectors(far)]
        if len(far):
            order = replace(order, far=np.concatenate([order.far, far]))
        self._coded = row_count
        return order

    def _publish(self, order: TreeOrderedCodes) -> None:
        view = self._view
        if view is None or order is not view.order or view.arrays is not self._rows.arrays:
            self._view = TreeView(order, self._rows.arrays, self._metric)

    # -- maintenance -------------------------------------------------------------------------------

    def next_stop(self, row_count: int) -> int:
        """All rows at once, because an order is made as a whole."""
        return row_count

    def add(self, stop: int, threads: int = 1, progress: Progress = None) -> None:
        if stop <= self.indexed_rows:
            return
        view = self._view
        if view is None or self._is_outgrown(view.order, stop):
            order = self._built(stop, threads, progress)
        else:
            order = self._merged(view.order, stop, threads)
        if view is not None and len(view.order.panels) and order.can_have_panels:
            order = order.with_panels()
        self._load_search(order)
        with self._lock:
            coded, self._coded = max(self._coded, self._published), stop
            self._publish(self._with_codes(order, max(stop, coded)))

    def _load_search(self, order: TreeOrderedCodes) -> None:
        """Search once where the codes are of another format: its kernel takes seconds to compile, and no user's search
        is to wait for it.
        """
        old, quantiser = self._view, order.quantiser
        if old is not None and old.order.quantiser.code_format == quantiser.code_format:
            return
        view, nothing = TreeView(order, self._rows.arrays, self._metric), Visibility(0, 0, 0)
        query = np.array(view.arrays.vectors[:1], np.float32)
        self._searching(view, 1, nothing, SearchParams(), None)(query)

    def _is_outgrown(self, order: TreeOrderedCodes, stop: int) -> bool:
        if stop >= _GROWTH * self._built_rows:
            return True
        too_far = sq8_training.too_many_far(order.beyond, stop)
        return not order.space.lossless and too_far and stop >= sq8_training.FAR_GROWTH * self._built_rows

    def _built(self, stop: int, threads: int, progress: Progress) -> TreeOrderedCodes:
        """New codes, tree and order of the rows [0, stop)."""
        arrays = self._rows.arrays
        dim = arrays.vectors.shape[1]
        quantiser = code_choice.choose(arrays, self._metric, stop, threads=threads, workers=self._workers).quantiser
        coded, far = self._encoded(quantiser, stop)
        own = None
        if not code_choice.is_ordinary(quantiser, self._metric):
            own = sq8_training.train(arrays, self._metric, stop)
        in_space = RowsInSpace(own, coded.codes, identity(stop), arrays, self._metric)
        leaves = max(1, round(stop / self.config.leaf_rows))
        sample = spaced_rows(arrays, stop, max(_SAMPLE_ROWS, _SAMPLE_PER_LEAF * leaves))
        assign = stop * comparisons_per_row(leaves)
        costs = {"grow": comparisons(len(sample), leaves)[1], "assign": assign, "order": _ORDER_COST * assign}
        stages = WeightedProgress(progress, stop, costs)
        heads = grow_tree(in_space.codes_of(sample), dim, leaves, threads, self._workers, stages.part("grow"))
        labels, outside = np.empty(stop, np.int32), 0
        for first in range(0, stop, _ASSIGN_ROWS):
            part = np.arange(first, min(first + _ASSIGN_ROWS, stop))
            codes, beyond = in_space.codes_and_far(part)
            labels[part] = assign_to_heads(heads, codes, 1, threads, self._workers)[:, 0]
            outside += beyond
            stages.report("assign", (first + len(part)) / stop)
        heads, labels = split_leaves(heads, labels, in_space, self.ceiling, self._workers)
        self._built_rows = stop
        order = ordered(coded, in_space, heads, labels, far, self._room(stop), outside)
        stages.report("order", 1.0)
        return order

    def _encoded(self, quantiser: ScalarQuantizer, stop: int) -> tuple[CodeArrays, NDArray[np.int32]]:
        """Codes of rows [0, stop), in slots of their own numbers, and the far rows."""
        arrays = self._rows.arrays
        coded = CodeArrays.reserve(stop, quantiser, trained_filter(arrays, self._metric, stop), self._metric)
        far = coded.encode(arrays.vectors, self._metric, 0, stop)
        return coded, far[arrays.have_vectors(far)]

    def _fitting(self, old: TreeOrderedCodes, stop: int, threads: int) -> tuple[CodeArrays, RowsInSpace, Any]:
        """Codes that fit the rows [0, stop), where they are, and the far rows: those that there are, or others."""
        arrays, far = self._rows.arrays, old.far[old.far < stop]
        kept = old.coded, old.rows_in_space(arrays, self._metric), far
        if not code_choice.is_due(old.quantiser, far, old.codes[:stop], old.indexed, all_rows=True):
            return kept
        choice = code_choice.choose(arrays, self._metric, stop, old.quantiser, far, threads, self._workers)
        if choice.kept:
            return (replace(old.coded, quantiser=choice.quantiser), *kept[1:])
        coded, far = self._encoded(choice.quantiser, stop)
        return coded, RowsInSpace(old.space, coded.codes, identity(stop), arrays, self._metric), far

    def _merged(self, old: TreeOrderedCodes, stop: int, threads: int) -> TreeOrderedCodes:
        """Sort the rows [indexed, stop), which have codes already, into their leaves; split leaves that become too
        large.
        """
        coded, in_space, far = self._fitting(old, stop, threads)
        codes, beyond = in_space.codes_and_far(np.arange(old.indexed, stop))
        fresh = assign_to_heads(old.heads, codes, 1, threads, self._workers)[:, 0]
        labels = np.concatenate([old.leaves_of_rows(), fresh])
        heads, labels = split_leaves(old.heads, labels, in_space, self.ceiling, self._workers)
        return ordered(coded, in_space, heads, labels, far, self._room(stop), old.beyond + beyond)

    def _room(self, stop: int) -> int:
        return max(self._rows.arrays.capacity, stop)

    @property
    def ceiling(self) -> int:
        """Most rows of a leaf."""
        return max(8, _CEILING * self.config.leaf_rows)

    def remove(self, sequence: int, threads: int = 1) -> int:
        """Deleted rows keep their slots until a vacuum, and searches pass over them: a leaf stays as good as it was,
        unlike a graph, which loses links.
        """
        self.removed = max(self.removed, sequence)
        return self.companion.remove(sequence, threads)

    def connect_unreachable(self, threads: int = 1) -> int:
        return self.companion.connect_unreachable(threads)

    # -- companion graph ---------------------------------------------------------------------------

    def has_graph(self) -> bool:
        return self.companion.is_ready(self._published)

    def ask_for_graph(self) -> bool:
        return self.companion.ask()

    def companion_is_due(self, *, all_rows: bool = False) -> bool:
        return self.companion.is_due(self._published, all_rows=all_rows)

    def grow_companion(self, threads: int = 1) -> None:
        ready = self.has_graph()
        graph = self.companion.grown(self._published, self.removed, threads)
        with self._lock:
            self.companion.take(graph, self._published)
            if self._view is not None and self.has_graph() != ready:  # prepared searches must be made again
                self._view = TreeView(self._view.order, self._rows.arrays, self._metric)

    def needs_reseal(self) -> bool:
        return self.companion.needs_reseal(self._published)

    @property
    def seal_suffix(self) -> str:
        graph = self.companion.graph
        return "" if graph is None else f".{graph.indexed_rows}"

    # -- search ------------------------------------------------------------------------------------

    def search(
        self,
        queries: NDArray[Any],
        limit: int,
        visibility: Visibility,
        params: SearchParams,
        allow: RowSet | None = None,
    ) -> Neighbors:
        return self.searching(limit, visibility, params, allow)(as_float32_queries(queries))

    def searching(
        self, limit: int, visibility: Visibility, params: SearchParams, allow: RowSet | None
    ) -> Callable[[NDArray[np.float32]], Neighbors]:
        view = self._view
        if view is None or params.exact:
            return partial(self._exactly, limit=limit, visibility=visibility, allow=allow, threads=params.threads)
        if params.ef is not None and self.companion.graph is not None:
            return self.companion.search(limit, visibility, params, allow)
        if view.arrays is not self._rows.arrays:
            view = TreeView(view.order, self._rows.arrays, self._metric)
        if view.lacks_panels(params, allow):
            view = self._with_panels(view)
        return self._searching(view, limit, visibility, params, allow)

    def _searching(
        self, view: TreeView, limit: int, visibility: Visibility, params: SearchParams, allow: RowSet | None
    ) -> TreeSearch:
        budget = view.budget(self.config, limit, params, everything=allow is None)
        return TreeSearch(
            view, budget, limit, visibility, allow, params.threads, self._free, self._workers, self._exactly
        )

    def _with_panels(self, view: TreeView) -> TreeView:
        """A view of the same order with panels, published unless another order is there by now. The panels are made
        before the lock is taken, because the lines of sorted slots never change.
        """
        laid = view.order.with_panels()
        with self._lock:
            now = self._view
            if now is None or now.order.token is not laid.token:
                return TreeView(laid, view.arrays, self._metric)
            if len(now.order.panels) == 0:
                self._publish(replace(now.order, panels=laid.panels))
            assert self._view is not None
            return self._view

    def _exactly(
        self, queries: NDArray[np.float32], limit: int, visibility: Visibility, allow: RowSet | None, threads: int
    ) -> Neighbors:
        return scan_exactly(self._rows.arrays, self._metric, queries, limit, visibility, allow, threads, self._workers)

    def centres(self, row_count: int) -> NDArray[np.float32]:
        """The groups of the tree; before there is one, those of a sample."""
        view = self._view
        if view is None:
            return self._partition.centres(self._rows.arrays, self._metric, row_count, self._workers)
        return partition.partition_of_tree(view.order.heads, view.order.space, self._metric)

    # -- files and figures -------------------------------------------------------------------------

    def seal(self, path: Path) -> SealedFile:
        assert self._view is not None
        order, removed = self._view.order, self.removed
        graph = self.companion.seal(path)  # first, because the header says whether there is one
        state = CuratorState(order, removed, self._built_rows, graph is not None)
        written = tree_file.write(path, _facts(self.config, self.metric, self._rows), state)
        parts = () if graph is None else ((graph[0].name, graph[1].bytes),)
        return SealedFile(written, order.indexed, removed, parts)

    @classmethod
    def open(
        cls, path: Path, config: schema.Curator, metric: str, rows: RowSource, *, mapped: bool = False
    ) -> CuratorIndex:
        """Load a sealed file. Raises Corruption when it is damaged or was written with other parameters."""
        state = tree_file.read(path, _facts(config, metric, rows), rows.arrays.capacity)
        companion = CompanionGraph.open(path, metric, rows, mapped=mapped) if state.has_graph else None
        return cls(config, metric, rows, state, companion)

    def renumbered(self, mapping: NDArray[np.int64], rows: RowSource) -> CuratorIndex:
        state = CuratorState(self._renumbered(mapping, rows), self.removed, self._built_rows)
        return CuratorIndex(self.config, self.metric, rows, state, self.companion.renumbered(mapping, rows))

    def _renumbered(self, mapping: NDArray[np.int64], rows: RowSource) -> TreeOrderedCodes | None:
        """The order of the indexed rows that are left, see `renumbered`; None where none is."""
        if self._view is None:
            return None
        old = self._view.order
        kept = np.flatnonzero(mapping[: old.indexed] >= 0)
        if len(kept) == 0:
            return None
        far = mapping[old.far[old.far < old.indexed]]
        in_space = old.rows_in_space(self._rows.arrays, self._metric)
        return ordered(
            old.coded, replace(in_space, slots_of=old.slots_of[kept], arrays=rows.arrays), old.heads,
            old.leaves_of_rows()[kept], far[far >= 0].astype(np.int32), max(rows.arrays.capacity, len(kept)),
            old.outside,
        )  # fmt: skip

    def check(self) -> list[str]:
        found = [] if self._view is None else violations(self._view, self._metric, self._coded)
        return found + self.companion.check()

    def explain(self, work: NDArray[np.int64]) -> dict[str, Any]:
        return {
            "code_distances": int(work[TreeWork.CODES]),
            "vector_distances": int(work[TreeWork.VECTORS]),
            "nodes_scored": int(work[TreeWork.NODES]),
        }

    def stats(self) -> dict[str, Any]:
        view = self._view
        facts = {"kind": self.kind, "leaf_rows": self.config.leaf_rows, "indexed_rows": self.indexed_rows}
        if view is None:
            return {**facts, "bytes_ram": 0}
        lengths, graph = view.order.leaf_lengths(), self.companion.stats()
        return {
            **facts,
            "heads": view.order.leaf_count,
            "groups": len(view.order.heads.group_ends),
            "leaf_length": {"mean": float(lengths.mean()), "max": int(lengths.max(initial=0))},
            "ceiling": self.ceiling,
            "far_rows": len(view.order.far),
            **code_choice.stats(view.order.quantiser),
            "removed_sequence": self.removed,
            "graph": graph,
            "bytes_ram": view.order.nbytes(self._coded) + (0 if graph is None else graph["bytes_ram"]),
        }

    def close(self) -> None:
        self._workers.close()
        self.companion.close()


def _facts(config: schema.Curator, metric: str, rows: RowSource) -> dict[str, Any]:
    """What a sealed file must have been written with."""
    facts = sealed_file.common_header(CuratorIndex.kind, metric, rows.arrays.vectors)
    return {**facts, "leaf_rows": config.leaf_rows}


def _grown_lines(order: TreeOrderedCodes, capacity: int, used: int) -> NDArray[np.uint8]:
    lines = reserve_lines(capacity, order.bit_filter)
    lines[:used] = order.lines[:used]
    return lines


def _longer(numbers: NDArray[np.uint32], capacity: int, used: int) -> NDArray[np.uint32]:
    longer = identity(capacity)
    longer[:used] = numbers[:used]
    return longer
