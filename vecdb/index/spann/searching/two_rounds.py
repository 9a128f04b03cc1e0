"""A search over lists in two rounds: rows are named by the estimates of their codes, and those that are chosen scored.

    naming     probe -> scan -> the rows that one round would read, with estimates and margins     no vector is read
    scoring    rows -> vectors from the row file, past the page cache -> the nearest rows

Rows of the tail and those beyond the range of the codes are compared by their vectors in the first round, as in one
round: the nearest of them are named with their distances, and a margin of 0.

An estimate is what the codes say of the metric's distance itself: of squared l2, of minus the inner product; under
cosine of the squared l2 of unit vectors, which is twice the distance, and is halved here. Nothing of it depends on what
an index has learned, so those of several indexes are compared with one another.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common.batching import empty_result
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.contract import Candidates, Neighbors, corrupt_row_error
from vecdb.index.row_set import EVERY_ROW_BITMAP, RowSet
from vecdb.index.spann.searching.list_search import (
    TOO_FEW,
    WORK,
    ListsContext,
    ListScratch,
    ListSearch,
    read_and_rerank,
    slack_of,
)
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.primitives.distance import COSINE
from vecdb.kernels.primitives.visibility import deleted_by
from vecdb.kernels.search import exact_scan, list_rerank
from vecdb.kernels.search.list_probe import ListWork
from vecdb.schema import Visibility

_QUERIES_PER_SLICE, _QUERIES_MOST = 16, 64
_ROWS_TOGETHER = 512  # of more queries: few rows of each are read, and many reads at once cost less than few
_ROWS_PER_SLICE = 65_536  # of all queries of a slice: each may cost a page of a buffer
_MOST_MIN = 64  # rows of a query for which buffers are made: of few shapes, so that they are kept
_MARGIN_GROWTH = 1.25
_NO_ROW = np.iinfo(np.int64).max


class NamingSearch(ListSearch):
    """The first round: `answer` fills Candidates. indexes : that are asked, of about as many rows each.

    Margins are those of one index with all lists, and a quarter more: several trees of fewer rows put the rows that are
    near into fewer of the lists that are looked at, and reads make up for it at less cost than further lists. Measured
    on 60,000 SIFT rows at recall .953 of ten, one index with 64 lists reads 17.6 rows and scans 3,511; four read 23.2
    and scan 4,393 with 20 lists each (.957). With the margins of one, or as each would have them by itself, they need
    24 lists and more.
    """

    def __init__(self, indexes: int, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        heads = self.view.heads.count
        alone = slack_of(self.probes, heads)
        errors = _MARGIN_GROWTH * slack_of(indexes * self.probes, indexes * heads) if indexes > 1 else alone
        self.slack *= np.float32(max(1.0, errors / alone))
        self.empty = self._empty
        self._scored = np.sort(self.view.outlier_rows)

    def _empty(self, nq: int) -> Candidates:
        width = self.most + self.limit
        return Candidates(
            np.empty((nq, width), np.int64), np.empty((nq, width), np.float32), np.zeros(nq, np.int64),
            np.zeros(WORK, np.int64), np.empty((nq, width), np.float32),
        )  # fmt: skip

    def answer(
        self, queries: NDArray[np.float32], found: Neighbors, allow: NDArray[np.uint64] = EVERY_ROW_BITMAP
    ) -> None:
        assert isinstance(found, Candidates)
        b = self._scanned(queries, allow, found.work)
        begun = time.perf_counter_ns()
        self._name(b, found)
        if self.scores_exactly:
            self._score_exactly(b, queries, allow, found.work)
            self._add_exact(b, found)
        if self.matches_min:
            found.counts[b.shortlist.matches < self.matches_min] = TOO_FEW
        found.work[ListWork.NS_RERANK] += time.perf_counter_ns() - begun
        self.context.give(b)

    def _name(self, b: ListScratch, found: Candidates) -> None:
        """The rows of the shortlists that one round would read. Those beyond the codes' range are scored, and named
        once.
        """
        context, scale = self.context, np.float32(0.5 if self.context.metric == COSINE else 1.0)
        list_rerank.name_rows(
            b.probed_table, b.shortlist_table, self._scored, self.limit, self.least, self.slack, context.ip, scale,
            found.rows, found.distances, found.margins, found.counts,
        )  # fmt: skip

    def _add_exact(self, b: ListScratch, found: Candidates) -> None:
        """The nearest of the rows that were scored, among the others in the order of their estimates."""
        exact = empty_result(len(found.rows), self.limit)
        exact_scan.merge(b.keys, b.sizes, b.merge_places, self.limit, exact.rows, exact.distances, exact.counts)
        found.rows[:, self.most :], found.distances[:, self.most :] = exact.rows, exact.distances
        order = np.argsort(found.distances, axis=1, kind="stable")
        for values in (found.rows, found.distances, found.margins):
            values[:] = np.take_along_axis(values, order, axis=1)
        found.counts[:] += exact.counts


class RowScoring:
    """The second round; see `SearchesInRounds.scoring`."""

    def __init__(
        self,
        context: ListsContext,
        limit: int,
        visibility: Visibility,
        allow: RowSet | None,
        threads: int,
        workers: ThreadPool,
    ) -> None:
        self._context = context
        self._limit = limit
        self._visibility = visibility
        self._allow = None if allow is None else allow.bitmap(visibility.row_count)
        self._threads, self._workers = threads, workers

    def __call__(self, queries: NDArray[np.float32], rows: NDArray[np.int64], counts: NDArray[np.int64]) -> Neighbors:
        nq = len(queries)
        found = empty_result(nq, self._limit, WORK)
        widest = max(1, int(counts.max(initial=0)))
        few = int(_ROWS_TOGETHER * nq / max(1, int(counts.sum())))  # queries with so many rows
        step = min(max(_QUERIES_PER_SLICE, min(_QUERIES_MOST, few)), _ROWS_PER_SLICE // widest, -(-nq // self._threads))
        step = max(1, step)
        starts, ends = range(0, nq, step), np.concatenate([[0], np.cumsum(counts)])
        works = np.zeros((len(starts), WORK), np.int64)

        def one(i: int) -> None:
            part = slice(starts[i], min(nq, starts[i] + step))
            sizes = counts[part]
            padded = np.full((len(sizes), int(sizes.max(initial=0))), _NO_ROW, np.int64)
            padded[np.arange(padded.shape[1]) < sizes[:, None]] = rows[ends[part.start] : ends[part.stop]]
            self._score(queries[part], padded, found.part(part, works[i]))

        self._workers.map(one, range(len(starts)), self._threads)
        found.work[:] = works.sum(axis=0)
        return found

    def _score(self, queries: NDArray[np.float32], rows: NDArray[np.int64], found: Neighbors) -> None:
        """rows : int64[n, any], _NO_ROW as padding."""
        context = self._context
        wanted, indexed = self._kept(rows), context.view.indexed
        width = wanted.shape[1]
        most = max(_MOST_MIN, 1 << max(0, width - 1).bit_length())
        b = context.take(len(queries), self._limit, 1, most)
        b.sizes[:] = 0
        b.shortlist.sizes[:] = (wanted < indexed).sum(axis=1)
        b.shortlist.keys[:, :width] = wanted  # without estimates: nothing is cut
        begun = time.perf_counter_ns()
        chosen = list_rerank.choose_reads(
            b.probed_table, b.shortlist_table, context.layout.table, b.reads_table, 1, most, np.float32(0.0),
            context.ip,
        )  # fmt: skip
        read_and_rerank(context, b, queries, chosen, begun, found.work)
        of_tail = (wanted >= indexed) & (wanted < _NO_ROW)
        for i in np.flatnonzero(of_tail.any(axis=1)).tolist():
            self._score_tail(b, i, queries[i : i + 1], wanted[i, of_tail[i]])
        exact_scan.merge(b.keys, b.sizes, b.merge_places, self._limit, found.rows, found.distances, found.counts)
        context.give(b)

    def _kept(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows that may be returned, ascending and each once; _NO_ROW behind them."""
        visibility = self._visibility
        kept = (rows >= 0) & (rows < visibility.row_count)
        at = np.where(kept, rows, 0)
        kept &= ~deleted_by(self._context.arrays.deleted[at], visibility.sequence)
        if self._allow is not None:
            kept &= (self._allow[at >> 6] >> (at & 63).astype(np.uint64)) & np.uint64(1) != 0
        wanted = np.sort(np.where(kept, rows, _NO_ROW), axis=1)
        again = wanted[:, 1:] == wanted[:, :-1]
        wanted[:, 1:][again] = _NO_ROW
        if again.any():
            wanted.sort(axis=1)
        return wanted

    def _score_tail(self, b: ListScratch, i: int, query: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Rows of one query that are in no list yet: in memory, where they were found."""
        context, arrays, visibility = self._context, self._context.arrays, self._visibility
        answers = ArrayTable(list_rerank.Answers(b.keys[1, i : i + 1], b.sizes[1, i : i + 1]))
        bad = list_rerank.score_rows(
            query, context.metric, rows, visibility.row_count, visibility.sequence, EVERY_ROW_BITMAP,
            context.vectors, arrays.crcs, arrays.verified, arrays.deleted, answers.table,
        )  # fmt: skip
        if bad >= 0:
            raise corrupt_row_error(bad, arrays)
