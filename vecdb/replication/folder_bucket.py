"""A folder as a bucket: for disks, mounted shares and tests. It needs no library.

    FOLDER/<key>         an object
           .tmp/<name>   one that is being written; locked by the process that writes it
           .lock         held for the moment in which a condition is looked at and the object appears

An object is written and synced under another name, then gets its own by a rename: it is there whole or not at all,
after a power cut too. Compare-and-swap by a lock of the system's, which works for all processes of one machine, and for
several where the file system has locks that they share (NFS since version 4).

The version of an object is the SHA-256 of what it holds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vecdb.errors import AlreadyExists, NotFound, PermissionDenied, VecdbError
from vecdb.replication.objects import Bucket, Conflict, StoredObject, check_key
from vecdb.storage.disk import filesystem

_PART_BYTES = 8 << 20
_LOCK, _TEMPORARY = ".lock", ".tmp"


class FolderBucket(Bucket):
    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url)
        self.folder = folder

    def create(self, key: str, data: bytes) -> str:
        with self._raising(key):
            self._write(key, [data], None)
        return _version_of(data)

    def replace(self, key: str, data: bytes, version: str | None) -> str:
        try:
            with self._raising(key):
                self._write(key, [data], version)
        except AlreadyExists:
            raise Conflict(f"{self.url}: {key} is there already") from None
        return _version_of(data)

    def put(self, key: str, data: bytes | memoryview) -> None:
        with self._raising(key):
            self._write(key, [data], "")

    def upload(self, key: str, fd: int, offset: int, length: int) -> None:
        with self._raising(key):
            self._write(key, parts_of(fd, offset, length), "")

    def get_versioned(self, key: str) -> tuple[bytes, str] | None:
        with self._raising(key), self._opened(key) as fd:
            data = filesystem.pread(fd, filesystem.size(fd), 0) if fd >= 0 else None
        return None if data is None else (data, _version_of(data))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        with self._raising(key), self._opened(key) as fd:
            if fd < 0:
                raise NotFound(f"{self.url}: there is no object {key}")
            return filesystem.pread(fd, length, offset)

    def size(self, key: str) -> int | None:
        with self._raising(key), self._opened(key) as fd:
            return filesystem.size(fd) if fd >= 0 else None

    def entries(self, prefix: str = "", after: str | None = None) -> Iterator[StoredObject]:
        below = self.folder / check_key(prefix) if prefix else self.folder
        found = []
        with self._raising(prefix):
            for file in filesystem.walk_files(below):
                key = file.relative_to(self.folder).as_posix()
                ours = key.startswith(".") or "/." in key  # no object's: of this bucket, or of one in a folder of it
                if not ours and (after is None or key > after):
                    with contextlib.suppress(FileNotFoundError):  # removed since the walk met it
                        status = os.lstat(file)
                        found.append(StoredObject(key, status.st_size, status.st_mtime))
        return iter(sorted(found))

    def delete(self, keys: Iterable[str]) -> None:
        with self._raising(""):
            for key in keys:
                filesystem.remove(self.folder / check_key(key))

    def require_conditional_writes(self) -> None:
        """It has them. What killed processes have left half-written goes."""
        with self._raising(""):
            for name in filesystem.list_dir(self.folder / _TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    lock_fd = filesystem.lock_alone(self.folder / _TEMPORARY / name)
                    if lock_fd is not None:
                        filesystem.remove(self.folder / _TEMPORARY / name)
                        filesystem.unlock(lock_fd)

    def _write(self, key: str, parts: Iterable[Any], version: str | None) -> None:
        """version : of what may lie there: None for nothing, "" for whatever it is."""
        path = self.folder / check_key(key)
        filesystem.make_private_dir(self.folder)
        filesystem.make_dir(self.folder / _TEMPORARY)
        temporary, fd = self._begin()
        try:
            offset = 0
            for part in parts:
                filesystem.pwrite(fd, part, offset)
                offset += len(part)
            filesystem.fsync(fd)
            self._make_folders(path.parent)
            self._appear(key, temporary, path, version)
        finally:
            filesystem.close(fd)
            filesystem.remove(temporary)
        filesystem.sync_dir(path.parent)

    def _begin(self) -> tuple[Path, int]:
        while True:
            temporary = self.folder / _TEMPORARY / uuid.uuid4().hex
            fd = filesystem.open_append(temporary, create=True)
            filesystem.lock(fd)
            if not filesystem.is_unlinked(fd):
                return temporary, fd
            filesystem.close(fd)  # another process took it for one that was left

    def _make_folders(self, folder: Path) -> None:
        if folder != self.folder:
            self._make_folders(folder.parent)
            if filesystem.make_dir(folder):
                filesystem.sync_dir(folder.parent)

    def _appear(self, key: str, temporary: Path, path: Path, version: str | None) -> None:
        if version == "":
            filesystem.rename(temporary, path)
            return
        filesystem.touch(self.folder / _LOCK)
        lock_fd = filesystem.lock_waiting(self.folder / _LOCK)
        try:
            found = self.get_versioned(key)
            if found is not None and version is None:
                raise AlreadyExists(f"{self.url}: {key} is there already")
            if version is not None and (found is None or found[1] != version):
                raise Conflict(f"{self.url}: {key} has another version by now")
            filesystem.rename(temporary, path)
        finally:
            filesystem.unlock(lock_fd)

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        """A descriptor of an object; -1 where there is none."""
        try:
            fd = filesystem.open_read(self.folder / check_key(key))
        except (FileNotFoundError, NotADirectoryError):
            yield -1
            return
        try:
            yield fd
        finally:
            filesystem.close(fd)

    @contextmanager
    def _raising(self, key: str) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise PermissionDenied(f"{self.url}: this process may not use {key or 'this folder'}") from None
        except OSError as error:
            raise self._as_vecdb_error(error) from error

    def _as_vecdb_error(self, error: OSError) -> VecdbError:
        return filesystem.to_vecdb_error(error, f"using {self.url}", "what was there before is there still")


def parts_of(fd: int, offset: int, length: int) -> Iterator[bytes]:
    """Part of an open file in pieces. Raises OSError where the file ends before."""
    while length > 0:
        part = filesystem.pread(fd, min(length, _PART_BYTES), offset)
        if not part:
            raise OSError(f"the file ended at byte {offset}, {length} before it should")
        yield part
        offset, length = offset + len(part), length - len(part)


def _version_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
