"""The only module that calls the operating system: every byte that vecdb reads or writes outside LMDB passes here.

Callers write `filesystem.name(...)`, and do not import functions by name, so that a test can replace any of them by one
that fails. Thread rule: every function may be called from any thread. Nothing here keeps state.

A database holds files and folders of its own: what is opened in it must be a regular file, which no link leads to
another place. New files and folders may be read by whom their folder may be read by; folders that begin a database are
the owner's alone.

Errors: `OSError` passes through, except where a docstring says otherwise; `to_vecdb_error` turns one into a vecdb
error.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vecdb.errors import Corruption, DiskFull, Locked, Unavailable, VecdbError

_COPY_BYTES = 4 << 20
_PIPE_BYTES = 1 << 20
_PUNCH_HOLE_KEEP_SIZE = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_LOCK_BYTES_MAX = 32  # of the file LOCK: a process number
_OWNER_ONLY = 0o700  # of a folder that begins a database
PAGE = 4096  # bytes: the unit of direct I/O, of our files with extents, and of LMDB's file


def open_direct(path: Path, *, write: bool = False) -> int:
    """A descriptor that reads past the page cache; an ordinary one where the file system knows no direct I/O."""
    flags = os.O_RDWR if write else os.O_RDONLY
    try:
        return _open_own(path, flags | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _open_own(path, flags)


def open_unlinked(folder: Path | None) -> int:
    """A descriptor of a temporary file in `folder` (None: where the system keeps such) that has no name and is gone
    once it is closed.
    """
    import tempfile

    fd, name = tempfile.mkstemp(dir=folder, prefix="spill.")
    os.unlink(name)
    return fd


def open_append(path: Path, *, create: bool = False) -> int:
    """A descriptor for reading and positioned writing; `create` makes the file and fails where it exists."""
    return _open_own(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0))


def open_read(path: Path, *, foreign: bool = False) -> int:
    """foreign : a file of the user's, outside a database, to which a link may lead."""
    if foreign:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return _open_own(path, os.O_RDONLY)


def _open_own(path: Path, flags: int) -> int:
    """Open a regular file of a database. Raises Corruption where a link, a folder, a pipe or a device has its name:
    whoever put it there would have us write elsewhere, or wait for ever.
    """
    mode = file_mode_inside(path.parent) if flags & os.O_CREAT else 0
    try:
        # without waiting: opening a pipe waits for its other end
        fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except OSError as error:
        kind = kind_of(path)
        if kind in ("file", "nothing"):
            raise
        raise _no_file_of_ours(path, kind) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _no_file_of_ours(path, kind_of(path))
    return fd


def _no_file_of_ours(path: Path, kind: str) -> Corruption:
    return Corruption(f"{path} is a {kind}, and must be a regular file: remove it, or restore the database")


def _mode_inside(folder: Path) -> int:
    """Permissions of what is made inside `folder`: who may read the folder may read it."""
    try:
        return stat.S_IMODE(os.stat(folder).st_mode) & 0o777
    except FileNotFoundError:
        return _OWNER_ONLY


def file_mode_inside(folder: Path) -> int:
    """Permissions of a file made inside `folder`."""
    return _mode_inside(folder) & 0o666


def kind_of(path: Path) -> str:
    """What has that name: file, folder, link, pipe, device, socket or nothing. A link is not followed."""
    try:
        mode = os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "folder",
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def identity(path: Path) -> tuple[int, int]:
    """Device and inode: the same for every name of one file or folder."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def identity_of(fd: int) -> tuple[int, int]:
    """The same of an open file."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def witness_of(fd: int) -> str:
    """What an open file is known by that is never changed once it has its name: equal for the same file as long as
    nobody touches it, different for another one that has taken its name or its inode.
    """
    found = os.fstat(fd)
    return f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"


