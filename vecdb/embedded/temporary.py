"""Folders that are only for a while: databases in ":memory:", backups and restores that are not finished.

BASE/<prefix><random>/   IN_USE   flock by the process whose folder it is
                         ...      what is made there

A folder that nobody holds was left by a process that died; the next who makes one of that prefix removes it. Folders
without IN_USE are somebody else's.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from vecdb.storage.disk import filesystem

_IN_USE = "IN_USE"


class TemporaryFolder:
    """A folder of this process, its owner's alone, until `remove` or `become`.

    lock_fd : says that it is in use.
    """

    def __init__(self, base: Path, prefix: str) -> None:
        _remove_those_of_killed_processes(base, prefix)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
            try:
                filesystem.touch(self.path / _IN_USE)
                lock_fd = filesystem.lock_alone(self.path / _IN_USE)
            except FileNotFoundError:
                continue  # another process took it for one that was left
            if lock_fd is not None and not filesystem.is_unlinked(lock_fd):
                self.lock_fd = lock_fd
                return

    @staticmethod
    def for_database() -> TemporaryFolder:
        """That of a database in ":memory:", which lies in `database`."""
        return TemporaryFolder(Path(tempfile.gettempdir()), "vecdb-memory-")

    @property
    def database(self) -> Path:
        return self.path / "db"

    def remove(self) -> None:
        filesystem.remove_tree(self.path)

    def become(self, target: Path) -> None:
        """Take the name `target`, durably. Raises OSError where it is taken."""
        filesystem.remove(self.path / _IN_USE)
        filesystem.rename(self.path, target)
        filesystem.sync_parent(target)


def _remove_those_of_killed_processes(base: Path, prefix: str) -> None:
    for name in filesystem.list_dir(base):
        if not name.startswith(prefix) or not filesystem.is_my_folder(folder := base / name):
            continue
        try:
            lock_fd = filesystem.lock_alone(folder / _IN_USE)
        except Exception:  # none, or a link: it is none of ours
            continue
        if lock_fd is not None:
            filesystem.remove_tree(folder)
            filesystem.unlock(lock_fd)
