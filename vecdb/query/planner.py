"""How a query is answered: a pure function of what is known about the collection and of what the caller asked.

    exact scan   asked for; nothing is indexed; or the graph would have to visit about as much as a scan does
    graph        otherwise, with the first that is there of: the caller's ef, the ef that reaches the caller's recall,
                 the ef that `tune` chose, the index's own
    lists        the same with nprobe in the place of ef
    tree         the same for a clustering tree, whose index knows by itself what to do with a tenant of any size, but
                 for one with much of many rows: that goes by a graph beside the tree
    rows         exact scan of a tenant's own rows: asked for, or so few that the graph or the lists would look at more
                 to meet enough of them

Of a tenant with a share s of the records, a graph is walked 1 / s times as far, and 1 / s times as many lists are read,
until as many of the tenant's rows are met as without one. So the walk costs about width / s distances of codes, the
scan one distance of full vectors a row: equal where rows^2 = `_SCAN_PER_WIDTH` * width * records.

Whatever is chosen, the index returns min(limit, matching live records): what comes short is scanned for that query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vecdb import limits
from vecdb.errors import InvalidArgument
from vecdb.schema import Curator, Flat, Hnsw, IndexConfig, SearchParams, Spann, Visibility
from vecdb.storage.kv.catalog import MeasuredRecall

_SCAN_SHARE = 0.25  # a beam this share of the live rows wide costs more than scanning them all
_SCAN_PER_WIDTH = 6.0  # measured at 20,000 x 384: a graph and lists were even with the scan at 2,900 and 4,200 rows
# Looks at nodes that change nothing before a search among a tenant's rows ends: recall 0.95 to 0.97, measured on 40,000
# sentences with tenants of 8,000 to 40,000, scattered and near one another. It grows with the leaves that a search
# without a tenant needs for as much, here 144: 80 of them gave 0.88 among 160,000 rows, where 384 are needed.
PATIENCE, _PATIENCE_SHARE, _PATIENCE_RECALL = 80, 0.55, 0.95
SCAN_ROWS = 24_576  # a look at all rows of a tenant, at 0.985, was as fast at 28,000; `optimize` measures it anew
# A graph with a beam of 64 takes as long as a look at 12,000 codes that lie scattered. Among a share s of the rows a
# beam s^0.35 as wide finds as much in (1 / s)^0.6 of the time: measured at 160,000 x 384 (145 us at recall 0.95; 1.4,
# 2.3 and 4.3 times that for a half, a quarter, a tenth). At 40,000 the codes of all are looked at as fast.
_GRAPH_EF, _GRAPH_EF_POWER, _GRAPH_ROWS, _GRAPH_POWER, _GRAPH_LIVE_MIN = 64, 0.35, 12_000, 0.6, 65_536
LEAVES = 64  # of a tree, for a search without a tenant that nobody has said or learned anything about
NPROBE = 128  # lists of a search that nobody has said or learned anything about


class Plan(NamedTuple):
    """strategy: "exact", "rows", "graph", "lists" or "tree"; width: beam of a graph, lists or leaves to look at;
    reason: one clause for `explain`.
    """

    strategy: str
    width: int
    reason: str

    def search_params(self, asked: SearchParams) -> SearchParams:
        """What the index is told."""
        graph, lists = self.strategy == "graph", self.strategy in ("lists", "tree")
        if self.strategy == "tree" and self.width == 0:
            return (
                asked
                if asked.nprobe is None and asked.ef is None
                else SearchParams(recall=asked.recall, threads=asked.threads)
            )
        said = (graph and asked.ef == self.width) or (lists and asked.nprobe == self.width)
        if said and asked.recall is None and not asked.exact:
            return asked
        return SearchParams(
            self.width if graph else None, self.width if lists else None, None, not graph and not lists, asked.threads
        )


def plan(
    config: IndexConfig,
    indexed_rows: int,
    visibility: Visibility,
    limit: int,
    params: SearchParams,
    tuned: Sequence[MeasuredRecall],
    tuned_ef: int | None,
    matching: int | None = None,
    scan_rows: int | None = None,
    scan_share: int = 1,
    by_graph: bool = False,
) -> Plan:
    """Choose. matching : live rows that the search is restricted to; None: not restricted.   scan_rows : what
    `measured_scan` of width_tuning.py found.   scan_share : of the index.
    by_graph : `prefers_companion_graph`, and there is one beside the tree.

    Raises InvalidArgument where a recall is asked for that nothing was learned about.
    """
    scan = "exact" if matching is None else "rows"
    if params.exact:
        return Plan(scan, 0, "asked for")
    if isinstance(config, Flat):
        return Plan(scan, 0, "flat index")
    if indexed_rows == 0:
        return Plan(scan, 0, "nothing is indexed yet")
    if isinstance(config, Curator):
        if by_graph:
            share = 1.0 if matching is None else matching / visibility.live_count
            return Plan("graph", _beam(limit, params, tuned, share), "much of many rows")
        most = -(-visibility.live_count // scan_share)
        return _tree(config, limit, params, tuned, tuned_ef, most, matching, scan_rows)
    live = visibility.live_count
    lists = isinstance(config, Spann)
    if lists and live < limits.flat_rows_max:
        return Plan(scan, 0, f"{live} live rows are scanned faster than lists are chosen")
    if isinstance(config, Spann):
        width, reason = _nprobe(config, limit, params, tuned, tuned_ef)
    else:
        width, reason = _ef(config, limit, params, tuned, tuned_ef)
    if not lists and width >= _SCAN_SHARE * live:
        return Plan(scan, 0, f"a beam of {width} over {live} live rows costs more than a scan")
    if matching is None:
        return Plan("lists" if lists else "graph", width, reason)
    if matching * matching <= _SCAN_PER_WIDTH * width * live:
        return Plan("rows", 0, f"{matching} rows of {live} are scanned faster than they are met")
    if not lists:
        return Plan("graph", width, reason)
    return Plan("lists", min(limits.nprobe_max, -(-width * live // matching)), f"{reason}, widened")


def _ef(
    config: Hnsw, limit: int, params: SearchParams, tuned: Sequence[MeasuredRecall], tuned_ef: int | None
) -> tuple[int, str]:
    if params.ef is not None:
        return max(params.ef, limit), "ef given"
    if params.recall is not None:
        return max(width_for_recall(params.recall, limit, tuned), limit), f"learned for recall {params.recall}"
    if tuned_ef is not None:
        return max(tuned_ef, limit), "tuned"
    return max(config.ef, limit), "default of the index"


_OF_TENANT = Plan("tree", 0, "the codes of all rows of the tenant")
_SCAN_ALL_CODES = Plan("tree", 0, "the codes of all rows")


def _tree(
    config: Curator,
    limit: int,
    params: SearchParams,
    tuned: Sequence[MeasuredRecall],
    tuned_ef: int | None,
    most: int,
    matching: int | None,
    scan_rows: int | None,
) -> Plan:
    """most : rows that lie scattered, of which a look takes as long as one at all rows."""
    few = config.scan_max or scan_rows or SCAN_ROWS
    if matching is None:
        if most <= few and params.nprobe is None and config.nprobe is None:
            return _SCAN_ALL_CODES
        return Plan("tree", *_nprobe(config, limit, params, tuned, tuned_ef))
    if min(matching, most) <= few:
        return _OF_TENANT
    if params.recall is None:
        return Plan("tree", params.nprobe or idle_nodes_max(tuned), "a large tenant, along the tree")
    # the tree was learned about without a tenant: what another recall takes there, it takes here
    more = width_for_recall(params.recall, limit, tuned) / width_for_recall(_PATIENCE_RECALL, limit, tuned)
    return Plan(
        "tree", max(1, round(idle_nodes_max(tuned) * more)), f"a large tenant, learned for recall {params.recall}"
    )


def prefers_companion_graph(
    config: IndexConfig,
    limit: int,
    params: SearchParams,
    tuned: Sequence[MeasuredRecall],
    live: int,
    matching: int | None,
    scan_share: int,
) -> bool:
    """Whether a graph beside the tree would answer sooner than a look at the rows' codes does."""
    rows = live if matching is None else matching
    chosen = not isinstance(config, Curator) or config.scan_max is not None or config.nprobe is not None
    if chosen or params.exact or params.nprobe is not None or live < _GRAPH_LIVE_MIN or rows == 0:
        return False
    walk: float = _GRAPH_ROWS * _beam(limit, params, tuned) / _GRAPH_EF * (live / rows) ** _GRAPH_POWER
    return walk < min(rows, live / scan_share)