def is_my_folder(path: Path) -> bool:
    """Whether `path` is a folder, and no link to one, that belongs to the user of this process."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def remove_empty_dir(path: Path) -> None:
    os.rmdir(path)


def require_folder(path: Path) -> None:
    """Raise Corruption unless `path` is a folder, and no link to one."""
    if kind_of(path) == "nothing":
        raise Corruption(f"the folder {path} is missing; restore the database from a backup")
    refuse_other_than_folder(path)


def refuse_other_than_folder(path: Path) -> None:
    """Raise Corruption where something else has this name, such as a link to a folder elsewhere."""
    kind = kind_of(path)
    if kind not in ("folder", "nothing"):
        raise Corruption(f"{path} is a {kind}, and must be a folder: remove it, or restore the database")


def close(fd: int) -> None:
    os.close(fd)


def pipe() -> tuple[int, int]:
    """(end to read, end to write) of a pipe, one that takes much at once where the system allows it."""
    read_fd, write_fd = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return read_fd, write_fd


def read_into(fd: int, view: memoryview) -> int:
    """Fill a buffer from a pipe. Returns how many bytes there were: fewer where it ends."""
    done = 0
    while done < view.nbytes and (n := os.readv(fd, [view[done:]])):
        done += n
    return done


def pread_into(fd: int, view: memoryview, offset: int) -> int:
    """Fill a buffer from that place of a file. Returns how many bytes there were: fewer where it ends."""
    done = 0
    while done < view.nbytes and (n := os.preadv(fd, [view[done:]], offset + done)):
        done += n
    return done


def size(fd: int) -> int:
    return os.fstat(fd).st_size


def allocate(fd: int, length: int) -> None:
    """Allocate disk space for the first `length` bytes of a file, which grows to that length where it is shorter."""
    try:
        os.posix_fallocate(fd, 0, length)
    except OSError as error:
        raise _named(error, fd) from None


def punch_hole(fd: int, offset: int, length: int) -> int:
    """Give that part of a file back to the disk: it reads as zeros, the length stays. Returns how many bytes that are;
    0 where the file system cannot.
    """
    import ctypes

    before = os.fstat(fd).st_blocks
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, offset, length):
        return 0
    return max(0, before - os.fstat(fd).st_blocks) * 512


def next_hole(fd: int, offset: int) -> int:
    """Where the next hole of a file begins, from `offset` on; its end where there is none, or none is told."""
    try:
        return os.lseek(fd, offset, os.SEEK_HOLE)
    except OSError:
        return size(fd)


def next_data(fd: int, offset: int) -> int:
    """Where what is no hole begins, from `offset` on; the end of the file where nothing follows."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        return size(fd) if error.errno == errno.ENXIO else offset


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
    try:
        while view.nbytes:
            done = os.pwrite(fd, view, offset)
            view = view[done:]
            offset += done
    except OSError as error:
        raise _named(error, fd) from None


def fdatasync(fd: int) -> None:
    try:
        os.fdatasync(fd)
    except OSError as error:
        raise _named(error, fd) from None


def fsync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise _named(error, fd) from None


def _named(error: OSError, fd: int) -> OSError:
    """The error with the file's name, as calls that are given names have it: it says which disk is full."""
    with contextlib.suppress(OSError):
        error.filename = os.readlink(f"/proc/self/fd/{fd}")
    return error


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
    remove(temporary)  # of a write that was killed
    fd = _open_own(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL)
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


def read_bytes(path: Path, bytes_max: int, *, foreign: bool = False) -> bytes:
    """The whole file. Raises Corruption where it is longer than `bytes_max`. foreign : see `open_read`."""
    fd = open_read(path, foreign=foreign)
    try:
        length = size(fd)
        if length > bytes_max:
            raise Corruption(f"{path}: {length:,} bytes, expected at most {bytes_max:,}")
        return pread(fd, length, 0)
    finally:
        close(fd)


