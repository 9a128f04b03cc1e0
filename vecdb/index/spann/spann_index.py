"""SPANN (Chen et al., 2021) over posting lists: how many lists there are, what stays in memory, and the search call.

    rows    0 ........... indexed ............ row_count
            in lists      tail: vectors scanned

    search  heads -> lists -> [codes from disk, all at once] -> shortlist -> vectors from disk, all at once -> answer

With codes in memory a query touches the disk once. With none it is the paper's: lists are read, scanned, and the best
of them re-ranked. In between the hottest lists are in memory and are scanned while the others are being read.

Vectors are read from the row file itself, past the page cache: keeping a second copy of them in the order of the lists
would let survivors share pages (15 reads instead of 20), but doubles the disk and rewrites vectors with every split.

Three roles (contract.py): searches take `lists.view` once; maintenance publishes new views; the publisher has nothing
to derive, because the tail is scanned on its vectors.

Invariants (invariants.py proves them): every row below `indexed` that is not dead is in one list at least and in none
twice; no list passes the ceiling after `rebalance`; codes and factors are what encoding gives; every extent in use is
sound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, schema
from vecdb.index.clustering import partition
from vecdb.index.clustering.assignment import comparisons_per_row
from vecdb.index.clustering.cluster_tree import comparisons
from vecdb.index.common import sealed_file, sq8_training
from vecdb.index.common.batching import as_float32_queries, complete_short_answers, map_query_slices
from vecdb.index.common.progress import WeightedProgress
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import (
    Candidates,
    Index,
    IndexCorruption,
    Neighbors,
    Progress,
    RowSource,
    ScoreRows,
    SealedFile,
    SearchesInRounds,
)
from vecdb.index.exact.scan import scan_exactly
from vecdb.index.row_set import RowSet
from vecdb.index.spann import bulk_build, invariants, list_directory, list_updates
from vecdb.index.spann.posting_lists import ListsState, ListsView, PostingLists
from vecdb.index.spann.searching.list_search import TOO_FEW, WORK, ListsContext, ListSearch, RowFile
from vecdb.index.spann.searching.two_rounds import NamingSearch, RowScoring
from vecdb.kernels.primitives.distance import METRIC_CODES
from vecdb.kernels.search.list_probe import ListWork
from vecdb.schema import SearchParams, Visibility
from vecdb.storage.disk import filesystem, list_file, mapped_memory

_CEILING, _CEILING_MIN = 2, 8  # times the fair share of a list; entries
_REPLICAS_ON_DISK = 4
_MATCHES_SHARE = 0.7  # of the matches that so many lists hold on average; fewer call for more lists
_PROBES_GROWTH = 3
_QUERIES_PER_SLICE = 16
_STEP_MAX = 16_384  # rows placed at once
_GARBAGE_SHARE, _BUILT_GARBAGE_SHARE = 0.5, 0.1  # of the list file, past which it is written anew: later, after a build
_GARBAGE_PAGES = 64  # of the list file, not worth a new one
_REBUILD_ROWS_MAX = 262_144  # a collection this small is clustered anew each time it has grown fourfold
_REBUILD_GROWTH = 4
# Times of a build's stages, measured on 300,000 and 1,000,000 x 128 uint8 with 1 and 4 replicas: a comparison while a
# tree grows, one that looks for replicas, and the splitting of long lists against the assignment.
_GROW_COST, _CLOSURE_COST, _SPLIT_COST = 1.0, 1.4, 0.11
_LEARNING_COST, _LEARNING_FROM_DISK_COST = 0.45, 0.8  # of the build before it
# Memory of a list beside its body and head: offset, length, extent, writer and count of probes (list_directory.py).
_LIST_BYTES = 20


class SpannIndex(Index, SearchesInRounds):
    """The index: see the module's text. folder : of the list file.   state : to go on from; None: nothing is built."""

    kind = "spann"
    prefers_bulk_build = True

    def __init__(
        self, config: schema.Spann, metric: str, rows: RowSource, folder: Path, state: ListsState | None = None
    ) -> None:
        self.config = config
        self.metric = metric
        self._metric = METRIC_CODES[metric]
        self._rows = rows
        self._row_file = RowFile(rows.path)
        self._checkpoint: tuple[str, ...] = ()  # files that a build left, of use until the index is sealed
        if state is None:
            replicas = config.replicas or (_REPLICAS_ON_DISK if config.memory_budget_bytes == 0 else 1)
            state = ListsState(view=None, removed=0, built_rows=0, replicas=replicas)
        self.lists = PostingLists(rows, folder, state)
        self._context: ListsContext | None = None
        self._workers = ThreadPool()
        self._partition = partition.Partition()

    # -- publisher ---------------------------------------------------------------------------------

    @property
    def indexed_rows(self) -> int:
        view = self.lists.view
        return view.indexed if view is not None else 0

    @property
    def version(self) -> object:
        return self if self.lists.view is None else self.lists.view

    @property
    def tuning_cost_share(self) -> float:
        return _LEARNING_COST if self.config.memory_budget_bytes is None else _LEARNING_FROM_DISK_COST

    def publish_rows(self, row_count: int) -> None:
        """Nothing to derive: the tail is scanned on its vectors."""

    # -- maintenance -------------------------------------------------------------------------------

    @property
    def ceiling(self) -> int:
        """Most entries of a list."""
        view = self.lists.current()
        if self.config.posting_bytes_max is not None:
            return max(_CEILING_MIN, (self.config.posting_bytes_max - list_file.EXTENT_BYTES) // view.coder.entry_bytes)
        return int(max(_CEILING_MIN, _CEILING * self.lists.replicas**0.5 / self.config.head_ratio))

    def next_stop(self, row_count: int) -> int:
        """Everything where lists are built from nothing, else a bounded step: it rewrites the lists that it meets, so
        long tails are taken in long steps.
        """
        indexed = self.indexed_rows
        if indexed == 0:
            return row_count
        tail, step = row_count - indexed, limits.index_step_rows
        return row_count if tail < 2 * step else indexed + min(tail, _STEP_MAX) // step * step

    def add(self, stop: int, threads: int = 1, progress: Progress = None) -> None:
        if stop <= self.indexed_rows:
            return
        if self.lists.view is None or self._is_outgrown(stop):
            self._build(stop, threads, progress)
        while self.indexed_rows < stop:
            list_updates.append_rows(self.lists, min(stop, self.indexed_rows + _STEP_MAX), self.ceiling, threads)
            self._settle_memory()

    def _is_outgrown(self, stop: int) -> bool:
        """Whether the tree is that of a much smaller collection, or too many rows lie beyond its codes."""
        view = self.lists.current()
        entries = (int(view.lengths.sum()) + stop - view.indexed) // self.lists.replicas
        if stop <= _REBUILD_ROWS_MAX and entries >= _REBUILD_GROWTH * self.lists.built_rows:
            return True
        return (
            sq8_training.too_many_far(len(view.outlier_rows), stop)
            and entries >= sq8_training.FAR_GROWTH * self.lists.built_rows
        )

    def _build(self, stop: int, threads: int, progress: Progress) -> None:
        stages = WeightedProgress(progress, stop, self._build_costs(stop))
        facts = {
            **_facts(self.config, self.metric, self._rows), "head_ratio": self.config.head_ratio,
            "replicas": self.lists.replicas, "rows": self._rows.path.name,
        }  # fmt: skip
        tree = bulk_build.tree_for(self.lists, self._metric, self.config, facts, stop, threads, stages.part("grow"))
        view = bulk_build.build(self.lists, tree, self.config, stop, threads, stages.part("assign"))
        self.lists.publish(view)
        self._checkpoint = tree.file_names()
        self.lists.built_rows = int(view.lengths.sum()) // self.lists.replicas
        list_updates.rebalance(self.lists, self.ceiling, threads, stages.part("restore"))
        self._settle_memory()
        self.lists.compact_arena(0.0)
        if self.lists.garbage_pages() > _BUILT_GARBAGE_SHARE * self.lists.file_pages():
            spilled = self.lists.current().file  # by this build, and sealed by nobody
            self.lists.rewrite_file()
            if spilled is not None:
                filesystem.remove(spilled.path)
        if self.config.memory_budget_bytes:
            self.lists.flush()
            self._keep_hottest()

    def _build_costs(self, stop: int) -> dict[str, float]:
        """Expected times of a build's stages, in comparisons of a row with a head as `assign` makes them."""
        lists = max(1, round(self.config.head_ratio * stop))
        sample = bulk_build.sample_rows(stop, lists, self._rows.arrays.vectors.shape[1])
        assign = stop * comparisons_per_row(lists) * (_CLOSURE_COST if self.lists.replicas > 1 else 1.0)
        restore = _SPLIT_COST * (2 if self.lists.replicas > 1 else 1)
        return {"grow": _GROW_COST * comparisons(sample, lists)[1], "assign": assign, "restore": restore * assign}

    def _keep_hottest(self) -> None:
        """Bring into memory what the budget holds; the others must be in the list file."""
        self.lists.keep(self._hottest(self.lists.current(), self.config.memory_budget_bytes))

    def _settle_memory(self) -> None:
        """Hold the budget: bodies beyond it go to disk, the hottest stay."""
        budget = self.config.memory_budget_bytes
        view = self.lists.current()
        if budget is not None and int(view.body_bytes()[view.body_offsets >= 0].sum()) > budget:
            self.lists.flush()
            self._keep_hottest()
        else:
            self.lists.compact_arena()

    def _hottest(self, view: ListsView, budget: int | None) -> NDArray[np.int64]:
        """Lists that may be in memory, ascending: by how often they were probed, empty ones in any case."""
        if budget is None:
            return np.arange(view.heads.count)
        order = np.argsort(-view.probe_counts.astype(np.int64), kind="stable")
        within = np.cumsum(view.body_bytes()[order]) <= budget
        return np.union1d(order[within], np.flatnonzero(view.lengths == 0))

    def remove(self, sequence: int, threads: int = 1) -> int:
        """Entries of rows that died leave the lists that are in memory; on disk they go when a list is next written.

        Returns 0: lists do not wear out by it as links do.
        """
        if sequence <= self.lists.removed:
            return 0
        self.lists.removed = sequence
        if self.lists.view is not None:
            list_updates.drop_deleted_entries(self.lists)
            list_updates.rebalance(self.lists, self.ceiling, threads)
            self._settle_memory()
        return 0

    def connect_unreachable(self, threads: int = 1) -> int:
        return 0

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
        view, threads = self.lists.view, params.threads
        if view is None or params.exact:
            return partial(self._exactly, limit=limit, visibility=visibility, allow=allow, threads=threads)
        return self._by_lists(ListSearch, view, limit, visibility, params, allow)

    def naming(
        self, limit: int, visibility: Visibility, params: SearchParams, allow: RowSet | None, indexes: int
    ) -> Callable[[NDArray[np.float32]], Candidates] | None:
        view = self.lists.view
        if view is None or params.exact:
            return None
        return self._by_lists(partial(NamingSearch, indexes), view, limit, visibility, params, allow)

    def scoring(self, limit: int, visibility: Visibility, allow: RowSet | None, threads: int) -> ScoreRows | None:
        view = self.lists.view
        if view is None:
            return None
        return RowScoring(self._context_of(view), limit, visibility, allow, threads, self._workers)

    def _by_lists(
        self,
        kind: Callable[..., ListSearch],
        view: ListsView,
        limit: int,
        visibility: Visibility,
        params: SearchParams,
        allow: RowSet | None,
    ) -> Callable[[NDArray[np.float32]], Any]:
        """A prepared search over lists. kind : what it finds of each query."""
        threads, context = params.threads, self._context_of(view)
        if allow is not None:
            return partial(self._among, kind, context, limit, visibility, params, allow)
        search = kind(context, self.config, limit, params.nprobe, visibility, rerank=params.rerank)

        def answers(queries: NDArray[np.float32]) -> Neighbors:
            found = search.empty(len(queries))
            if len(queries) == 1:
                search.answer(queries, found)
            else:
                map_query_slices(search.answer, queries, found, _QUERIES_PER_SLICE, threads, self._workers)
            complete_short_answers(
                found, queries, limit, visibility, None, threads, self._exactly, ListWork.RERANKED
            )  # fmt: skip
            return found

        return answers

    def _among(
        self,
        kind: Callable[..., ListSearch],
        context: ListsContext,
        limit: int,
        visibility: Visibility,
        params: SearchParams,
        allow: RowSet,
        queries: NDArray[np.float32],
    ) -> Any:
        """What is found among the rows that are allowed. A query whose lists hold far fewer of them than lists do on
        average is avoided by them: more lists are looked at, in the end all.
        """
        threads, bitmap = params.threads, allow.bitmap(visibility.row_count)
        probes, left = params.nprobe or self.config.nprobe or 1, None
        found: Any = None
        expected = probes * context.mean_length * len(allow) / max(1, visibility.live_count)
        while True:
            probes = min(probes, context.view.heads.count)
            enough = 0 if probes == context.view.heads.count else round(_MATCHES_SHARE * expected)
            search = kind(context, self.config, limit, probes, visibility, enough, params.rerank)
            answer = partial(search.answer, allow=bitmap)
            if left is None:
                found = search.empty(len(queries))
                map_query_slices(answer, queries, found, _QUERIES_PER_SLICE, threads, self._workers)
            else:
                again = search.empty(len(left))
                map_query_slices(answer, queries[left], again, _QUERIES_PER_SLICE, threads, self._workers)
                found.put(left, again)
                found.work += again.work
            left = np.flatnonzero(found.counts == TOO_FEW)
            if not len(left):
                break
            probes *= _PROBES_GROWTH
        complete_short_answers(found, queries, limit, visibility, allow, threads, self._exactly, ListWork.RERANKED)
        return found

    def _context_of(self, view: ListsView) -> ListsContext:
        context, arrays = self._context, self._rows.arrays
        if context is None or context.view is not view or context.arrays is not arrays:
            context = ListsContext(view, arrays, self._metric, self._row_file, self.lists, context)
            self._context = context
        return context

    def explain(self, work: NDArray[np.int64]) -> dict[str, Any]:
        view = self.lists.view
        if len(work) != WORK or view is None:
            return {}
        counted = {
            "probes": ListWork.PROBES, "heads_compared": ListWork.HEADS, "rows_scanned": ListWork.ENTRIES,
            "reads": ListWork.READS, "bytes_read": ListWork.BYTES, "reranked": ListWork.RERANKED,
        }  # fmt: skip
        timed = {
            "heads_ms": ListWork.NS_PROBE, "scan_ms": ListWork.NS_SCAN, "read_ms": ListWork.NS_READ,
            "rerank_ms": ListWork.NS_RERANK,
        }  # fmt: skip
        return {
            **{name: int(work[place]) for name, place in counted.items()},
            **{name: int(work[place]) / 1e6 for name, place in timed.items()},
        }

    def _exactly(
        self, queries: NDArray[np.float32], limit: int, visibility: Visibility, allow: RowSet | None, threads: int
    ) -> Neighbors:
        arrays = self._rows.arrays
        found = scan_exactly(arrays, self._metric, queries, limit, visibility, allow, threads, self._workers)
        if allow is None:
            # all of the file was looked at, and it may be large
            mapped_memory.drop_mapped_pages(arrays.vectors[: visibility.row_count])
        return found

    def centres(self, row_count: int) -> NDArray[np.float32]:
        """The groups of the tree; before there is one, those of a sample."""
        view = self.lists.view
        if view is None:
            return self._partition.centres(self._rows.arrays, self._metric, row_count, self._workers)
        return partition.partition_of_tree(view.heads, view.coder.quantiser, self._metric)

    # -- files and figures -------------------------------------------------------------------------

    def seal(self, path: Path) -> SealedFile:
        lists = self.lists
        if lists.garbage_pages() > _GARBAGE_SHARE * lists.file_pages() + _GARBAGE_PAGES:
            lists.rewrite_file()
        else:
            lists.flush()
        if self.config.memory_budget_bytes:  # what is probed most comes in, what is no longer probed goes out
            self._keep_hottest()
            lists.current().probe_counts[:] //= 2
        view = self.lists.current()
        assert view.file is not None
        try:
            view.file.sync()
            filesystem.sync_dir(lists.folder)
        except OSError as error:  # the pages may be lost although a next sync would succeed
            raise IndexCorruption(
                f"{view.file.path}: not synced ({error}); the index can be rebuilt from the rows"
            ) from error
        written = list_directory.write(path, lists.state(), _facts(self.config, self.metric, self._rows))
        self._checkpoint = ()  # whoever commits the seal removes what `file_names` told before it
        return SealedFile(
            written, view.indexed, lists.removed, ((view.file.path.name, view.file.page_count * list_file.PAGE),)
        )

    @classmethod
    def open(
        cls, path: Path, config: schema.Spann, metric: str, rows: RowSource, *, mapped: bool = False
    ) -> SpannIndex:
        """Load a sealed directory and as many lists as the budget holds. mapped : for a process that never writes."""
        facts = _facts(config, metric, rows)
        state = list_directory.read(path, METRIC_CODES[metric], facts, writable=not mapped)
        # where the configuration does not say it, it was chosen by the budget of that time
        if config.replicas not in (None, state.replicas):
            raise sealed_file.corrupt_file_error(path, "header, replicas", config.replicas, state.replicas)
        index = cls(config, metric, rows, path.parent, state)
        index.lists.load(index._hottest(index.lists.current(), config.memory_budget_bytes))
        return index

    def renumbered(self, mapping: NDArray[np.int64], rows: RowSource) -> SpannIndex:
        lists, budget = self.lists, self.config.memory_budget_bytes
        new = SpannIndex(self.config, self.metric, rows, lists.folder, replace(lists.state(), view=None))
        if lists.view is not None:
            spill = budget is not None and int(lists.view.body_bytes().sum()) > budget
            new.lists.publish(list_updates.renumbered_lists(lists, new.lists, mapping, spill=spill))
            if spill:
                new._keep_hottest()
            else:
                new._settle_memory()
        return new

    def check(self) -> list[str]:
        return invariants.violations(self.lists, self.ceiling) if self.lists.view is not None else []

    def stats(self) -> dict[str, Any]:
        view = self.lists.view
        facts = {"kind": self.kind, "bits": self.config.bits, "replicas": self.lists.replicas}
        if view is None:
            return {**facts, "indexed_rows": 0, "bytes_ram": 0}
        lengths = view.lengths
        resident = view.body_offsets >= 0
        quantiles = {f"p{q}": int(np.percentile(lengths, q)) for q in (1, 50, 99)} if len(lengths) else {}
        return {
            **facts,
            "indexed_rows": view.indexed,
            "heads": view.heads.count,
            "groups": len(view.heads.group_ends),
            "entries": int(lengths.sum()),
            "list_length": {"mean": float(lengths.mean()), **quantiles, "max": int(lengths.max(initial=0))},
            "ceiling": self.ceiling,
            "pending_splits": int((lengths > self.ceiling).sum()),
            "lists_in_memory": int(resident.sum()),
            "far_rows": len(view.outlier_rows),
            "list_file_bytes": view.file.page_count * list_file.PAGE if view.file is not None else 0,
            "list_file_garbage_bytes": self.lists.garbage_pages() * list_file.PAGE,
            "removed_sequence": self.lists.removed,
            "bytes_ram": sum(segment.nbytes for segment in view.segments)
            + view.heads.nbytes()
            + _LIST_BYTES * len(lengths),
        }

    def file_names(self) -> tuple[str, ...]:
        view = self.lists.view
        own = (view.file.path.name,) if view is not None and view.file is not None else ()
        return (*own, *self._checkpoint)

    def close(self) -> None:
        self._workers.close()
        self.lists.close()


def _facts(config: schema.Spann, metric: str, rows: RowSource) -> dict[str, Any]:
    """What the header of every file of the index says of its collection."""
    return {**sealed_file.common_header(SpannIndex.kind, metric, rows.arrays.vectors), "bits": config.bits}
