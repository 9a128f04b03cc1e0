"""The row file of one generation, and the arrays aligned with it.

    rows.<generation> := header page, row*          (row_format.py draws both)

The file is mapped, and open only while it is mapped or has lately been written: a process may use more collections than
it may have descriptors.

Rows are appended and synced before the commit that counts them, and never overwritten once counted. Bytes past the
counted rows were left by a write that never committed; the next append overwrites them.

`RowArrays` is what kernels see. Arrays never move: they are reserved with spare room, and when that is used up a larger
`RowArrays` replaces them while searches that hold the old one go on. One thread appends (the writer, or a reader that
catches up under its lock); any number of threads read `arrays` once per call and use what they got.
"""

from __future__ import annotations

import errno
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption
from vecdb.schema import element_type
from vecdb.storage.disk import filesystem, mapped_memory, row_format
from vecdb.storage.disk.filesystem import PAGE
from vecdb.storage.disk.growable_arrays import GrowableArrays

WITHOUT_VECTOR = np.uint64(1)  # in `deleted`: no snapshot that counts the row is of an earlier commit than the second
_CAPACITY_MIN = 1 << 20
_NO_ROWS: NDArray[np.uint64] = np.empty(0, np.uint64)
_OPEN_MAX = 16


@dataclass(frozen=True, slots=True)
class RowArrays:
    """Arrays indexed by row.

    vectors  : stored dtype[capacity, dim], read-only mapping of the row file
    crcs     : uint32[capacity], CRC-32C of each row's bytes, from its record
    verified : uint8[capacity / 8], bit set once this process has compared a row with its crc (racy sets only cost a
        second look)
    deleted  : uint64[capacity], commit that deleted the row, 0 while it lives; WITHOUT_VECTOR of a record without a
        vector, so that no search ever finds it. What searches and indexes go by
    gone     : uint64[capacity], commit that deleted the record, 0 while it lives, with or without a vector. What reads
        of records go by. The same array as `deleted` while every row has a vector
    """

    vectors: NDArray[Any]
    crcs: NDArray[np.uint32]
    verified: NDArray[np.uint8]
    deleted: NDArray[np.uint64]
    gone: NDArray[np.uint64] = field(default_factory=lambda: _NO_ROWS)

    @property
    def capacity(self) -> int:
        return len(self.crcs)

    def have_vectors(self, rows: Any) -> NDArray[np.bool_]:
        """Which of some rows (integers, or a slice) have a vector: the others hold a copy of another row's."""
        found: NDArray[np.bool_] = self.deleted[rows] != WITHOUT_VECTOR
        return found

    def living(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of some rows are of records that live: the place of others may have been given back (`Rows.punch`)."""
        found: NDArray[np.bool_] = (self.gone if len(self.gone) else self.deleted)[rows] == 0
        return found if len(self.gone) else found | ~self.have_vectors(rows)


def _with_own_gone(arrays: RowArrays, known: NDArray[np.uint64]) -> RowArrays:
    """Another `gone`, which begins with what is known; in memory, of which only pages with deletions are touched."""
    gone = mapped_memory.reserve_memory(arrays.capacity, np.uint64)
    dead = np.flatnonzero(known)
    gone[dead] = known[dead]
    return replace(arrays, gone=gone)


class Rows:
    """The row file and its arrays. Every mutating method has one caller at a time."""

    def __init__(
        self,
        path: Path,
        dtype: str,
        dim: int,
        generation: int,
        *,
        writable: bool,
        row_count: int,
        backing: GrowableArrays | None = None,
    ) -> None:
        self.path = path
        self._backing = backing or GrowableArrays()
        self.dim = dim
        self.dtype = np.dtype(element_type(dtype))
        self.row_bytes = dim * self.dtype.itemsize
        self._writable = writable
        self._fd = -1  # of a writer, from its first write on (OpenRowFiles says until when)
        fd = filesystem.open_append(path) if writable else filesystem.open_read(path)
        try:
            header = filesystem.pread(fd, row_format.HEADER_BYTES, 0)
            row_format.check_header(header, dtype, dim, generation, str(path))
            self._check_length(fd, row_count)
            self._file = filesystem.identity_of(fd)
            self.arrays = self._reserve(fd, row_count)
        finally:
            filesystem.close(fd)
        self._dirty = False

    @staticmethod
    def create(path: Path, dtype: str, dim: int, generation: int, *, sync: bool) -> None:
        """Write the header page. A file left by a creation that never committed is replaced."""
        filesystem.write_atomic(path, [row_format.encode_header(dtype, dim, generation)], sync=sync)

    def _check_length(self, fd: int, row_count: int) -> None:
        expected = row_format.HEADER_BYTES + row_count * self.row_bytes
        actual = filesystem.size(fd)
        if actual < expected:
            raise Corruption(
                f"{self.path}: {actual} bytes, expected at least {expected} for {row_count} rows; "
                "the file was truncated, restore the database from a backup"
            )

    def _reserve(self, fd: int, row_count: int) -> RowArrays:
        capacity = max(_CAPACITY_MIN, 4 * row_count)
        nbytes = row_format.HEADER_BYTES + capacity * self.row_bytes
        mapped = mapped_memory.map_reserved(fd, nbytes)[row_format.HEADER_BYTES :]
        deleted = self._backing.reserve(capacity, np.uint64)
        return RowArrays(
            vectors=mapped.view(self.dtype).reshape(capacity, self.dim),
            crcs=self._backing.reserve(capacity, np.uint32),
            verified=mapped_memory.reserve_memory(capacity // 8 + 8, np.uint8),
            deleted=deleted,
            gone=deleted,
        )

    def ensure(self, row_count: int) -> None:
        """Make room for `row_count` rows; publishes larger arrays where the present ones are too small. Raises
        OSError.
        """
        old, capacity = self.arrays, len(self.arrays.crcs)
        new = old if row_count <= capacity else self._reserve_anew(row_count)
        try:
            self._backing.allocate(row_count, new.crcs, new.deleted)
        except OSError as error:
            self._backing.leave_disk(error)
            new = self._reserve_anew(row_count)
        if new is not old:
            for wider, narrow in ((new.crcs, old.crcs), (new.deleted, old.deleted)):
                filled = self._backing.writable(narrow)
                wider[:filled] = narrow[:filled]
            new.verified[: len(old.verified)] = old.verified
            self.arrays = new if old.gone is old.deleted else _with_own_gone(new, old.gone)
            self.cover_holes()

    def tell_bare_apart(self) -> None:
        """Before the first row without a vector: from now on `gone` is an array by itself."""
        if self.arrays.gone is self.arrays.deleted:
            self.arrays = _with_own_gone(
                self.arrays, self.arrays.deleted[: self._backing.writable(self.arrays.deleted)]
            )

    def _reserve_anew(self, row_count: int) -> RowArrays:
        fd = filesystem.open_read(self.path)
        try:
            self._check_same(fd)
            return self._reserve(fd, row_count)
        finally:
            filesystem.close(fd)

    def _check_same(self, fd: int) -> None:
        """Raise FileNotFoundError where another file has the name by now: the database was removed and made anew."""
        if filesystem.identity_of(fd) != self._file:
            raise FileNotFoundError(errno.ENOENT, f"{self.path} was removed")

    def write(self, first_row: int, vectors: NDArray[Any]) -> None:
        """Write vectors (stored dtype[n, dim]) as rows from `first_row`. Not durable before `sync`."""
        if self._fd < 0:
            fd = filesystem.open_append(self.path)
            try:
                self._check_same(fd)
            except OSError:
                filesystem.close(fd)
                raise
            self._fd = fd
        self._dirty = True
        filesystem.pwrite(self._fd, vectors.view(np.uint8), row_format.HEADER_BYTES + first_row * self.row_bytes)

    def with_stand_ins(self, first_row: int, vectors: NDArray[Any], bare: NDArray[np.bool_]) -> NDArray[Any]:
        """What is to be written as rows from `first_row`, some of which (`bare`: bool[n]) have no vector: vectors
        (stored dtype[any, dim]) in the places of the others, and in these a copy of the one before. So codes and
        whatever looks at rows without asking meet values like those of the data.
        """
        n = len(bare)
        if first_row:
            before = np.array(self.arrays.vectors[first_row - 1 : first_row])
        else:
            before = np.array(vectors[:1]) if len(vectors) else np.ones((1, self.dim), self.dtype)
        sources = np.concatenate([before, vectors.reshape(-1, self.dim)])
        made: NDArray[Any] = sources[np.cumsum(~bare)] if n else sources[:0]
        return made

    def punch(self, first_rows: NDArray[np.int64], stops: NDArray[np.int64]) -> int:
        """Give back the pages that only the rows [first, stop) fill, which nobody looks at any more. Returns how many
        bytes that are. These rows read as zeros from now on, unlike their checksums: they count as not verified.
        """
        fd = filesystem.open_append(self.path)
        try:
            self._check_same(fd)
            freed = 0
            for first, stop in zip(first_rows.tolist(), stops.tolist(), strict=True):
                begin, end = self._pages_of(first, stop)
                if begin < end:
                    start, last = (row_format.HEADER_BYTES + row * self.row_bytes for row in (first, stop))
                    for place, rest in ((start, begin - start), (end, last - end)):  # of rows that reach out of them
                        filesystem.pwrite(fd, bytes(rest), place)
                    self.arrays.verified[first // 8 : -(-stop // 8)] = 0
                    freed += filesystem.punch_hole(fd, begin, end - begin)
                    mapped_memory.map_zeros(self.arrays.vectors[first:stop])
            return freed
        finally:
            filesystem.close(fd)

    def _pages_of(self, first: int, stop: int) -> tuple[int, int]:
        """Where in the file whole pages of rows [first, stop) begin and end; there are none where the end is first."""
        begin = -(-(row_format.HEADER_BYTES + first * self.row_bytes) // PAGE) * PAGE
        return begin, (row_format.HEADER_BYTES + stop * self.row_bytes) // PAGE * PAGE

    def cover_holes(self) -> None:
        """Pages of zeros in the place of those that `punch` has given back, in this map: see `mapped_memory.map_zeros`.
        Rows that have died must be known. Raises OSError.
        """
        fd = filesystem.open_read(self.path)
        try:
            self._check_same(fd)
            end = filesystem.size(fd)
            if filesystem.next_hole(fd, row_format.HEADER_BYTES) >= end:
                return
            rows = min(len(self.arrays.gone), (end - row_format.HEADER_BYTES) // self.row_bytes)
            for first, stop in zip(*(one.tolist() for one in runs(self.arrays.gone[:rows] != 0)), strict=True):
                begin, last = self._pages_of(first, stop)
                if begin < last <= filesystem.next_data(fd, begin):
                    mapped_memory.map_zeros(self.arrays.vectors[first:stop])
        finally:
            filesystem.close(fd)

    @contextmanager
    def opened(self) -> Iterator[Callable[[int, int], NDArray[Any]]]:
        """read(first, stop) : rows as the file has them (stored dtype[stop - first, dim]), read and not looked at in
        the map: there a page that was given back takes a new one on a file system in memory, and where that is full the
        process gets SIGBUS. Where the file is gone, since a vacuum of another process has removed it, by the map.
        """
        try:
            fd = filesystem.open_read(self.path)
        except FileNotFoundError:
            fd = -1
        try:
            if fd >= 0 and filesystem.identity_of(fd) == self._file:
                yield partial(self._read, fd)
            else:
                yield lambda first, stop: np.ascontiguousarray(self.arrays.vectors[first:stop])
        finally:
            if fd >= 0:
                filesystem.close(fd)

    def _read(self, fd: int, first: int, stop: int) -> NDArray[Any]:
        found = np.zeros((stop - first, self.dim), self.dtype)  # past the end of the file there is nothing
        data = memoryview(found.view(np.uint8).reshape(-1).data)
        filesystem.pread_into(fd, data, row_format.HEADER_BYTES + first * self.row_bytes)
        return found

    def sync(self) -> None:
        """Make what was written durable. Raises OSError, after which nothing written since the last sync can be
        trusted.
        """
        if self._dirty:
            filesystem.fdatasync(self._fd)
            self._dirty = False

    def close(self) -> None:
        """Close the descriptor, where it is open. Arrays that searches hold stay valid until they let go."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            filesystem.close(fd)


class OpenRowFiles:
    """The row files that were written last and stay open: opening one at each commit would cost more than writing it.

    Thread rule: one thread.
    """

    def __init__(self) -> None:
        self._recent: OrderedDict[int, weakref.ref[Rows]] = OrderedDict()  # by identity: closed ones are let go

    def used(self, rows: Rows) -> None:
        """A file was written: of the others the one whose turn is longest ago is closed."""
        self._recent[id(rows)] = weakref.ref(rows)
        self._recent.move_to_end(id(rows))
        while len(self._recent) > filesystem.open_files_max(_OPEN_MAX):
            _, oldest = self._recent.popitem(last=False)
            if (one := oldest()) is not None:
                one.close()


def runs(chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each run of chosen rows begins, and where it has ended: int64[r] each."""
    edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    return edges[0::2], edges[1::2]
