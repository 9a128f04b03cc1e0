"""How a query is answered: a pure function of what is known about the collection and of what the caller asked.

    exact scan   asked for; nothing is indexed; no width was measured to reach the recall; or the graph would have to
                 visit about as much as a scan does
    graph        otherwise, with the first of these that is known: the caller's ef, the ef that reaches the caller's
                 recall, the ef that was learned or that `tune` chose, the index's own
    lists        the same with nprobe in the place of ef
    tree         the same for a clustering tree, whose index itself handles a tenant of any size. A tenant with much of
                 many rows is the exception: it is searched through a graph beside the tree
    codes        all codes of the rows that match (a filter, a tenant), where that is sooner than a walk among them
    rows         exact scan of the rows that match: asked for, or so few that the lists would look at more to meet
                 enough of them

Among matching rows with a share s of all, 1 / s times as many lists are read until as many matches are met as without a
filter. So they cost about width / s distances of codes, the scan one distance of full vectors a row: equal where
rows^2 = `scan_rows_per_width` * width * records. How a graph is walked among them, and when it gives up, is in
index/hnsw/filtered.py.

Whatever is chosen, the index returns min(limit, matching live records): it scans for a query that found fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vecdb import limits
from vecdb.index.hnsw import filtered
from vecdb.schema import IndexConfig, SearchParams, Visibility
from vecdb.state.index_factory import IndexKind
from vecdb.storage.kv.catalog import CommittedState, MeasuredRecall


@dataclass(frozen=True, slots=True)
class PlannerCosts:
    """What searches cost beside one another, as measured.

    scan_share : a beam this share of the live rows wide costs more than scanning them all.
    scan_rows_per_width : measured at 20,000 x 384: lists were as fast as the scan at 4,200 rows.
    scored_rows : so few rows are scored on their vectors: a scan of their codes would score as many.

    Along a tree, with a tenant:
    idle_nodes_max : looks at nodes that change nothing before a search among a tenant's rows ends: recall 0.95 to 0.97,
        measured on 40,000 sentences with tenants of 8,000 to 40,000, scattered and near one another. This number
        is for a collection that has learned nothing, and grows with its rows past `idle_nodes_rows`.
    idle_nodes_share, idle_nodes_recall : it grows with the leaves that a search without a tenant needs for as much,
        here 144: 80 of them gave 0.88 among 160,000 rows, where 384 are needed. At a share of 0.55 a fifth of 39,000
        word vectors had 0.94, at 0.69 they have 0.95 to 0.96.
    tenant_scan_rows : a look at all rows of a tenant, at 0.985, was as fast at 28,000; `optimize` measures it anew.

    unmeasured_ef : beam of a graph where no width was asked for or configured, until recall was measured: wide enough
        for data that need more than most.

    Of the graph beside a tree. With a beam of `graph_ef` it takes as long as a look at `graph_rows` codes that lie
    scattered, and (1 / s)^`graph_power` times as long among the share s of the rows: measured at 160,000 x 384 (145 us
    at recall 0.95; 1.4, 2.3 and 4.3 times that for a half, a quarter, a tenth). At 40,000 the codes of all are looked
    at as fast: below `graph_live_min` live rows it is not used.

    tree_nprobe : leaves of a tree, for a search without a tenant where no width was asked for, configured or learned.
    lists_nprobe : the same for lists.
    unmeasured_rows : rows of which these two are the widths; more rows have more leaves and lists.
    """

    scan_share: float = 0.25
    scan_rows_per_width: float = 6.0
    scored_rows: int = 40
    idle_nodes_max: int = 100
    idle_nodes_rows: int = 40_000
    idle_nodes_share: float = 0.69
    idle_nodes_recall: float = 0.95
    tenant_scan_rows: int = 24_576
    unmeasured_ef: int = 192
    graph_ef: int = 64
    graph_rows: int = 12_000
    graph_power: float = 0.6
    graph_live_min: int = 65_536
    tree_nprobe: int = 128
    lists_nprobe: int = 128
    unmeasured_rows: int = 16_384


COSTS = PlannerCosts()
LEARNED_LIMIT, LARGE_LIMIT = 10, 100  # neighbours for which default widths are learned
_PLACES_PER_NEIGHBOUR = 2  # in a beam, of those past what was learned
_NEIGHBOURS_PER_WIDTH, _WIDER_MAX = 180, 3.0  # past it, that double the leaves or lists; and how often at most
_STALE_GROWTH, _STALE_MAX = 2, 2.0  # rows that are so many times as many may be others; the most that this widens


class IndexFacts(NamedTuple):
    """What a plan depends on of an index.

    learned : the committed state, of which recall_curve, default_width, default_scan and tenant_scan_rows_max count.
    scan_share, code_bytes : those of `Index`.
    """

    kind: IndexKind
    config: IndexConfig
    learned: CommittedState
    indexed_rows: int
    scan_share: int = 1
    code_bytes: int = 0


class Plan(NamedTuple):
    """strategy: "exact", "rows", "codes", "graph", "lists" or "tree"; width: beam of a graph, lists or leaves to look
    at; reason: one clause for `explain`.
    """

    strategy: str
    width: int
    reason: str

    @property
    def ef(self) -> int | None:
        return self.width if self.strategy in ("graph", "codes") else None

    @property
    def nprobe(self) -> int | None:
        return self.width if self.strategy in ("lists", "tree") else None

    def search_params(self, asked: SearchParams) -> SearchParams:
        """What the index is told."""
        ef, nprobe = self.ef, self.nprobe
        if self.strategy == "tree" and self.width == 0:
            return (
                asked
                if asked.nprobe is None and asked.ef is None
                else SearchParams(recall=asked.recall, threads=asked.threads, rerank=asked.rerank)
            )
        as_asked = (ef is not None and asked.ef == ef) or (nprobe is not None and asked.nprobe == nprobe)
        if as_asked and asked.recall is None and not asked.exact:
            return asked
        return SearchParams(ef, nprobe, None, ef is None and nprobe is None, asked.threads, asked.rerank)


def plan(
    index: IndexFacts,
    visibility: Visibility,
    limit: int,
    params: SearchParams,
    matching: int | None = None,
    by_graph: bool = False,
    costs: PlannerCosts = COSTS,
) -> Plan:
    """Choose how to search. matching : live rows that the search is restricted to; None: not restricted.
    by_graph : `prefers_companion_graph`, and there is one beside the tree.
    """
    scan, live, strategy = "exact" if matching is None else "rows", visibility.live_count, index.kind.strategy
    if params.exact:
        return Plan(scan, 0, "asked for")
    if strategy == "exact":
        return Plan(scan, 0, "flat index")
    if index.indexed_rows == 0:
        return Plan(scan, 0, "nothing is indexed yet")
    unmet = _unmet(index, params)
    if unmet:
        return Plan(scan, 0, unmet)
    if strategy == "tree":
        if not by_graph:
            return _tree(index, live, limit, params, matching, costs)
        return Plan("graph", _beam(index, limit, params, costs), "much of many rows")
    lists = strategy == "lists"
    if lists and live < limits.flat_rows_max:
        return Plan(scan, 0, f"{live} live rows are scanned faster than lists are chosen")
    width, reason = _width(index, limit, params, costs)
    if not lists:
        width = max(width, limit)
    if not lists and width >= costs.scan_share * live:
        return Plan(scan, 0, f"a beam of {width} over {live} live rows costs more than a scan")
    if matching is None:
        return Plan(strategy, width, reason)
    if not lists:
        if matching <= costs.scored_rows:
            return Plan("rows", 0, f"{matching} rows of {live} are scored on their vectors")
        if filtered.scans_at_once(matching, width, index.code_bytes):
            return Plan("codes", width, f"the codes of {matching} rows of {live} are scanned faster than they are met")
        return Plan("graph", width, f"{reason}, among {matching} rows of {live}")
    if matching * matching <= costs.scan_rows_per_width * width * live:
        return Plan("rows", 0, f"{matching} rows of {live} are scanned faster than they are met")
    return Plan("lists", min(limits.nprobe_max, -(-width * live // matching)), f"{reason}, widened")


def _unmet(index: IndexFacts, params: SearchParams) -> str:
    """Why only a scan has the recall that is wanted; empty where a width has it."""
    learned = index.learned
    if params.ef is not None or params.nprobe is not None:
        return ""
    if params.recall is not None and not learned.recall_curve:
        return f"recall {params.recall} asked for, and nothing is measured yet"
    if not learned.default_scan or (params.recall is None and index.kind.width_of(index.config) is not None):
        return ""
    best = max((point.recall for point in learned.recall_curve), default=0.0)
    return "" if params.recall is not None and best >= params.recall else f"the index reaches recall {best:.2f} at most"


def _width(index: IndexFacts, limit: int, params: SearchParams, costs: PlannerCosts) -> tuple[int, str]:
    """ef of a graph, nprobe of lists and trees, and where it comes from."""
    strategy, learned = index.kind.strategy, index.learned
    asked = params.ef if strategy == "graph" else params.nprobe
    if asked is not None:
        return asked, f"{index.kind.width_parameter} given"
    if params.recall is not None:
        width = width_for_recall(params.recall, limit, learned.recall_curve)
        return _until_learned_anew(index, width), f"learned for recall {params.recall}"
    if learned.default_width is not None:
        if learned.tuned_by_user:
            return learned.default_width, "tuned"
        most = limits.ef_max if strategy == "graph" else limits.nprobe_max
        width = min(most, _learned_width(strategy, learned.default_width, learned.hundred_width, limit))
        return _until_learned_anew(index, width), "learned"
    configured = index.kind.width_of(index.config)
    if configured:
        return configured, "default of the index"
    default = {"graph": costs.unmeasured_ef, "tree": costs.tree_nprobe, "lists": costs.lists_nprobe}[strategy]
    return _grown(index, default, costs.unmeasured_rows), "default of the index"


def _grown(index: IndexFacts, width: int, rows: int) -> int:
    """The width for the rows that the index has, where it is one for `rows`.

    Where rows come faster than recall is measured again, there are more leaves and lists, and the same number of them
    is a smaller share: 32 dimensions without structure had .77 at 70,000 rows by a width of 20,000. A beam needs little
    more.
    """
    if index.kind.strategy == "graph" or not 0 < rows < index.indexed_rows:
        return width
    return min(limits.nprobe_max, -(-width * index.indexed_rows // rows))


def _until_learned_anew(index: IndexFacts, width: int) -> int:
    """A learned width for the rows that the index has. Those that are many times as many may also be others: while
    lengths grew a thousandfold, leaves that a quarter of the rows had taught found .93, and twice as many .99.
    """
    check = index.learned.recall_check
    if check is None or check.rows == 0 or index.kind.strategy == "graph":
        return width
    stale = index.indexed_rows / (_STALE_GROWTH * check.rows)
    return _grown(index, math.ceil(width * min(_STALE_MAX, max(1.0, stale))), check.rows)


def _learned_width(strategy: str, ten: int, hundred: int | None, limit: int) -> int:
    """The width of `limit` neighbours, where those of ten and, if it is known, of a hundred were learned."""
    if limit <= LEARNED_LIMIT:
        return ten
    if hundred is None:
        return wider_for(strategy, ten, limit, LEARNED_LIMIT)
    hundred = max(ten, hundred)
    if limit > LARGE_LIMIT:
        return wider_for(strategy, hundred, limit, LARGE_LIMIT)
    return _between(limit, (LEARNED_LIMIT, ten), (LARGE_LIMIT, hundred))


def _between(limit: int, fewer: tuple[int, int], more: tuple[int, int]) -> int:
    """The width of `limit` neighbours between two limits with known widths (limit, width)."""
    share = (limit - fewer[0]) / (more[0] - fewer[0])
    return math.ceil(fewer[1] + share * (more[1] - fewer[1]))


def wider_for(strategy: str, width: int, limit: int, learned_limit: int) -> int:
    """More neighbours than a width was learned for need more."""
    if strategy != "graph":
        # measured on four sets: a hundred neighbours had .935 to .985 at the width of ten, and .986 to .994 at half as
        # much again
        return round(width * min(_WIDER_MAX, 1 + (limit - learned_limit) / _NEIGHBOURS_PER_WIDTH))
    # A narrow beam grows in proportion. A wide one is wide for the data's sake: on twelve sets with learned widths of
    # 32 to 176 ten neighbours had .959 to 1.0, and a hundred, with one, two or four more places each, at least .961,
    # .983 or .996.
    more = max(1, -(-(limit - 1) // learned_limit))
    return width if more == 1 else min(width * more, width + _PLACES_PER_NEIGHBOUR * limit)


_OF_TENANT = Plan("tree", 0, "the codes of all rows of the tenant")
_SCAN_ALL_CODES = Plan("tree", 0, "the codes of all rows")


def _tree(
    index: IndexFacts, live: int, limit: int, params: SearchParams, matching: int | None, costs: PlannerCosts
) -> Plan:
    kind, learned = index.kind, index.learned
    few = kind.scan_limit_of(index.config) or learned.tenant_scan_rows_max or costs.tenant_scan_rows
    most = -(-live // index.scan_share)  # scanning so many scattered rows takes as long as scanning all rows
    if matching is None:
        if most <= few and params.nprobe is None and kind.width_of(index.config) is None:
            return _SCAN_ALL_CODES
        return Plan("tree", *_width(index, limit, params, costs))
    if min(matching, most) <= few:
        return _OF_TENANT
    nodes = idle_nodes_max(learned.recall_curve, costs)
    nodes = _until_learned_anew(index, nodes) if learned.recall_curve else _grown(index, nodes, costs.idle_nodes_rows)
    if params.recall is None:
        return Plan("tree", params.nprobe or nodes, "a large tenant, along the tree")
    nodes = max(1, round(nodes * _widening(index, limit, params.recall, costs)))
    return Plan("tree", nodes, f"a large tenant, learned for recall {params.recall}")


def _widening(index: IndexFacts, limit: int, recall: float, costs: PlannerCosts) -> float:
    """By how much wider a search is for `recall` than for the recall at which the costs were measured. A tree's curve
    is of searches without a tenant; the same factor is right for those of a tenant, and for the graph beside it.
    """
    curve = index.learned.recall_curve
    return width_for_recall(recall, limit, curve) / width_for_recall(costs.idle_nodes_recall, limit, curve)


def prefers_companion_graph(
    index: IndexFacts,
    live: int,
    limit: int,
    params: SearchParams,
    matching: int | None = None,
    costs: PlannerCosts = COSTS,
) -> bool:
    """Whether a graph beside the tree would answer sooner than a look at the rows' codes does."""
    if index.kind.strategy != "tree" or index.indexed_rows == 0:
        return False
    if index.kind.scan_limit_of(index.config) is not None or index.kind.width_of(index.config) is not None:
        return False
    rows = live if matching is None else matching
    if params.exact or _unmet(index, params) or params.nprobe is not None or live < costs.graph_live_min or rows == 0:
        return False
    beam = _beam(index, limit, params, costs)
    walk: float = costs.graph_rows * beam / costs.graph_ef * (live / rows) ** costs.graph_power
    return walk < min(rows, live / index.scan_share)


