"""Memory of the system: anonymous, or of a file that is mapped, as arrays of numpy; and memory that goes back to it.

As filesystem.py, which it stands beside: every function may be called from any thread, keeps no state, and is called as
`mapped_memory.name(...)`, so that a test can replace it. `OSError` passes through.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vecdb.storage.disk import filesystem

_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000  # Linux; absent from the mmap module before Python 3.13


def reserve_memory(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeroed anonymous memory that costs nothing until touched; goes back to the system when the last view goes.

    For large scratch, too. Once numpy has freed a block of some megabytes, glibc takes blocks up to that size from an
    arena that it keeps for each thread, whose end `give_back_freed` does not reach: a collection of 40,000 x 384 held
    30 MB more after its build.

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


def map_sparse(fd: int, shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """A file of that size, all holes, as an array: zeros, written through to the file."""
    dtype = np.dtype(dtype)
    dims = (shape,) if isinstance(shape, int) else shape
    nbytes = max(1, int(np.prod(dims, dtype=np.int64)) * dtype.itemsize)
    os.ftruncate(fd, nbytes)
    return np.ndarray(dims, dtype, mmap.mmap(fd, nbytes))


def map_readonly(path: Path, *, foreign: bool = False) -> NDArray[np.uint8]:
    """The whole file as uint8[size], read-only, backed by the page cache; unmapped when the last view goes. foreign :
    see `filesystem.open_read`.
    """
    fd = filesystem.open_read(path, foreign=foreign)
    try:
        length = filesystem.size(fd)
        if length == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(fd, length, prot=mmap.PROT_READ), np.uint8)
    finally:
        filesystem.close(fd)


def map_reserved(fd: int, nbytes: int) -> NDArray[np.uint8]:
    """Map `nbytes` of a file that may be shorter: bytes past its end may be read only once the file has grown over
    them.
    """
    length = filesystem.size(fd)
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


def map_zeros(mapped: NDArray[Any]) -> None:
    """Put pages of zeros, which take no room, in the place of whole pages of a stretch of a mapped file that is a hole:
    to look at a hole takes a page on a file system in memory, and where that is full the process gets SIGBUS. Where the
    system refuses, as it has a bound on the parts of a mapping, the hole stays.
    """
    begin = mapped.__array_interface__["data"][0]
    start = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (begin + mapped.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED | _MAP_NORESERVE
        _libc().mmap(start, stop - start, mmap.PROT_READ, flags, -1, 0)


def give_back_freed() -> None:
    """Give memory that was freed back to the system, where the C library keeps it: after long work that took much, on
    a thread of its own above all. Nothing happens where the library has no such call.
    """
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def _libc() -> Any:
    """The C library, whose mmap takes what Python's refuses."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


class _Mapping:
    """Owns one libc mapping; numpy keeps it alive through the array interface."""

    def __init__(self, fd: int, nbytes: int) -> None:
        import ctypes

        libc = _libc()
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
