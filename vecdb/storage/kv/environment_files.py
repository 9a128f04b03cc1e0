"""The two files of LMDB, data.mdb and lock.mdb, looked at before LMDB maps them: what it would die of, or write over.

LMDB maps both and touches what it maps. Past the end of a truncated data file, or in a lock file for which the disk has
no room, that is a bus error; a lock file that is none is overwritten.

Caveat: LMDB's locks on lock.mdb belong to the process, and go when the process closes any descriptor of that file. So
nothing here is called while this process has the environment open.
"""

from __future__ import annotations

import errno
from pathlib import Path

from vecdb import limits
from vecdb.errors import Corruption, Unavailable
from vecdb.storage.disk import filesystem
from vecdb.storage.disk.filesystem import PAGE

DATA, LOCK = "data.mdb", "lock.mdb"
_DATA_MAGIC = b"\xde\xc0\xef\xbe"
_LOCK_BYTES = 64 * (limits.lmdb_readers_max - 1) + 192  # as LMDB 0.9 lays it out on 64 bits


def check_files(folder: Path) -> None:
    """Raise Corruption where LMDB must not open the environment of `folder`."""
    data = folder / DATA
    if filesystem.kind_of(data) != "nothing":
        _check_length(data)
    lock = folder / LOCK
    if filesystem.kind_of(lock) != "nothing":
        fd = filesystem.open_read(lock)
        try:
            head = filesystem.pread(fd, 4, 0)
        finally:
            filesystem.close(fd)
        if head not in (b"", b"\0\0\0\0", _DATA_MAGIC):
            raise Corruption(f"{lock} is no lock file of LMDB; remove it: it is made anew")


def allocate_lock_file(folder: Path) -> None:
    """Give lock.mdb its room on the disk. Raises OSError where there is none and the file is not there in full,
    Unavailable where it may not be written.
    """
    lock = folder / LOCK
    try:
        fd = filesystem.open_append(lock, create=filesystem.kind_of(lock) == "nothing")
    except OSError as error:
        if error.errno == errno.EROFS:
            return  # nobody can write here, and LMDB does without
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Unavailable(
                f"{lock} cannot be written ({error.strerror}): each process that reads notes in this one file what it "
                "reads. Ask the owner for the right to write it (and its folder, where the file is missing), or read a "
                "copy made by backup()"
            ) from None
        raise
    try:
        whole = filesystem.size(fd) >= _LOCK_BYTES
        try:
            filesystem.allocate(fd, _LOCK_BYTES)
        except OSError as error:
            if not (whole and filesystem.is_full(error)):
                raise
    finally:
        filesystem.close(fd)


def may_write(folder: Path) -> bool:
    """Whether this process may write the environment's data file."""
    try:
        filesystem.close(filesystem.open_append(folder / DATA))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return False
    return True


def _check_length(data: Path) -> None:
    """Refuse a data file shorter than its last page: a read past its end would kill the process."""
    fd = filesystem.open_read(data)
    try:
        head, length = filesystem.pread(fd, 2 * PAGE, 0), filesystem.size(fd)
    finally:
        filesystem.close(fd)
    newest = newest_meta(head)
    if newest is None:
        raise Corruption(f"{data}: neither meta page is an LMDB meta page; restore the database from a backup")
    last_page, _ = newest
    if length < (last_page + 1) * PAGE:
        raise Corruption(
            f"{data}: {length} bytes, expected at least {(last_page + 1) * PAGE}; "
            "the file was truncated, restore from a backup"
        )


def newest_meta(head: bytes) -> tuple[int, int] | None:
    """(last used page, number of the transaction) of the newest valid meta page in the first two pages of a data file
    (LMDB 0.9 layout, 64-bit).
    """
    best: tuple[int, int] | None = None
    for page in (0, PAGE):
        meta = head[page + 16 : page + 16 + 136]
        if len(meta) < 136 or meta[:4] != _DATA_MAGIC:
            continue
        last_page = int.from_bytes(meta[120:128], "little")
        transaction = int.from_bytes(meta[128:136], "little")
        if best is None or transaction > best[1]:
            best = (last_page, transaction)
    return best
