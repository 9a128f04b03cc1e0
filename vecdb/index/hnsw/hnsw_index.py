"""HNSW (Malkov and Yashunin, 2016): when rows join the graph, when it grows and is repaired, and how it is searched.

    rows    0 ........... indexed ............ row_count
            in the graph  tail: codes scanned, no links

Three roles (contract.py): searches take `self._view` once and hold no lock; the maintenance caller changes links in
place and publishes views; the publisher encodes new rows. The lock only orders the last two where they replace arrays.

Invariants (`check` proves them): links lie below `indexed`, never name the row itself or one row twice; no linked row
links to an unlinked dead one; after `connect_unreachable` every linked row is reachable from the entry point on layer
0; codes are what encoding gives. Unlinked are the indexed rows deleted at or before `removed`, which those without a
vector always are; nothing else records them.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, schema
from vecdb.index.clustering.partition import Partition
from vecdb.index.common import code_choice, sealed_file
from vecdb.index.common.batching import (
    as_float32_queries,
    complete_short_answers,
    empty_result,
    explain_scan,
    map_query_slices,
)
from vecdb.index.common.memory import grown
from vecdb.index.common.quantizer import SQ8, ScalarQuantizer
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import (
    Index,
    Neighbors,
    OneQuerySearch,
    Progress,
    RowSource,
    SealedFile,
    corrupt_row_error,
)
from vecdb.index.exact.scan import scan_exactly, searching_one
from vecdb.index.hnsw import filtered, graph_codes, graph_file, invariants, one_query
from vecdb.index.hnsw.construction import GraphBuilder
from vecdb.index.hnsw.graph import Graph, GraphView, levels_of, upper_room
from vecdb.index.hnsw.link_places import are_by_angle, places_for
from vecdb.index.hnsw.scratch import ScratchPool
from vecdb.index.hnsw.state import HnswState, renumbered
from vecdb.index.row_set import RowSet
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.primitives.distance import METRIC_CODES
from vecdb.kernels.primitives.visibility import deleted_by
from vecdb.kernels.search import graph_search
from vecdb.schema import SearchParams, Visibility
from vecdb.storage.disk.row_file import WITHOUT_VECTOR, RowArrays

_BATCH_SHARE = 50  # a batch is at most 1/50 of the graph: its points do not see one another
_BATCH_MIN = 16
_QUERIES_PER_SLICE = 64
_EF = 64  # beam width where nobody names one


def batch_end(linked: int, first: int, left_out: NDArray[np.bool_]) -> int:
    """Where the batch that begins at row `first` ends: a function of the rows alone, so that the graph is too.

    linked : rows that the graph links. A batch is small beside them, since its rows are looked for among those.
    left_out : bool[any], of the rows from `first` on, which are not to be linked and do not count.
    """
    most = max(1, linked) if linked < _BATCH_MIN else max(_BATCH_MIN, linked // _BATCH_SHARE)
    if len(left_out) <= most:
        return first + len(left_out)
    taken = np.flatnonzero(~left_out)[:most]
    return first + (int(taken[-1]) + 1 if len(taken) == most else len(left_out))


class HnswIndex(Index):
    """See the module's text. seed : of the levels; part of the sealed file."""

    kind = "hnsw"

    def __init__(self, config: schema.Hnsw, metric: str, rows: RowSource, *, seed: int = 0) -> None:
        self.config = config
        self.metric = metric
        self.seed = seed
        self.removed = int(WITHOUT_VECTOR)
        self._metric = METRIC_CODES[metric]
        self._rows = rows
        self._view: GraphView | None = None
        self._coded = 0
        self._published = 0
        self._upper_used = 0
        self._spoiled = False
        self._lock = threading.Lock()
        self._workers = ThreadPool()
        self._partition = Partition()
        self._scratches = ScratchPool()

    # -- publisher ---------------------------------------------------------------------------------

    @property
    def indexed_rows(self) -> int:
        return self._view.indexed if self._view is not None else 0

    @property
    def version(self) -> object:
        return self if self._view is None else self._view

    @property
    def code_bytes(self) -> int:
        return self._view.graph.codes.shape[1] if self._view is not None else 0

    @property
    def is_spoiled(self) -> bool:
        return self._spoiled

    def publish_rows(self, row_count: int) -> None:
        with self._lock:
            self._published = max(self._published, row_count)
            self._encode(row_count)

    def _encode(self, row_count: int, *, find_flat: bool = True) -> None:
        """Codes for the rows up to `row_count`; under the lock. Without a quantiser the tail is scanned on full
        vectors. find_flat : see graph_codes.py.
        """
        view = self._view
        if view is None or row_count <= self._coded:
            return
        arrays = self._rows.arrays
        graph = self._with_room(view.graph, row_count, self._coded)
        far = graph_codes.encode(graph, arrays, self._metric, self._coded, row_count, find_flat=find_flat)
        if len(far):
            graph = graph.replace(far=np.concatenate([graph.far, far]))
        self._coded = row_count
        if graph is not view.graph or arrays is not view.arrays:
            self._view = view.replace(graph=graph, arrays=arrays)

    def _with_room(self, graph: Graph, row_count: int, coded: int) -> Graph:
        """Room for the codes of `row_count` rows, of which `coded` have theirs. Links are not touched: a batch may be
        writing them right now.
        """
        if row_count <= len(graph.codes):
            return graph
        capacity = max(row_count, 2 * len(graph.codes))
        return graph.replace(
            codes=grown(graph.codes, capacity, coded),
            bias=grown(graph.bias, capacity, coded) if len(graph.bias) else graph.bias,
        )

    def _with_link_room(self, graph: Graph, indexed: int, stop: int, upper_rows: int) -> Graph:
        """Room for the links of rows below `stop`. Maintenance only, between batches: nobody else writes links."""
        if stop > len(graph.links):
            capacity = max(stop, 2 * len(graph.links))
            graph = graph.replace(
                links=grown(graph.links, capacity, indexed),
                slot=grown(graph.slot, capacity, indexed),
                levels=grown(graph.levels, capacity, indexed),
            )
        if upper_rows > len(graph.upper):
            room = max(upper_rows, 2 * len(graph.upper), upper_room(len(graph.links), self.config.m))
            graph = graph.replace(upper=grown(graph.upper, room, self._upper_used))
        return graph

    # -- maintenance -------------------------------------------------------------------------------

    def next_stop(self, row_count: int) -> int:
        """Doubling while the graph is small, then a bounded step; whole steps."""
        indexed, step = self.indexed_rows, limits.index_step_rows
        return min(row_count, indexed + max(step, min(indexed // 50, 16_384) // step * step))

    def add(self, stop: int, threads: int = 1, progress: Progress = None) -> None:
        if stop <= self.indexed_rows:
            return
        self._prepare(stop, threads)
        left_out = self._unlinked(self._rows.arrays, stop)  # by deletions up to `removed`: later ones change nothing
        while (first := self.indexed_rows) < stop:
            linked = first - int(np.count_nonzero(left_out[:first]))
            end = batch_end(linked, first, left_out[first:])
            self._add_batch(end, left_out[first:end], threads)
            if progress is not None:
                progress(self.indexed_rows, stop)

    def take_over(self, other: Index) -> None:
        """Codes that were measured on these rows. Ordinary ones are trained anew: the graph is what it always was."""
        view = other._view if isinstance(other, HnswIndex) else None
        if view is None or self._view is not None:
            return
        quantiser = view.graph.quantiser
        if other.is_spoiled or not code_choice.is_ordinary(quantiser, self._metric):
            by_angle = are_by_angle(self._rows.arrays, self._metric, self._published)
            self._start(quantiser, min(self._published, quantiser.measured_rows), by_angle=by_angle)

    def _prepare(self, stop: int, threads: int) -> None:
        """Choose how rows are encoded, or look at it again, and make sure that rows below `stop` have codes and
        room.
        """
        arrays = self._rows.arrays
        if self._view is None:
            by_angle = are_by_angle(arrays, self._metric, max(stop, self._published))
            choice = code_choice.choose(
                arrays, self._metric, stop, threads=threads, workers=self._workers, rotated=by_angle
            )
            self._start(choice.quantiser, stop, by_angle=by_angle)
            return
        self.publish_rows(stop)
        graph = self._current().graph
        new, all_rows = self.indexed_rows, stop >= self._published
        if not code_choice.is_due(graph.quantiser, graph.far, graph.codes[:stop], new, all_rows=all_rows):
            return
        rows, one_kind = max(stop, self._published), graph.places.second == 0
        by_angle = are_by_angle(arrays, self._metric, rows)
        choice = code_choice.choose(
            arrays, self._metric, stop, graph.quantiser, graph.far, threads=threads, workers=self._workers,
            rotated=by_angle,
        )  # fmt: skip
        places = places_for(arrays, self._metric, rows, choice.quantiser, self.config.m, by_angle=by_angle)
        if one_kind and places.second:
            self._spoiled = True  # it began with other rows, or before there were such links
        if choice.kept:
            with self._lock:
                view = self._current()
                self._view = view.replace(graph=view.graph.replace(quantiser=choice.quantiser))
            return
        self._encode_anew(choice.quantiser, stop)
        self._spoiled |= choice.links_are_spoiled and self.indexed_rows > 0

    def _start(self, quantiser: ScalarQuantizer, stop: int, *, by_angle: bool) -> None:
        """Begin the graph with codes of rows below `stop`, and of those published before, which wait in the tail.
        by_angle : see `are_by_angle`.
        """
        arrays = self._rows.arrays
        rows = max(stop, self._published)
        biased = code_choice.needs_bias(quantiser, arrays, self._metric, rows)
        places = places_for(arrays, self._metric, rows, quantiser, self.config.m, by_angle=by_angle)
        graph = Graph.reserve(arrays.capacity, self.config.m, biased, quantiser, places)
        with self._lock:
            self._view = GraphView(graph, arrays, self._metric, 0, -1, 0)
            self._encode(stop, find_flat=False)
            self._encode(self._published)

    def _encode_anew(self, quantiser: ScalarQuantizer, stop: int) -> None:
        """Codes by another quantizer, in fresh arrays; links stay. Searches that run keep the old codes with the old
        quantizer.
        """
        arrays, coded, old = self._rows.arrays, self._coded, self._current().graph
        biased = code_choice.needs_bias(quantiser, arrays, self._metric, stop) or (
            len(old.bias) > 0 and quantiser.code_format == SQ8
        )
        fresh = old.with_codes(quantiser, biased)
        far = graph_codes.encode(fresh, arrays, self._metric, 0, coded)
        self._load_search(self._current().replace(graph=fresh))
        with self._lock:  # the publisher may have encoded more rows by the old quantizer meanwhile
            view, arrays = self._current(), self._rows.arrays
            graph = view.graph.replace(quantiser=quantiser, codes=fresh.codes, bias=fresh.bias)
            graph = self._with_room(graph, self._coded, coded)
            more = graph_codes.encode(graph, arrays, self._metric, coded, self._coded, find_flat=True)
            self._view = view.replace(graph=graph.replace(far=np.concatenate([far, more])), arrays=arrays)

    def _load_search(self, view: GraphView) -> None:
        """Search once: the kernel for codes of another format takes seconds to compile, and no user's search is to wait
        for it.
        """
        query, found = np.array(view.arrays.vectors[:1], np.float32), empty_result(1, 1)
        self._answer(view, one_query.search_table(_EF, _EF, Visibility(0, 0, 0)), _EF, _EF, query, found)

    def _add_batch(self, stop: int, left_out: NDArray[np.bool_], threads: int) -> None:
        with self._lock:
            view = self._current()
            first = view.indexed
            graph = view.graph
            levels = levels_of(first, stop, self.config.m, self.seed)
            used = self._upper_used + int(levels.sum(dtype=np.int64))
            graph = self._with_link_room(graph, first, stop, used)
            if graph is not view.graph:
                self._view = view.replace(graph=graph)
            ends = self._upper_used + np.cumsum(levels, dtype=np.int64)
            graph.levels[first:stop] = levels
            graph.slot[first:stop] = np.where(levels > 0, ends - levels, -1)
            graph.links[first:stop] = -1
            graph.upper[self._upper_used : used] = -1
            self._upper_used = used
        if view.entry >= 0:
            builder = self._builder(graph, threads)
            builder.insert(first, stop, left_out, self.removed, view.entry, view.level)
        candidates = np.where(left_out, -1, levels)
        entry, level = view.entry, view.level
        if candidates.max() > (level if entry >= 0 else -1):
            # The first batch of an empty graph has an entry point and no links yet: `connect_unreachable` adds them.
            entry = first + int(candidates.argmax())
            level = int(candidates.max())
        self._publish(stop, entry, level)
        if view.entry < 0 and entry >= 0 and stop - first > 1:
            self.connect_unreachable(threads)

    def _publish(self, indexed: int, entry: int, level: int) -> None:
        with self._lock:
            self._view = self._current().replace(arrays=self._rows.arrays, indexed=indexed, entry=entry, level=level)

    def _builder(self, graph: Graph, threads: int) -> GraphBuilder:
        return GraphBuilder(graph, self._rows.arrays.deleted, self.config, threads, self._workers, self._scratches)

    def _unlinked(self, arrays: RowArrays, stop: int) -> NDArray[np.bool_]:
        return deleted_by(arrays.deleted[:stop], self.removed)

    def remove(self, sequence: int, threads: int = 1) -> int:
        view = self._view
        if sequence <= self.removed:
            return 0
        if view is None:
            self.removed = sequence  # `add` will leave out what is dead by then
            return 0
        arrays = self._rows.arrays
        before = self._unlinked(arrays, view.indexed)
        deleted = arrays.deleted[: view.indexed]
        dead = deleted_by(deleted, sequence)
        fresh = int(dead.sum() - before.sum())
        if fresh:
            self._builder(view.graph, threads).repair(view.indexed, view.level, dead)
        self.removed = sequence
        if fresh:
            entry, level = view.entry, view.level
            if entry < 0 or dead[entry]:
                entry, level = self._promote(view, dead, deleted)
                self._publish(view.indexed, entry, level)
            self.connect_unreachable(threads)
        return fresh

    def _promote(self, view: GraphView, dead: NDArray[np.bool_], deleted: NDArray[np.uint64]) -> tuple[int, int]:
        """A new entry point: on the highest level, living rather than deleted but still visible to someone, lowest
        row.
        """
        levels = view.graph.levels[: view.indexed].astype(np.int32)
        rank = np.where(dead, -1, 2 * levels + (deleted == 0))
        if len(rank) == 0 or rank.max() < 0:
            return -1, 0
        living = np.flatnonzero((levels == levels[~dead].max()) & ~dead)
        entry = int(living[np.argmax(deleted[living] == 0)])
        return entry, int(levels[entry])

    def connect_unreachable(self, threads: int = 1) -> int:
        view = self._view
        if view is None:
            return 0
        arrays = self._rows.arrays
        dead = self._unlinked(arrays, view.indexed)
        entry, level = view.entry, view.level
        if entry < 0:
            entry, level = self._promote(view, dead, arrays.deleted[: view.indexed])
            if entry < 0:
                return 0
            self._publish(view.indexed, entry, level)
        return self._builder(view.graph, threads).connect_unreachable(view.indexed, dead, entry, level)

    # -- search ------------------------------------------------------------------------------------

    def search(
        self,
        queries: NDArray[Any],
        limit: int,
        visibility: Visibility,
        params: SearchParams,
        allow: RowSet | None = None,
    ) -> Neighbors:
        view = self._view
        queries = as_float32_queries(queries)
        if view is None or params.exact:
            return self._exactly(queries, limit, visibility, allow, params.threads)
        if view.arrays is not self._rows.arrays:
            view = view.replace(arrays=self._rows.arrays)
        width, rerank = self._widths(limit, params)
        if allow is not None:
            of = filtered.Matching(view, allow, visibility, width)
            return filtered.search(
                queries, limit, of, params.threads, self._workers, self._scratches, _QUERIES_PER_SLICE
            )
        found = empty_result(len(queries), limit)
        answer = partial(self._answer, view, one_query.search_table(width, rerank, visibility), width, rerank)
        map_query_slices(answer, queries, found, _QUERIES_PER_SLICE, params.threads, self._workers)
        complete_short_answers(found, queries, limit, visibility, None, params.threads, self._exactly)
        return found

    def searching_one(
        self, limit: int, visibility: Visibility, params: SearchParams, norms: tuple[float, float],
        ids: NDArray[np.int64] | None,
    ) -> OneQuerySearch | None:  # fmt: skip
        view = self._view
        if params.exact and params.threads == 1:
            return searching_one(self._rows.arrays, self._metric, limit, visibility, norms, ids)
        if view is None or params.exact:
            return None
        if view.arrays is not self._rows.arrays:
            view = view.replace(arrays=self._rows.arrays)
        width, rerank = self._widths(limit, params)
        search = one_query.search_table(width, rerank, visibility, norms, ids)
        return one_query.searching(view, search, limit, width, rerank, self._scratches)

    def _widths(self, limit: int, params: SearchParams) -> tuple[int, int]:
        """How wide the beam is, and how many candidates are scored on their vectors."""
        width = max(params.ef or self.config.ef or _EF, limit)
        return width, max(limit + 10, 2 * limit, width // 4) if self.config.quantization is not None else width

    def _answer(
        self,
        view: GraphView,
        search: ArrayTable,
        width: int,
        rerank: int,
        queries: NDArray[np.float32],
        found: Neighbors,
    ) -> None:
        scratch = self._scratches.take(view.graph, width, rerank)
        state = graph_search.search_graph(
            queries.reshape(-1), found.rows.reshape(-1), found.distances.reshape(-1), found.counts, found.work,
            search.table, view.table.table, view.vectors, scratch.table.table, scratch.blocks,
        )  # fmt: skip
        self._scratches.give(scratch)
        if state >= 0:
            raise corrupt_row_error(state, view.arrays)

    def _exactly(
        self, queries: NDArray[np.float32], limit: int, visibility: Visibility, allow: RowSet | None, threads: int
    ) -> Neighbors:
        return scan_exactly(self._rows.arrays, self._metric, queries, limit, visibility, allow, threads, self._workers)

    # -- files and figures -------------------------------------------------------------------------

    def centres(self, row_count: int) -> NDArray[np.float32]:
        return self._partition.centres(self._rows.arrays, self._metric, row_count, self._workers)

    def seal(self, path: Path) -> SealedFile:
        return graph_file.write(path, _facts(self.config, self.metric, self._rows), self._state())

    @classmethod
    def open(cls, path: Path, config: schema.Hnsw, metric: str, rows: RowSource, *, mapped: bool = False) -> HnswIndex:
        """Load a sealed file. mapped : keep links in the page cache, read-only, for a process that never maintains the
        index.

        Raises Corruption when the file is damaged or belongs to other parameters; the caller rebuilds.
        """
        return cls.from_state(
            config, metric, rows, graph_file.read(path, _facts(config, metric, rows), rows.arrays, mapped)
        )

    @classmethod
    def from_state(cls, config: schema.Hnsw, metric: str, rows: RowSource, state: HnswState) -> HnswIndex:
        new = cls(config, metric, rows, seed=state.seed)
        new.removed = max(state.removed, new.removed)
        new._view = state.view
        new._coded = state.coded_rows
        new._upper_used = state.upper_used
        new._spoiled = state.spoiled
        return new

    def _state(self) -> HnswState:
        return HnswState(self._view, self._coded, self._upper_used, self.removed, self.seed, self._spoiled)

    def renumbered(self, mapping: NDArray[np.int64], rows: RowSource) -> HnswIndex:
        """Call `remove` first. Rows that are gone without having been unlinked leave their neighbours with fewer links;
        those that become unreachable by that are linked again.
        """
        state = renumbered(self._state(), mapping, rows.arrays, self.config.m)
        new = HnswIndex.from_state(self.config, self.metric, rows, state)
        new.connect_unreachable()
        return new

    def check(self) -> list[str]:
        view = self._view
        if view is None:
            return []
        return invariants.violations(view, self._unlinked(self._rows.arrays, view.indexed))

    def explain(self, work: NDArray[np.int64]) -> dict[str, Any]:
        return explain_scan(work)

    def stats(self) -> dict[str, Any]:
        view = self._view
        return {
            "kind": self.kind,
            "m": self.config.m,
            "ef_construction": self.config.ef_construction,
            "ef": self.config.ef,
            "indexed_rows": self.indexed_rows,
            "level": view.level if view is not None else 0,
            "removed_sequence": self.removed,
            **(code_choice.stats(view.graph.quantiser) if view is not None else {}),
            "bytes_ram": view.graph.nbytes(self._coded, self._upper_used) if view is not None else 0,
        }

    def close(self) -> None:
        self._workers.close()

    def _current(self) -> GraphView:
        assert self._view is not None
        return self._view


def _facts(config: schema.Hnsw, metric: str, rows: RowSource) -> dict[str, Any]:
    """What a sealed file says of the collection and its parameters."""
    common = sealed_file.common_header(HnswIndex.kind, metric, rows.arrays.vectors)
    return {**common, "m": config.m, "ef_construction": config.ef_construction}