def lock_directory(path: Path) -> int:
    """Take the directory's writer lock without waiting. Raises `Locked`, naming the owner's process, where it is held.

    Returns the descriptor that holds the lock; `unlock`, or the death of the process, releases it. The file LOCK is
    made where there is none, and never removed.
    """
    file = path / "LOCK"
    while True:
        fd = _open_lock(file)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(fd, file):
                break
        except OSError as error:
            owner = os.pread(fd, _LOCK_BYTES_MAX, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise _locked(path, owner) from None
        os.close(fd)  # the directory was removed and made anew in between: another LOCK counts now
    mine = f"{os.getpid()}\n".encode()
    with contextlib.suppress(OSError):  # for people; a full disk must not keep them from deleting
        os.pwrite(fd, mine, 0)
        os.ftruncate(fd, len(mine))
    return fd


def _open_lock(file: Path) -> int:
    fd = _open_own(file, os.O_RDWR | os.O_CREAT)
    if os.fstat(fd).st_size > _LOCK_BYTES_MAX:  # some other file under this name would be overwritten
        os.close(fd)
        raise Corruption(f"{file}: more than the number of a process stands in it; remove it, it is none of vecdb's")
    return fd


def _is_still(fd: int, path: Path) -> bool:
    """Whether the open file is the one that has this name."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _locked(path: Path, owner: str) -> Locked:
    if owner == str(os.getpid()):
        return Locked(f"database {path} is open in this process ({owner}) already; use that Database, or close it")
    return Locked(
        f"database {path} is open for writing by process {owner}; close it there, open it here with read_only=True, or "
        "let one process serve it to all (`vecdb serve`)"
    )


def lock_shared(path: Path) -> int:
    """Hold the file `path` together with any other process; waits while one holds it alone."""
    fd = _open_own(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def lock_alone(path: Path) -> int | None:
    """Hold the file `path` alone; None where any other process holds it."""
    fd = _open_own(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def lock_waiting(path: Path) -> int:
    """Hold the file `path` alone; waits while any other process holds it."""
    fd = _open_own(path, os.O_RDONLY)
    lock(fd)
    return fd


def lock(fd: int) -> None:
    """Hold an open file alone; waits while any other process holds it."""
    fcntl.flock(fd, fcntl.LOCK_EX)


def unlock(fd: int) -> None:
    """Release what `lock_...` took, also where a forked child has inherited the descriptor, and close it."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def is_unlinked(fd: int) -> bool:
    """Whether the open file has no name any more: somebody removed it."""
    return os.fstat(fd).st_nlink == 0


def is_at(fd: int, path: Path) -> bool:
    """Whether the open file is the one that this path leads to; also where that cannot be told."""
    try:
        there = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return os.path.samestat(there, os.fstat(fd))


def touch(path: Path) -> None:
    """Make an empty file where there is none."""
    os.close(_open_own(path, os.O_RDONLY | os.O_CREAT))


def exists(path: Path) -> bool:
    return path.exists()


def make_dir(path: Path) -> bool:
    """Make a folder where there is none, and those above it. Returns whether it was made."""
    return _make_dir(path, None)


def make_private_dir(path: Path) -> bool:
    """The same, for a folder that begins a database: its owner's alone."""
    return _make_dir(path, _OWNER_ONLY)


def _make_dir(path: Path, mode: int | None) -> bool:
    if path.is_dir():
        return False
    if not path.parent.exists():
        _make_dir(path.parent, None)
    elif not path.parent.is_dir():  # asked last: others may make it at this moment
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent))
    try:
        path.mkdir(_mode_inside(path.parent) if mode is None else mode)
    except FileExistsError:
        if not path.is_dir():
            raise
        return False
    return True


def make_private(path: Path) -> None:
    """A file that its owner alone may read and write."""
    os.chmod(path, _OWNER_ONLY & 0o666)


def copy_mode(source: Path, target: Path) -> None:
    """Who may read `source` may read `target`."""
    os.chmod(target, stat.S_IMODE(os.stat(source).st_mode))


def sync_parent(path: Path) -> None:
    """Make the creation of `path` durable, where its folder may be read."""
    with contextlib.suppress(PermissionError):
        sync_dir(path.parent)


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


def open_files_max(wanted: int) -> int:
    """How many of something that needs a descriptor now and then may be kept: at most `wanted`."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft // 4))


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


def crc_of(fd: int, offset: int, length: int) -> int:
    """CRC-32 of a range of a file. Raises OSError where it ends before."""
    crc = 0
    while length:
        part = pread(fd, min(_COPY_BYTES, length), offset)
        if not part:
            raise OSError(errno.EIO, f"a file ended at byte {offset}, {length} before it should")
        crc = zlib.crc32(part, crc)
        offset, length = offset + len(part), length - len(part)
    return crc


def free_bytes(path: Path) -> int:
    """Room that is left for this user on the disk of `path`, which exists."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def memory_peak_bytes() -> int:
    """The most memory that this process ever had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def is_full(error: OSError) -> bool:
    """Whether the error says that there is no room: disk, quota or largest file."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def to_vecdb_error(error: OSError, doing: str, outcome: str = "nothing was written") -> VecdbError:
    """A vecdb error for an operating-system error met while `doing`."""
    if is_full(error):
        disk = f" on the disk of {error.filename}" if error.filename else ""
        return DiskFull(f"no space left{disk} while {doing}; {outcome}. Free space, then try again")
    return Unavailable(f"{doing} failed: {error.strerror or error}; {outcome}")


@contextmanager
def raising_vecdb_errors(doing: str) -> Iterator[None]:
    """Raise operating-system errors of the block as vecdb errors: for long work that the caller may repeat."""
    try:
        yield
    except OSError as error:
        raise to_vecdb_error(error, doing, "no record changed") from error