def _beam(index: IndexFacts, limit: int, params: SearchParams, costs: PlannerCosts) -> int:
    """Beam of the graph beside a tree."""
    ef: float = costs.graph_ef
    if params.ef is not None:
        ef = params.ef
    elif params.recall is not None and index.learned.recall_curve:
        ef *= _widening(index, limit, params.recall, costs)
    return max(limit, min(limits.ef_max, round(ef)))


def idle_nodes_max(curve: Sequence[MeasuredRecall], costs: PlannerCosts = COSTS) -> int:
    """Looks at nodes of a tree that change nothing before a search among a large tenant's rows ends."""
    if not curve:
        return costs.idle_nodes_max
    return round(costs.idle_nodes_share * width_for_recall(costs.idle_nodes_recall, 1, curve))


def width_for_recall(recall: float, limit: int, curve: Sequence[MeasuredRecall]) -> int:
    """The smallest measured width that reached `recall`, at `limit` or between the limits beside it that were measured
    (beyond them scaled up). curve : not empty.
    """
    measured = sorted({point.limit for point in curve})
    below = [value for value in measured if value <= limit]
    above = [value for value in measured if value >= limit]
    if not above:
        return min(limits.ef_max, _measured_width(recall, below[-1], curve) * -(-limit // below[-1]))
    more = (above[0], _measured_width(recall, above[0], curve))
    if not below or below[-1] == above[0]:
        return more[1]
    return _between(limit, (below[-1], _measured_width(recall, below[-1], curve)), more)


def _measured_width(recall: float, limit: int, curve: Sequence[MeasuredRecall]) -> int:
    """The smallest width measured at exactly `limit` that reached `recall`. Beyond what was measured: as much wider as
    ten neighbours need, whose curve goes further, or the next doubling, the most that is still a guess about this data.
    """
    points = sorted((point for point in curve if point.limit == limit), key=lambda point: point.width)
    reached = next((point.width for point in points if point.recall >= recall), 0)
    if not reached:
        last, best = points[-1].width, max(point.recall for point in points)
        wider = 2.0
        as_good = [point.width for point in curve if point.limit == LEARNED_LIMIT and point.recall <= best]
        if limit != LEARNED_LIMIT and as_good:
            wider = max(1.0, _measured_width(recall, LEARNED_LIMIT, curve) / max(as_good))
        reached = math.ceil(last * wider)
    return min(limits.ef_max, reached)