def _beam(limit: int, params: SearchParams, tuned: Sequence[MeasuredRecall], share: float = 1.0) -> int:
    """Of the graph beside a tree; share : of the rows that may be returned."""
    ef: float = _GRAPH_EF * share**_GRAPH_EF_POWER
    if params.ef is not None:
        ef = params.ef
    elif params.recall is not None and tuned:
        # the tree was learned about: what another recall takes there, it takes in the graph
        ef *= width_for_recall(params.recall, limit, tuned) / width_for_recall(_PATIENCE_RECALL, limit, tuned)
    return max(limit, min(limits.ef_max, round(ef)))


def idle_nodes_max(tuned: Sequence[MeasuredRecall]) -> int:
    """Looks at nodes of a tree that change nothing before a search among a large tenant's rows ends."""
    return round(_PATIENCE_SHARE * width_for_recall(_PATIENCE_RECALL, 1, tuned)) if tuned else PATIENCE


def _nprobe(
    config: Spann | Curator, limit: int, params: SearchParams, tuned: Sequence[MeasuredRecall], tuned_ef: int | None
) -> tuple[int, str]:
    if params.nprobe is not None:
        return params.nprobe, "nprobe given"
    if params.recall is not None:
        return width_for_recall(params.recall, limit, tuned), f"learned for recall {params.recall}"
    if tuned_ef is not None:
        return tuned_ef, "tuned"
    default = NPROBE if isinstance(config, Spann) else LEAVES
    return config.nprobe or default, "default of the index"


def width_for_recall(recall: float, limit: int, tuned: Sequence[MeasuredRecall]) -> int:
    """The smallest measured ef (or nprobe) that reached `recall`, at the nearest limit that was measured at least as
    large (else scaled up).
    """
    if not tuned:
        raise InvalidArgument(
            f"recall={recall} was asked for, but this collection has not learned how wide a search reaches it; "
            "call optimize() or tune() once"
        )
    measured = sorted({point.limit for point in tuned})
    at = next((value for value in measured if value >= limit), measured[-1])
    points = sorted((point for point in tuned if point.limit == at), key=lambda point: point.ef)
    chosen = next((point.ef for point in points if point.recall >= recall), None)
    if chosen is None:
        chosen = (
            points[-1].ef * 2
        )  # beyond what was measured: the next doubling, the most that is still a guess about this data
    return min(limits.ef_max, chosen * max(1, -(-limit // at)))
