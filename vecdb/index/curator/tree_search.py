"""How codes in tree order (tree_order.py) are searched: one call of a kernel per slice of queries, with arguments that
are worked out before.

    TreeView      what all searches of one order share
    ScanBudget    how much of it a search looks at
    TreeScratch   buffers of one call of the kernel
    TreeSearch    everything but the queries: view, a tenant's slots, budget -> Neighbors

In a search among a hundred rows half the time is Python's, so everything that does not depend on the query is worked
out once. What the kernel gets is in three array tables, whose layouts are in kernels/search/tree_search.py.

Thread rule: a TreeView and a TreeSearch may be used by any number of threads; a TreeScratch by one call at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.common.batching import Exactly, complete_short_answers, empty_result, map_query_slices
from vecdb.index.common.quantizer import kernel_blocks
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Neighbors, corrupt_row_error
from vecdb.index.curator.tree_order import TreeOrderedCodes
from vecdb.index.row_set import RowSet
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.codes.one_bit_lines import PLANES, BitLines
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.bit_products import PANEL_ROWS
from vecdb.kernels.search import tree_search as kernels
from vecdb.schema import SearchParams, Visibility
from vecdb.storage.disk.row_file import RowArrays

_NO_SIGNS = np.zeros((0, 0), np.float32)
_NO_SLOTS: NDArray[np.uint32] = np.empty(0, np.uint32)
_QUERIES_PER_SLICE = 64
_SCRATCHES_MAX = 64  # buffers that are kept between calls
_LIMIT_MIN = 10  # for fewer results as much is kept: by estimates alone the nearest may not be the first
_RERANK_MORE = 10  # candidates scored on full vectors beside the limit, as for a graph
_UNBOUNDED = 1 << 40
_FILTERED_FROM = 160  # rows of a tenant from which on the one-bit filter saves more time than it takes
_BUDGETS_MAX = 64  # that a view remembers
# Where no recall above this is asked for, so many percent of the filter's slack are used. Hardly one of the nearest
# rows lies beyond: measured on 1,000 tenants of 40,000 sentences, recall 0.99 in place of 0.9995 and 4 % less time.
_SLACK_PERCENT, _RECALL_EXPECTED = 67, 0.975
_FILTERED_MAX, _FILTERED_PER_RESULT = 1_024, 32  # most rows that the filter leaves over


class TreeView:
    """What searches of one order work on. Immutable but for the budgets that it remembers."""

    __slots__ = ("_budgets", "_values", "arrays", "nodes", "order", "shapes", "table", "vectors")

    def __init__(self, order: TreeOrderedCodes, arrays: RowArrays, metric: int) -> None:
        self.order = order
        self.arrays = arrays
        self.vectors = checksums.for_kernels(arrays.vectors)
        heads = order.heads
        self.nodes = order.leaf_count + len(heads.group_ends)
        code_words = () if order.bit_filter is None else order.bit_filter.words
        quantiser, space = order.quantiser, order.space
        self.shapes = (code_words, kernel_blocks(quantiser.width, quantiser.code_format), heads.blocks)
        self._budgets: dict[tuple[int, int | None, bool, bool], ScanBudget] = {}
        # A far row's code says that it is nearer than it is: what lies behind it may be nearer still.
        square = np.float32(-1.0) if len(order.far) else order.square
        self._values = ArrayTable(
            kernels.Tree(
                metric=metric,
                codes=kernels.TreeCodes(order.codes, order.bias, quantiser.parameters, quantiser.scale, square),
                space=kernels.TreeSpace(order.is_apart, space.mean, space.scale),
                slots=kernels.TreeSlots(order.rows_of, order.slots_of, order.indexed),
                levels=kernels.TreeLevels(
                    leaves=kernels.TreeNodes(heads.codes, heads.bias, order.leaf_spreads),
                    groups=kernels.TreeNodes(heads.group_codes, heads.group_bias, order.group_spreads),
                    leaf_ends=order.leaf_ends,
                    group_ends=heads.group_ends,
                ),
                bits=_bit_filter(order),
                rows=kernels.TreeRows(arrays.crcs, arrays.verified, arrays.deleted, order.far),
            )
        )
        self.table = self._values.table

    def lacks_panels(self, params: SearchParams, allow: RowSet | None) -> bool:
        """Whether a search would be faster with panels: it looks at many of the rows, or walks the tree."""
        order = self.order
        if len(order.panels) or not order.can_have_panels:
            return False
        return allow is None or params.nprobe is not None or len(allow) * kernels.PANEL_SHARE >= order.indexed

    def budget(self, config: schema.Curator, limit: int, params: SearchParams, *, everything: bool) -> ScanBudget:
        """everything : not among the rows of a tenant."""
        key = (limit, params.nprobe, everything, params.recall is not None and params.recall > _RECALL_EXPECTED)
        budget = self._budgets.get(key)
        if budget is None:
            budget = ScanBudget(config, self.order, *key)
            if len(self._budgets) < _BUDGETS_MAX:
                self._budgets[key] = budget
        return budget


def _bit_filter(order: TreeOrderedCodes) -> kernels.BitFilter:
    """The one-bit filter as kernels read it."""
    octets, own = order.lines.reshape(-1), order.bit_filter
    lines = BitLines(octets, octets.view(np.uint64), octets.view(np.float32), 0 if own is None else own.stride)
    panels = order.panels.reshape(-1)
    if own is None:
        return kernels.BitFilter(lines, panels, order.space.mean, _NO_SIGNS, 0.0, 0.0)
    return kernels.BitFilter(lines, panels, own.center, own.signs, own.weight, own.slack)


class ScanBudget:
    """How much a search looks at. table : of the layout kernels.TreeBudget.

    everything : it searches all rows.   careful : more recall is asked for than `_RECALL_EXPECTED`.
    """

    __slots__ = ("filtered_max", "rerank", "table")

    def __init__(
        self,
        config: schema.Curator,
        order: TreeOrderedCodes,
        limit: int,
        nprobe: int | None,
        everything: bool,
        careful: bool,
    ) -> None:
        limit = max(limit, _LIMIT_MIN)
        self.rerank = max(limit + _RERANK_MORE, 2 * limit)
        self.filtered_max, filter_from = 0, _UNBOUNDED
        if order.bit_filter is not None:
            self.filtered_max, filter_from = max(_FILTERED_MAX, _FILTERED_PER_RESULT * limit), _FILTERED_FROM
        idle_nodes_max, nodes_max = nprobe or 0, _UNBOUNDED
        if everything and nprobe is not None:
            idle_nodes_max, nodes_max = _UNBOUNDED, nprobe
        self.table = ArrayTable(
            kernels.TreeBudget(
                limit=limit,
                rerank=self.rerank,
                filtered_max=self.filtered_max,
                filter_from=filter_from,
                everything=everything,
                scan_max=_UNBOUNDED if nprobe is None else 0,
                idle_nodes_max=idle_nodes_max,
                nodes_max=nodes_max,
                shortlist=0 if everything else config.shortlist_max,
                slack_percent=100 if careful else _SLACK_PERCENT,
            )
        ).table


class TreeScratch:
    """Buffers of one kernel call, kept between calls. table : of the layout kernels.TreeBuffers."""

    __slots__ = ("_filtered_max", "_nodes", "_rerank", "_values", "_width", "table")

    def __init__(self, view: TreeView, budget: ScanBudget) -> None:
        self._rerank, self._filtered_max, self._nodes = max(255, budget.rerank), budget.filtered_max, view.nodes
        bit_filter = view.order.bit_filter
        self._width = width = view.order.codes.shape[1]
        node_width, bits = view.order.heads.codes.shape[1], 0 if bit_filter is None else bit_filter.width
        planes = np.zeros((PLANES, bits), np.uint8)
        self._values = ArrayTable(
            kernels.TreeBuffers(
                pool=np.empty(self._rerank + 1, np.int64),
                keys=np.empty(self._rerank + 1, np.int64),
                heap=np.empty(2 * self._nodes, np.int64),
                query8=np.zeros(width, np.int8),
                query16=np.zeros(2 * width, np.int16),
                node8=np.zeros(node_width, np.int8),
                node16=np.zeros(node_width, np.int16),
                rotated=np.zeros(8 * bits, np.float32),
                planes=planes,
                planes64=planes.view(np.uint64),
                nearest=np.empty(self._rerank, np.float32),
                filter_keys=np.empty(2 * self._filtered_max + 1, np.int64),
                kept=np.empty(self._filtered_max, np.uint32),
                tables=np.empty((2 * bits, 16), np.uint8),
                estimates=np.empty(PANEL_ROWS, np.float32),
            )
        )
        self.table = self._values.table

    def serves(self, view: TreeView, budget: ScanBudget) -> bool:
        fits = self._width == view.order.codes.shape[1] and self._nodes >= view.nodes
        return fits and self._rerank >= budget.rerank and self._filtered_max >= budget.filtered_max


class TreeSearch:
    """Searches of one view that differ in their queries only: see `Index.searching`.

    free : buffers that no call uses now.   exactly : answers the queries for which the view found too few rows
    (`complete_short_answers`).
    """

    __slots__ = (
        "_allow",
        "_budget",
        "_exactly",
        "_free",
        "_limit",
        "_listed",
        "_threads",
        "_view",
        "_visibility",
        "_workers",
    )

    def __init__(
        self,
        view: TreeView,
        budget: ScanBudget,
        limit: int,
        visibility: Visibility,
        allow: RowSet | None,
        threads: int,
        free: list[TreeScratch],
        workers: ThreadPool,
        exactly: Exactly,
    ) -> None:
        self._view = view
        self._budget = budget
        self._limit = limit
        self._visibility = visibility
        self._allow = allow
        self._listed = _NO_SLOTS if allow is None else allow.derived(view.order.token, view.order.slots)
        self._threads = threads
        self._free = free
        self._workers = workers
        self._exactly = exactly

    def __call__(self, queries: NDArray[np.float32]) -> Neighbors:
        found = empty_result(len(queries), self._limit)
        if len(queries) == 1:
            self._answer(queries, found)
            if found.counts.item() == self._limit:
                return found
        else:
            map_query_slices(self._answer, queries, found, _QUERIES_PER_SLICE, self._threads, self._workers)
        complete_short_answers(found, queries, self._limit, self._visibility, self._allow, self._threads, self._exactly)
        return found

    def _answer(self, queries: NDArray[np.float32], found: Neighbors) -> None:
        view, visibility, scratch = self._view, self._visibility, self._take()
        bad = kernels.search_slots(
            queries,
            found.rows,
            found.distances,
            found.counts,
            found.work,
            self._listed,
            self._budget.table,
            visibility.row_count,
            visibility.sequence,
            view.table,
            view.vectors,
            scratch.table,
            view.shapes,
        )
        if len(self._free) < _SCRATCHES_MAX:
            self._free.append(scratch)
        if bad >= 0:
            raise corrupt_row_error(bad, view.arrays)

    def _take(self) -> TreeScratch:
        try:
            scratch = self._free.pop()
        except IndexError:
            return TreeScratch(self._view, self._budget)
        return scratch if scratch.serves(self._view, self._budget) else TreeScratch(self._view, self._budget)
