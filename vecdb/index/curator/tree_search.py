"""How codes in tree order (tree_order.py) are searched: with one call of a kernel, whose arguments are worked out
before.

    View      what all searches of one order share
    Plan      how much of it a search looks at
    Scratch   buffers of one call of the kernel
    Search    everything but the queries: view, a tenant's slots, plan -> Found

Python is half the time of a search among a hundred rows, so all that does not depend on the query is done once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index.common.batching import Exactly, complete_short_answers, empty, map_query_slices
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Neighbors, corrupt_row_error
from vecdb.index.curator.tree_order import TreeOrderedCodes
from vecdb.index.row_set import RowSet
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.codes.one_bit_lines import PLANES
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.bit_products import PANEL_ROWS
from vecdb.kernels.search import tree_search
from vecdb.schema import SearchParams, Visibility
from vecdb.storage.disk.row_file import RowArrays

_NO_SIGNS = np.zeros((0, 0), np.float32)
_NOBODY: NDArray[np.uint32] = np.empty(0, np.uint32)
_QUERIES_PER_SLICE = 64
_KEPT_MAX = 64
_RERANK_MORE = 10  # candidates scored on full vectors beside the limit, as for a graph
_UNBOUNDED = 1 << 40
_SIEVED_FROM = 160  # rows of a tenant from which a first look at one bit a dimension pays for what it takes
_PLANS_MAX = 64
# of the sieve's slack, past which hardly one of the nearest lies, where no more than this recall is asked for: measured
# on 1,000 tenants of 40,000 sentences, recall 0.99 in place of 0.9995 and 4 % less time
_SLACK_PERCENT, _RECALL_EXPECTED = 67, 0.975
_SIEVED_MAX, _SIEVED_PER_RESULT = 1_024, 32  # most rows that come through the sieve


class TreeView:
    """What searches of one order work on; immutable but for plans, which it remembers. `bundle` follows the order of
    kernels.slots.search_slots.
    """

    __slots__ = ("_plans", "arrays", "blocks", "bundle", "nodes", "order", "vectors", "words")

    def __init__(self, order: TreeOrderedCodes, arrays: RowArrays, metric: int) -> None:
        self.order = order
        self.arrays = arrays
        self.vectors = checksums.for_kernels(arrays.vectors)
        sieve, heads = order.sieve, order.heads
        self.nodes = order.leaf_count + len(heads.group_ends)
        self.words = () if sieve is None else sieve.words
        self.blocks = (0,) * (order.codes.shape[1] // 64)
        self._plans: dict[tuple[int, int | None, bool, bool], ScanBudget] = {}
        lines = order.lines.reshape(-1)
        if sieve is None:
            stride, center, signs, weight, slack = 0, order.quantiser.mean, _NO_SIGNS, 0.0, 0.0
        else:
            stride, center, signs, weight, slack = sieve.stride, sieve.center, sieve.signs, sieve.weight, sieve.slack
        self.bundle = ArrayTable(
            np.array([metric, order.indexed, stride], np.int64),
            np.array([order.quantiser.scale, order.square(), weight, slack], np.float32),
            order.quantiser.mean, order.codes, order.bias,
            lines, lines.view(np.uint64), lines.view(np.float32), center, signs,
            order.rows_of, order.slots_of, order.far,
            heads.codes, heads.bias, order.leaf_spreads, heads.group_codes, heads.group_bias, order.group_spreads,
            heads.group_ends, order.leaf_ends, arrays.crcs, arrays.verified, arrays.deleted,
            order.panels.reshape(-1),
        )  # fmt: skip

    def lacks_panels(self, params: SearchParams, allow: RowSet | None) -> bool:
        """Whether a search would be faster with them: it looks at many of the rows, or goes along the tree."""
        order = self.order
        if len(order.panels) or not order.can_have_panels:
            return False
        return allow is None or params.nprobe is not None or len(allow) * tree_search.PANEL_SHARE >= order.indexed

    def plan(self, config: schema.Curator, limit: int, params: SearchParams, *, everything: bool) -> ScanBudget:
        """everything : not among the rows of a tenant."""
        key = (limit, params.nprobe, everything, params.recall is not None and params.recall > _RECALL_EXPECTED)
        plan = self._plans.get(key)
        if plan is None:
            plan = ScanBudget(config, self.order, *key)
            if len(self._plans) < _PLANS_MAX:
                self._plans[key] = plan
        return plan


class ScanBudget:
    """How much a search looks at; `numbers` is `plan` of kernels.slots.search_slots."""

    __slots__ = ("numbers", "rerank", "wanted")

    def __init__(
        self,
        config: schema.Curator,
        order: TreeOrderedCodes,
        limit: int,
        nprobe: int | None,
        everything: bool,
        careful: bool,
    ) -> None:
        self.rerank = max(limit + _RERANK_MORE, 2 * limit)
        self.wanted, sieved = 0, _UNBOUNDED
        few, patience, nodes_most = _UNBOUNDED if nprobe is None else 0, nprobe or 0, _UNBOUNDED
        if everything and nprobe is not None:
            patience, nodes_most = _UNBOUNDED, nprobe
        if order.sieve is not None:
            self.wanted, sieved = max(_SIEVED_MAX, _SIEVED_PER_RESULT * limit), _SIEVED_FROM
        shortlist = 0 if everything else config.shortlist_max
        self.numbers = np.array(
            [
                limit, self.rerank, self.wanted, sieved, everything, few, patience, nodes_most, shortlist,
                100 if careful else _SLACK_PERCENT,
            ],
            np.int64,
        )  # fmt: skip


class TreeScratch:
    """Buffers of one kernel call, kept between calls; `bundle` follows the order of kernels.slots.search_slots."""

    __slots__ = ("_nodes", "_rerank", "_wanted", "bundle")

    def __init__(self, view: TreeView, plan: ScanBudget) -> None:
        self._rerank, self._wanted, self._nodes = max(255, plan.rerank), plan.wanted, view.nodes
        sieve = view.order.sieve
        width, bits = view.order.codes.shape[1], 0 if sieve is None else sieve.width
        planes = np.zeros((PLANES, bits), np.uint8)
        self.bundle = ArrayTable(
            np.empty(self._rerank + 1, np.int64), np.empty(self._rerank + 1, np.int64),
            np.empty(2 * self._nodes, np.int64), np.zeros(width, np.int8), np.zeros(width, np.int16),
            np.zeros(8 * bits, np.float32), planes, planes.view(np.uint64), np.empty(self._rerank, np.float32),
            np.empty(2 * self._wanted + 1, np.int64), np.empty(self._wanted, np.uint32),
            np.empty((2 * bits, 16), np.uint8), np.empty(PANEL_ROWS, np.float32),
        )  # fmt: skip

    def serves(self, view: TreeView, plan: ScanBudget) -> bool:
        return self._rerank >= plan.rerank and self._wanted >= plan.wanted and self._nodes >= view.nodes


class TreeSearch:
    """Searches of one view that ask the same: see `Index.searching`. free : buffers that nobody uses.   exactly :
    answers what the view could not fill (answers.fill_up).
    """

    __slots__ = (
        "_allow",
        "_exactly",
        "_free",
        "_limit",
        "_listed",
        "_plan",
        "_snapshot",
        "_threads",
        "_view",
        "_workers",
    )

    def __init__(
        self,
        view: TreeView,
        plan: ScanBudget,
        limit: int,
        visibility: Visibility,
        allow: RowSet | None,
        threads: int,
        free: list[TreeScratch],
        workers: ThreadPool,
        exactly: Exactly,
    ) -> None:
        self._view = view
        self._plan = plan
        self._limit = limit
        self._snapshot = visibility
        self._allow = allow
        self._listed = _NOBODY if allow is None else allow.derived(view.order.token, view.order.slots)
        self._threads = threads
        self._free = free
        self._workers = workers
        self._exactly = exactly

    def __call__(self, queries: NDArray[np.float32]) -> Neighbors:
        found = empty(len(queries), self._limit)
        if len(queries) == 1:
            self._answer(queries, found)
            if found.counts.item() == self._limit:
                return found
        else:
            map_query_slices(self._answer, queries, found, _QUERIES_PER_SLICE, self._threads, self._workers)
        complete_short_answers(found, queries, self._limit, self._snapshot, self._allow, self._threads, self._exactly)
        return found

    def _answer(self, queries: NDArray[np.float32], found: Neighbors) -> None:
        view, visibility, scratch = self._view, self._snapshot, self._take()
        bad = tree_search.search_slots(
            queries,
            found.rows,
            found.distances,
            found.counts,
            found.work,
            self._listed,
            self._plan.numbers,
            visibility.row_count,
            visibility.sequence,
            view.bundle.table,
            view.vectors,
            scratch.bundle.table,
            view.words,
            view.blocks,
        )
        if len(self._free) < _KEPT_MAX:
            self._free.append(scratch)
        if bad >= 0:
            raise corrupt_row_error(bad, view.arrays)

    def _take(self) -> TreeScratch:
        try:
            scratch = self._free.pop()
        except IndexError:
            return TreeScratch(self._view, self._plan)
        return scratch if scratch.serves(self._view, self._plan) else TreeScratch(self._view, self._plan)
