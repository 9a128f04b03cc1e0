"""The only module that calls the operating system: every byte that vecdb reads or writes outside LMDB passes here.

Callers write `filesystem.name(...)`, and do not import functions by name, so that a test can replace any of them by one
that fails. Thread rule: every function may be called from any thread. Nothing here keeps state.

Errors: `OSError` passes through, except where a docstring says otherwise; `to_vecdb_error` turns one into a vecdb
error.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vecdb.errors import Locked, Unavailable, VecdbError

_MAP_NORESERVE = 0x4000  # Linux; absent from the mmap module before Python 3.13
_COPY_BYTES = 4 << 20
PAGE = 4096  # bytes: the unit of direct I/O, of our files with extents, and of LMDB's file


def reserve_memory(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeroed anonymous memory that costs nothing until touched; freed when the last view goes.

    shape, dtype : of the array returned, C-contiguous, 64-byte aligned (a mapping starts on a page).
    """
    dtype = np.dtype(dtype)
    dims = (shape,) if isinstance(shape, int) else shape
    nbytes = max(1, int(np.prod(dims, dtype=np.int64)) * dtype.itemsize)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    return np.ndarray(dims, dtype, memory)


def drop_pages(memory: NDArray[Any], start: int, nbytes: int) -> None:
    """Give the pages of memory from `reserve_memory` back to the system; they read as zeros again. Whole pages."""
    owner: Any = memory
    while not isinstance(owner, mmap.mmap):
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    owner.madvise(mmap.MADV_DONTNEED, start, nbytes)


def open_direct(path: Path, *, write: bool = False) -> int:
    """A descriptor that reads past the page cache; an ordinary one where the file system knows no direct I/O."""
    flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags)


def open_unlinked(folder: Path) -> int:
    """A descriptor of a temporary file in `folder` that has no name and is gone once it is closed."""
    import tempfile

    fd, name = tempfile.mkstemp(dir=folder, prefix="spill.")
    os.unlink(name)
    return fd


