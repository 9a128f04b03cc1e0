"""A search of list indexes over shards, made so that a query reads about the rows that one collection reads.

    first     every shard names the rows that it would read, with estimates of their distances
    chosen    of all shards together: what one collection would read        `chosen_rows`
    second    the shards that have some of them score those, and give hits, fields and vectors

A shard alone cannot know how near the rows of others are: it reads about as many as one collection does. A shard that
does not look at lists answers hits in the first round: it has settled, and its distances are compared with estimates.

The rows that are chosen are there at the second round unless somebody has deleted them, or changed what a filter says.
Where hits are then too few, where a vacuum has numbered rows anew, or a shard does not answer, the caller searches in
one round. Where there are enough of them the next ones take the places, as where lists were missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.api.hits import Hits, NamedRows
from vecdb.cluster import merging
from vecdb.cluster.asking.legs import FanOut, Leg, ShardsUnavailable, together
from vecdb.errors import Unavailable
from vecdb.schema import Metric, SearchParams
from vecdb.wire.two_rounds import named_message

# Hits that a call asks for, queries * limit, from which on two rounds take less time than one: a second call to every
# shard costs some milliseconds, and each hit saves reads. Measured with four servers on two cores, 60,000 SIFT rows,
# 20 lists each, best of five medians in turn, ms a call in one round and in two:
#     limit 10    1 query 3.9, 8.4    8: 8.9, 13.1    16: 15.4, 17.1    24: 27, 25    64: 47, 38    1,000: 701, 511
#     limit 100   1 query 8.7, 11.1   2: 17.1, 15.7   8: 53, 30         64: 361, 200                1,000: 4,993, 2,474
HITS_MIN = 256
HITS_MAX = 1 << 19  # the rows that shards name take a hundred bytes for each hit
_MORE_MIN, _MORE_SHARE = 2, 5  # rows past the limit that are read in any case, as one collection does
_ADDED = ("probes", "heads_compared", "rows_scanned", "reads", "bytes_read", "reranked")  # of `explain`, and times

Ask = Callable[[tuple[int, ...], tuple[str, ...]], FanOut]


def is_worth_it(queries: int, limit: int, params: SearchParams, shards: int) -> bool:
    """Whether searches of a list index by these arguments are made in two rounds."""
    return shards > 1 and not params.exact and HITS_MIN <= queries * limit <= HITS_MAX


@dataclass(frozen=True, slots=True)
class SearchInRounds:
    """One search. search(shard, tenants, later, rounds) : asks shards, `later` together with others; rounds : fields of
    the request.
    """

    search: Callable[..., FanOut]
    queries: int
    limit: int
    rerank: int | None
    metric: Metric
    single: bool
    select: tuple[str, ...] | None
    stop: Callable[[], bool] | None

    def hits(self, answered: Callable[[Ask], tuple[list[Leg], tuple[int, ...]]]) -> Hits | None:
        """None where one round must answer. answered(ask) : what shards answer to ask(shards, tenants), and which are
        missing.
        """
        asked: dict[int, tuple[str, ...]] = {}

        def ask(shards: tuple[int, ...], tenants: tuple[str, ...]) -> FanOut:
            asked.update(dict.fromkeys(shards, tenants))
            return self.search(shards, tenants, rounds={"name_rows": len(shards)})

        legs, missing = answered(ask)
        found: dict[int, Any] = {leg.shard: leg.value for leg in legs}
        named = {shard: value for shard, value in found.items() if isinstance(value, NamedRows)}
        if named:
            chosen = chosen_rows(found, self.queries, self.limit, self.rerank)
            if self.stop is not None and self.stop():
                raise Unavailable("the search was cancelled between its two rounds")
            scored = self._scored(legs, chosen, asked)
            if scored is None:
                return None
            for shard, rows in named.items():
                found[shard] = self._with_explain(rows, scored.get(shard))
        merged = merging.merge_hits(
            found, self.limit, self.metric, self.select, queries=self.queries, single=self.single, missing=missing
        )
        moved = False
        for shard, rows in named.items():
            moved |= merged.sequence[shard] != rows.sequence
            merged.sequence[shard] = rows.sequence  # at which rows were looked for: no later one is in the answer
        if moved and int(merged.counts.min(initial=self.limit)) < self.limit:
            return None
        return merged

    def _scored(
        self, legs: list[Leg], chosen: Mapping[int, NamedRows], asked: Mapping[int, tuple[str, ...]]
    ) -> dict[int, Hits] | None:
        """The second round, of each shard asked of the server that has named the rows, as long as that answers."""
        firsts = {leg.shard: leg.answered_by for leg in legs}
        calls = [
            self.search(
                (shard,), asked[shard], first=firsts[shard],
                rounds={"score_rows": named_message(rows, estimated=False)},
            )
            for shard, rows in chosen.items()
        ]  # fmt: skip
        scored: dict[int, Hits] = {}
        for leg in together(calls, self.stop).gather():
            if leg.error is None:
                scored[leg.shard] = leg.value
            elif isinstance(leg.error, Unavailable) and not isinstance(leg.error, ShardsUnavailable):
                raise leg.error  # its time is up, or the call was broken off
            else:
                return None
        return scored

    def _with_explain(self, named: NamedRows, scored: Hits | None) -> Hits:
        """What a shard gave in the second round, nothing where no row of it was chosen, with the work of both."""
        hits = scored if scored is not None else self._nothing(named.sequence)
        if named.explain is not None:
            hits.explain = summed(named.explain, hits.explain or {})
        return hits

    def _nothing(self, sequence: int) -> Hits:
        shape = (1 if self.single else self.queries, 0 if self.single else self.limit)
        ids, distances = np.full(shape, -1, np.int64), np.full(shape, np.inf, np.float32)
        counts = np.zeros(shape[0], np.int64)
        return Hits(ids, distances, counts, sequence, self.metric, self.single)


def summed(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What `explain` says of both rounds of a shard: work and times are added, all else is of the first."""
    made = dict(first)
    for name, value in second.items():
        if name in _ADDED or name.endswith("_ms"):
            made[name] = made.get(name, 0) + value
    return made


