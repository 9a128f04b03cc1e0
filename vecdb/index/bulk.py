"""Building all lists at once: cluster a sample, then stream every row past the heads, in bounded memory.

    sample -> tree          rows, a chunk at a time -> assigned, encoded -> entries -> buckets -> bodies, list by list

Entries are a quarter of what the vectors are, or less. More of them than a bucket holds wait in an unlinked file, those
of neighbouring lists together, until their bucket's turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vecdb import schema
from vecdb.index import training
from vecdb.index.arena import Arena
from vecdb.index.base import Progress, damaged_row
from vecdb.index.coder import new_coder, scaled
from vecdb.index.lists import Entries, Lists, View, _place, empty_view
from vecdb.index.tree import grow_tree
from vecdb.kernels import checks
from vecdb.storage import files

_SAMPLE_PER_LIST = 24
_SAMPLE_BYTES = 64 << 20
_CHUNK_BYTES = 8 << 20
_BUCKET_BYTES = 24 << 20  # entries handled at once


def build(lists: Lists, metric: int, config: schema.Spann, stop: int, threads: int, progress: Progress) -> View:
    """A view over the rows [0, stop) that are not dead. Nothing is published."""
    arrays = lists.rows.arrays
    bits, head_ratio = config.bits, config.head_ratio
    live = np.flatnonzero(_alive(lists, slice(0, stop)))
    if len(live) == 0:
        live = np.arange(1)  # a tree grows from a dead row where there is no other
    dim = arrays.vectors.shape[1]
    wanted = max(1, round(head_ratio * len(live)))
    sample_rows = int(min(len(live), max(_SAMPLE_PER_LIST * wanted, 4_096), _SAMPLE_BYTES // max(64, dim)))
    picked = live[np.unique(np.linspace(0, len(live) - 1, sample_rows).astype(np.int64))]
    del live
    quantiser = training.train(arrays, 1 if metric == 1 else 0, stop)
    sample = np.ascontiguousarray(arrays.vectors[picked[:: max(1, len(picked) // 16_384)]])
    coder = new_coder(arrays, metric, bits, quantiser, sample)
    codes = np.concatenate([coder.quantise(np.ascontiguousarray(arrays.vectors[part]))[0] for part in _parts(picked)])
    files.release(arrays.vectors[:stop])
    heads = grow_tree(codes, dim, wanted, threads, lists.workers)
    del codes
    labels = lists.assign(heads, *coder.quantise(sample)[:2], threads)[:, 0]
    coder = scaled(coder, sample, np.ascontiguousarray(labels), heads.codes)
    far = [np.empty(0, np.int64)]
    held = _Entries(lists, heads.count, coder.entry_bytes, stop)
    try:
        step = max(256, _CHUNK_BYTES // (dim * arrays.vectors.itemsize))
        for first in range(0, stop, step):
            rows = np.arange(first, min(stop, first + step), dtype=np.int64)
            rows = rows[_alive(lists, rows)]
            bad = checks.verify_rows(arrays.vectors, first, min(stop, first + step), arrays.crcs, arrays.verified)
            if bad >= 0:
                raise damaged_row(bad, arrays)
            vectors = np.ascontiguousarray(arrays.vectors[rows])
            files.release(arrays.vectors[first : first + step])  # a file larger than memory passes through it
            codes, bias, beyond = coder.quantise(vectors)
            far.append(rows[beyond])
            chosen = lists.assign(heads, codes, bias, threads)
            held.add(lists.entries(coder, heads, vectors, rows, chosen, threads))
            if progress is not None:
                progress(min(stop, first + step), stop)
        budget = config.memory_budget_bytes
        spill = budget is not None and held.total_bytes > budget
        view = empty_view(coder, heads, _BUCKET_BYTES if spill else 4 * held.total_bytes, lists.replicas)
        return _bodies(lists, replace(view, indexed=stop, far=np.concatenate(far)), held, spill=spill)
    finally:
        held.close()


def _alive(lists: Lists, rows: NDArray[np.int64] | slice) -> NDArray[np.bool_]:
    deleted = lists.rows.arrays.deleted[rows]
    alive: NDArray[np.bool_] = (deleted == 0) | (deleted > np.uint64(lists.removed))
    return alive


def _parts(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    yield from np.array_split(rows, max(1, len(rows) // 16_384))


def _bodies(lists: Lists, view: View, held: _Entries, *, spill: bool) -> View:
    """Lay the entries out, bucket by bucket. spill : each bucket goes to the list file and leaves memory."""
    for first, last, entries in held.buckets():
        inside = np.arange(first, last)
        counts = np.bincount(entries.labels - first, minlength=last - first)
        sizes = -(-counts * view.coder.entry_bytes // 8) * 8
        segment = view.arena.allocate(int(sizes.sum()))
        if segment is None:  # a bucket fuller than its fair share
            view = replace(view, arena=Arena(2 * int(sizes.sum())))
            segment = view.arena.allocate(int(sizes.sum()))
        assert segment is not None
        places, lengths = view.places.copy(), view.lengths.copy()
        places[inside] = segment.start + np.cumsum(sizes) - sizes
        lengths[inside] = counts
        fill = np.zeros((last, 2), np.int32)
        fill[inside, 0] = counts
        _place(entries, places, fill, view.arena, view.coder.width)
        view = replace(view, segments=(*view.segments, segment), places=places, lengths=lengths)
        if spill:
            view = lists.spilled(view, inside)
    return view


class _Entries:
    """Entries of all rows, handed back by ranges of lists."""

    def __init__(self, lists: Lists, list_count: int, entry_bytes: int, stop: int) -> None:
        self.list_count = list_count
        self.total_bytes = 0
        self._width = entry_bytes - 8
        expected = stop * lists.replicas * (entry_bytes + 8)
        self._bucket_count = max(1, -(-expected // _BUCKET_BYTES))
        self._item = np.dtype([("label", "<i4"), ("factor", "<u4"), ("row", "<i8"), ("code", "u1", (self._width,))])
        self._parts: list[list[NDArray[np.void] | tuple[int, int]]] = [[] for _ in range(self._bucket_count)]
        self._fd = files.open_nameless(lists.folder) if self._bucket_count > 1 else -1
        self._end = 0

    def _bucket_of(self, labels: NDArray[np.int32]) -> NDArray[np.int64]:
        bucket: NDArray[np.int64] = labels.astype(np.int64) * self._bucket_count // self.list_count
        return bucket

    def add(self, entries: Entries) -> None:
        items = np.empty(len(entries.labels), self._item)
        items["label"], items["factor"] = entries.labels, entries.factors
        items["row"], items["code"] = entries.rows, entries.codes
        self.total_bytes += len(items) * (self._width + 16)
        if self._bucket_count == 1:
            self._parts[0].append(items)
            return
        buckets = self._bucket_of(entries.labels)
        items = items[np.argsort(buckets, kind="stable")]
        files.pwrite(self._fd, items.view(np.uint8), self._end)
        for bucket, count in enumerate(np.bincount(buckets, minlength=self._bucket_count).tolist()):
            self._parts[bucket].append((self._end, count * self._item.itemsize))
            self._end += count * self._item.itemsize

    def buckets(self) -> Iterator[tuple[int, int, Entries]]:
        """(first list, last list, their entries) in order."""
        for bucket, parts in enumerate(self._parts):
            first = -(-bucket * self.list_count // self._bucket_count)
            last = -(-(bucket + 1) * self.list_count // self._bucket_count)
            read = [self._read(part) for part in parts]
            parts.clear()
            items = np.concatenate(read) if read else np.empty(0, self._item)
            read.clear()
            labels = np.ascontiguousarray(items["label"])
            yield first, last, Entries(
                labels, np.ascontiguousarray(items["row"]), np.ascontiguousarray(items["code"]),
                np.ascontiguousarray(items["factor"]),
            )  # fmt: skip

    def _read(self, part: NDArray[np.void] | tuple[int, int]) -> NDArray[np.void]:
        if isinstance(part, tuple):
            return np.frombuffer(files.pread(self._fd, part[1], part[0]), self._item)
        return part

    def close(self) -> None:
        if self._fd >= 0:
            files.close(self._fd)
            self._fd = -1