def map_sparse(fd: int, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A file of that size, all holes, as an array: zeros, written through to the file."""
    dtype = np.dtype(dtype)
    dims = (shape,) if isinstance(shape, int) else shape
    nbytes = max(1, int(np.prod(dims, dtype=np.int64)) * dtype.itemsize)
    os.ftruncate(fd, nbytes)
    return np.ndarray(dims, dtype, mmap.mmap(fd, nbytes))


def open_append(path: Path, *, create: bool = False) -> int:
    """A descriptor for reading and positioned writing; `create` makes the file and fails where it exists."""
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
    return os.open(path, flags, 0o644)


def open_read(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def close(fd: int) -> None:
    os.close(fd)


def size(fd: int) -> int:
    return os.fstat(fd).st_size


def allocate(fd: int, length: int) -> None:
    """Allocate disk space for the first `length` bytes of a file, which grows to that length where it is shorter."""
    os.posix_fallocate(fd, 0, length)


def pread(fd: int, length: int, offset: int) -> bytes:
    """Exactly `length` bytes, or fewer where the file ends."""
    parts: list[bytes] = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


def pwrite(fd: int, data: Any, offset: int) -> None:
    """Write the whole buffer at `offset`, going on after short writes."""
    view = memoryview(data).cast("B")
    while view.nbytes:
        done = os.pwrite(fd, view, offset)
        view = view[done:]
        offset += done


def fdatasync(fd: int) -> None:
    os.fdatasync(fd)


def fsync(fd: int) -> None:
    os.fsync(fd)


def sync_dir(path: Path) -> None:
    """Make renames, creations and removals inside `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def rename(source: Path, target: Path) -> None:
    os.replace(source, target)


def write_atomic(path: Path, chunks: Iterable[Any], *, sync: bool = True) -> int:
    """Write `chunks` (buffers) to `path` so that a crash leaves the old file or the new one, whole. Returns the
    bytes written.
    """
    temporary = path.with_name(path.name + ".tmp")
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    offset = 0
    try:
        for chunk in chunks:
            view = memoryview(chunk).cast("B")
            pwrite(fd, view, offset)
            offset += view.nbytes
        if sync:
            fsync(fd)
        rename(temporary, path)
    except BaseException:
        remove(temporary)  # on a full disk the torn copy would keep the space
        raise
    finally:
        os.close(fd)
    if sync:
        sync_dir(path.parent)
    return offset


def read_bytes(path: Path) -> bytes:
    fd = open_read(path)
    try:
        return pread(fd, size(fd), 0)
    finally:
        close(fd)


def map_readonly(path: Path) -> NDArray[np.uint8]:
    """The whole file as uint8[size], read-only, backed by the page cache; unmapped when the last view goes."""
    fd = open_read(path)
    try:
        length = size(fd)
        if length == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(fd, length, prot=mmap.PROT_READ), np.uint8)
    finally:
        close(fd)


def map_reserved(fd: int, nbytes: int) -> NDArray[np.uint8]:
    """Map `nbytes` of a file that may be shorter: bytes past its end may be read only once the file has grown over
    them.
    """
    length = size(fd)
    if length < nbytes:
        # Python's mmap refuses a length past the end of the file, the kernel does not. A reader may not grow the file
        # for the moment of the call, so libc is asked directly.
        return _map_past_end(fd, nbytes)
    return np.frombuffer(mmap.mmap(fd, nbytes, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ), np.uint8)


def drop_mapped_pages(mapped: NDArray[Any]) -> None:
    """Unmap the pages of a stretch of a mapped file: its contents stay, and are mapped again when they are read. This
    is advice: nothing happens where the system has no madvise.
    """
    import ctypes

    start = mapped.__array_interface__["data"][0] // mmap.PAGESIZE * mmap.PAGESIZE
    stop = mapped.__array_interface__["data"][0] + mapped.nbytes
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is not None and stop > start:
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)


class _Mapping:
    """Owns one libc mapping; numpy keeps it alive through the array interface."""

    def __init__(self, fd: int, nbytes: int) -> None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        address = libc.mmap(None, nbytes, mmap.PROT_READ, mmap.MAP_SHARED | _MAP_NORESERVE, fd, 0)
        if address is None or address == ctypes.c_void_p(-1).value:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        self._unmap = libc.munmap
        self._address = address
        self._nbytes = nbytes
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": (address, True), "version": 3}

    def __del__(self) -> None:
        if getattr(self, "_address", None):
            self._unmap(self._address, self._nbytes)


def _map_past_end(fd: int, nbytes: int) -> NDArray[np.uint8]:
    return np.asarray(_Mapping(fd, nbytes))


def lock_directory(path: Path) -> int:
    """Take the directory's writer lock without waiting. Raises `Locked`, naming the owner's process, where it is held.

    Returns the descriptor that holds the lock; closing it, or the death of the process, releases it.
    """
    fd = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        if owner == str(os.getpid()):
            raise Locked(
                f"database {path} is open in this process ({owner}) already; use that Database, or close it first"
            ) from None
        raise Locked(
            f"database {path} is open for writing by process {owner}; "
            "close it there, or open it here with read_only=True"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def lock_shared(path: Path) -> int:
    """Hold the file `path` together with any other process; waits while one holds it alone."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def lock_alone(path: Path) -> int | None:
    """Hold the file `path` alone; None where any other process holds it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def process_lives(pid: int) -> bool:
    """Whether a process of that number exists, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def touch(path: Path) -> None:
    """Make an empty file where there is none."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def exists(path: Path) -> bool:
    return path.exists()


def make_dir(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def list_dir(path: Path) -> list[str]:
    """Names inside `path`, sorted; empty where it does not exist."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def remove(path: Path) -> None:
    """Remove a file; it is no error when it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def walk_files(path: Path) -> Iterator[Path]:
    """Every regular file below `path`, in sorted order."""
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            yield Path(folder) / name


def disk_bytes(path: Path) -> int:
    """Bytes that the files below `path` occupy on disk (blocks, not lengths: LMDB's file may be sparse)."""
    total = 0
    for file in walk_files(path):
        try:
            total += os.stat(file).st_blocks * 512
        except FileNotFoundError:
            continue  # removed since the walk met it
    return total


def copy_range(source: int, target: int, length: int) -> None:
    """Copy the first `length` bytes of one descriptor to another."""
    offset = 0
    while offset < length:
        part = pread(source, min(_COPY_BYTES, length - offset), offset)
        if not part:
            raise OSError(errno.EIO, f"source ended at byte {offset}, expected {length}")
        pwrite(target, part, offset)
        offset += len(part)


def is_full(error: OSError) -> bool:
    """Whether the error says that there is no room: disk, quota or largest file."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def to_vecdb_error(error: OSError, doing: str, outcome: str = "nothing was written") -> VecdbError:
    """A vecdb error for an operating-system error met while `doing`."""
    if is_full(error):
        return Unavailable(f"no space left while {doing}; {outcome}. Free space, then try again")
    return Unavailable(f"{doing} failed: {error.strerror or error}; {outcome}")


@contextmanager
def raising_vecdb_errors(doing: str) -> Iterator[None]:
    """Raise operating-system errors of the block as vecdb errors: for long work that the caller may repeat."""
    try:
        yield
    except OSError as error:
        raise to_vecdb_error(error, doing, "no record changed") from error