def chosen_rows(
    found: Mapping[int, Hits | NamedRows], queries: int, limit: int, rerank: int | None = None
) -> dict[int, NamedRows]:
    """Of the rows that shards have named, those that may be among the nearest of all; shards without one are left out.

    As one collection does: rows are in the order of their estimates, and kept while an estimate is within the mean
    margin of the first `limit`, past the last of these; and a few more than `limit` in any case, or as many as `rerank`
    says. Hits of shards that have settled are among them with their distances.
    """
    shards = list(found)
    parts = [_flat(found[shard]) for shard in shards]
    of_query = np.concatenate([np.repeat(np.arange(queries), counts) for counts, _, _ in parts])
    of_shard = np.repeat(np.arange(len(parts)), [len(estimates) for _, estimates, _ in parts])
    estimates = np.concatenate([estimates for _, estimates, _ in parts])
    margins = np.concatenate([margins for _, _, margins in parts])
    order = np.lexsort((of_shard, estimates, of_query))
    of_query, estimates = of_query[order], estimates[order]
    counts = np.bincount(of_query, minlength=queries)
    starts = np.cumsum(counts) - counts
    place = np.arange(len(order)) - starts[of_query]
    first = place < limit
    margin = np.bincount(of_query[first], weights=margins[order][first], minlength=queries) / limit
    bound = np.full(queries, np.inf)
    full = counts >= limit
    bound[full] = estimates[starts[full] + limit - 1] + margin[full]
    least = limit + max(_MORE_MIN, limit // _MORE_SHARE) if rerank is None else max(limit + _MORE_MIN, rerank)
    near = estimates <= bound[of_query] if rerank is None else np.zeros(len(order), bool)
    kept = np.empty(len(order), bool)
    kept[order] = near | (place < least)
    made = {}
    ends = np.cumsum([len(part[1]) for part in parts])
    for at, shard in enumerate(shards):
        rows = found[shard]
        some = kept[ends[at] - len(parts[at][1]) : ends[at]]
        if isinstance(rows, NamedRows) and some.any():
            made[shard] = _taken(rows, some, queries)
    return made


def _flat(found: Hits | NamedRows) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """(counts of each query, distances or estimates of all, margins)."""
    if isinstance(found, NamedRows):
        return found.counts, found.estimates, found.margins
    distances = found.distances if found.single else found.distances[_real(found)]
    return found.counts, distances, np.zeros(len(distances), np.float32)


def _real(hits: Hits) -> NDArray[np.bool_]:
    real: NDArray[np.bool_] = np.arange(hits.distances.shape[1]) < hits.counts[:, None]
    return real


def _taken(named: NamedRows, some: NDArray[np.bool_], queries: int) -> NamedRows:
    """Those rows of all queries that a mask marks."""
    counts = np.bincount(np.repeat(np.arange(queries), named.counts)[some], minlength=queries)
    return NamedRows(
        named.rows[some], counts, named.generation, named.sequence, named.estimates[some], named.margins[some]
    )  # fmt: skip
