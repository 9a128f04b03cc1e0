"""Building all lists at once: cluster a sample, then compare every row with the heads, in bounded memory.

    sample -> tree          rows, a chunk at a time -> assigned, encoded -> entries -> buckets -> bodies, list by list
              saved         taken over from where a build was killed ....... saved

Entries are a quarter of what the vectors are, or less. More of them than a bucket holds wait in a file, those of
neighbouring lists together, until their bucket's turn comes (entry_spool.py). What a large build has done is kept in
files until the index is sealed (build_checkpoint.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, schema
from vecdb.index.clustering.assignment import assign_to_heads
from vecdb.index.clustering.cluster_tree import Heads, grow_tree
from vecdb.index.common import sq8_training
from vecdb.index.common.sampling import evenly_spaced
from vecdb.index.contract import Progress
from vecdb.index.spann import build_checkpoint
from vecdb.index.spann.build_checkpoint import SavedTree
from vecdb.index.spann.entry_coder import EntryCoder, new_coder, scaled
from vecdb.index.spann.entry_spool import EntrySpool
from vecdb.index.spann.posting_lists import (
    ListEntries,
    ListsView,
    PostingLists,
    alive_in,
    empty_view,
    living_rows,
    place,
    with_room,
)
from vecdb.kernels.primitives.distance import COSINE, L2
from vecdb.storage.disk import filesystem, mapped_memory

_SAMPLE_PER_LIST, _SAMPLE_ROWS_MIN = 24, 4_096  # rows that a tree is grown from
_SAMPLE_BYTES = 64 << 20  # of their codes
_CODER_ROWS = 16_384  # rows of the sample by which the coder is fixed, and coded at once
_CHUNK_BYTES, _CHUNK_ROWS_MIN = 8 << 20, 256  # rows taken past the heads at once
_BUCKET_BYTES = 24 << 20  # entries handled at once
_SPOOL_MORE_BYTES = 8  # that an entry takes in the spool beside those that it takes in a list
_log = logging.getLogger("vecdb")


def build(
    lists: PostingLists, tree: SavedTree, config: schema.Spann, stop: int, threads: int, progress: Progress
) -> ListsView:
    """A view over the rows [0, stop) that are not dead, by a grown tree. Nothing is published.

    progress : (rows past the heads, rows).
    """
    spool = _spool_of(lists, tree)
    try:
        if tree.path is not None:
            spool.resume(stop)
        if spool.done:
            _log.info("%s: rows [%d, %d) are left to assign", tree.entries_path, spool.done, stop)
        if progress is not None:
            progress(spool.done, stop)
        while spool.done < stop:
            _assign(lists, tree, spool, stop, threads)
            if progress is not None:
                progress(spool.done, stop)
        budget = config.memory_budget_bytes
        spill = budget is not None and spool.total_bytes > budget
        view = empty_view(tree.coder, tree.heads, _BUCKET_BYTES if spill else 4 * spool.total_bytes, lists.replicas)
        view = replace(view, indexed=stop, outlier_rows=np.concatenate(spool.outliers))
        return _bodies(lists, view, spool, spill=spill)
    finally:
        spool.close()


def tree_for(
    lists: PostingLists,
    metric: int,
    config: schema.Spann,
    facts: dict[str, Any],
    stop: int,
    threads: int,
    progress: Progress,
) -> SavedTree:
    """The tree that an earlier build of the rows [0, stop) left, or one that is grown now, and saved where that is
    worth it. facts : all that it depends on (build_checkpoint.py).   progress : of the growing.
    """
    alive = alive_in(lists, slice(0, stop))
    live_rows = int(alive.sum())
    found = build_checkpoint.find(lists.folder, metric, stop, live_rows, facts)
    if found is not None:
        return found
    coder, heads = _grown(lists, metric, config, alive, threads, progress)
    if live_rows < limits.saved_build_rows_min:
        return SavedTree(coder, heads, stop, 0, None)
    return build_checkpoint.save(lists.folder, coder, heads, stop, live_rows, facts, lists.removed)


def _grown(
    lists: PostingLists,
    metric: int,
    config: schema.Spann,
    alive: NDArray[np.bool_],
    threads: int,
    progress: Progress,
) -> tuple[EntryCoder, Heads]:
    arrays, stop = lists.rows.arrays, len(alive)
    live = np.flatnonzero(alive)
    if len(live) == 0:
        live = np.arange(1)  # a tree grows from a dead row where there is no other
    dim = arrays.vectors.shape[1]
    wanted = max(1, round(config.head_ratio * len(live)))
    picked = live[evenly_spaced(len(live), sample_rows(len(live), wanted, dim))]
    del live
    quantiser = sq8_training.train(arrays, COSINE if metric == COSINE else L2, stop)
    sample = np.ascontiguousarray(arrays.vectors[picked[:: max(1, len(picked) // _CODER_ROWS)]])
    coder = new_coder(arrays, metric, config.bits, quantiser, sample)
    codes = np.concatenate([coder.quantise(np.ascontiguousarray(arrays.vectors[part]))[0] for part in _parts(picked)])
    mapped_memory.drop_mapped_pages(arrays.vectors[:stop])
    heads = grow_tree(codes, dim, wanted, threads, lists.workers, progress)
    del codes
    # Factors of a row that is far would leave no room in float16 for those of the others; it is scored on its vector.
    codes, far = coder.quantise(sample)
    near = np.delete(np.arange(len(sample)), far)
    labels = assign_to_heads(heads, codes[near], 1, threads, lists.workers)[:, 0]
    return scaled(coder, sample[near], labels, heads.codes), heads


def sample_rows(live_rows: int, wanted: int, dim: int) -> int:
    """Rows that a tree of `wanted` lists is grown from."""
    return int(min(live_rows, max(_SAMPLE_PER_LIST * wanted, _SAMPLE_ROWS_MIN), _SAMPLE_BYTES // max(64, dim)))


def _spool_of(lists: PostingLists, tree: SavedTree) -> EntrySpool:
    """Where entries wait: a file that outlives the process beside a tree that does, else memory as far as it goes."""
    coder = tree.coder
    buckets = max(1, -(-tree.row_count * lists.replicas * (coder.entry_bytes + _SPOOL_MORE_BYTES) // _BUCKET_BYTES))
    fd = -1
    if tree.entries_path is not None:
        filesystem.touch(tree.entries_path)
        fd = filesystem.open_append(tree.entries_path)
    elif buckets > 1:
        fd = filesystem.open_unlinked(lists.folder)
    return EntrySpool(tree.heads.count, coder.width, buckets, tree.uid, fd)


def _assign(lists: PostingLists, tree: SavedTree, spool: EntrySpool, stop: int, threads: int) -> None:
    """One more chunk of rows past the heads."""
    arrays, coder = lists.rows.arrays, tree.coder
    first = spool.done
    last = min(stop, first + max(_CHUNK_ROWS_MIN, _CHUNK_BYTES // (coder.dim * arrays.vectors.itemsize)))
    rows = living_rows(lists, first, last)
    vectors = np.ascontiguousarray(arrays.vectors[rows])
    mapped_memory.drop_mapped_pages(arrays.vectors[first:last])  # a file larger than memory passes through it
    codes, beyond = coder.quantise(vectors)
    chosen = assign_to_heads(tree.heads, codes, lists.replicas, threads, lists.workers)
    spool.add(lists.entries(coder, tree.heads, vectors, rows, chosen, threads), rows[beyond], last)


def _living(lists: PostingLists, entries: ListEntries) -> ListEntries:
    """The entries without those of rows that have died since an earlier process made them."""
    alive = alive_in(lists, entries.rows)
    if alive.all():
        return entries
    return ListEntries(entries.labels[alive], entries.rows[alive], entries.codes[alive], entries.factors[alive])


def _parts(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    yield from np.array_split(rows, max(1, len(rows) // _CODER_ROWS))


def _bodies(lists: PostingLists, view: ListsView, spool: EntrySpool, *, spill: bool) -> ListsView:
    """Write the entries into bodies, bucket by bucket. spill : each bucket goes to the list file and leaves memory."""
    for first, last, entries in spool.buckets():
        inside = np.arange(first, last)
        entries = _living(lists, entries)
        counts = np.bincount(entries.labels - first, minlength=last - first)
        view = with_room(view, inside, counts)
        fill = np.zeros((last, 2), np.int32)
        fill[inside, 0] = counts
        place(entries, view.body_offsets, fill, view.arena, view.coder.width)
        if spill:
            view = lists.spilled(view, inside)
    return view
