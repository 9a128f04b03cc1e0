"""Folders of databases in ":memory:": each goes when its database is closed, or when the next one is opened after the
process that had it was killed.

TMPDIR/vecdb-memory-<random>/   IN_USE   flock by the process whose database it is
                                db/      the database
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from vecdb.storage.disk import filesystem

_PREFIX, _IN_USE = "vecdb-memory-", "IN_USE"


class TemporaryFolder:
    """A folder that is gone after `remove`. lock_fd : says that it is in use; whoever holds it passes it to `remove`."""

    def __init__(self) -> None:
        base = Path(tempfile.gettempdir())
        _remove_those_of_killed_processes(base)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
            try:
                filesystem.touch(self.path / _IN_USE)
                lock_fd = filesystem.lock_alone(self.path / _IN_USE)
            except FileNotFoundError:
                continue  # another process took it for one that was left
            if lock_fd is not None and not filesystem.is_unlinked(lock_fd):
                self.lock_fd = lock_fd
                return

    @property
    def database(self) -> Path:
        return self.path / "db"

    def remove(self) -> None:
        filesystem.remove_tree(self.path)


def _remove_those_of_killed_processes(base: Path) -> None:
    """A folder that nobody holds was left by a process that died; one that is empty, perhaps by one that was just
    making it, which then makes another.
    """
    for name in filesystem.list_dir(base):
        folder = base / name
        if not name.startswith(_PREFIX) or not filesystem.is_my_folder(folder):
            continue
        try:
            if not filesystem.list_dir(folder):
                filesystem.remove_empty_dir(folder)
                continue
            lock_fd = filesystem.lock_alone(folder / _IN_USE)
        except OSError:
            continue
        if lock_fd is not None:
            filesystem.remove_tree(folder)
            filesystem.unlock(lock_fd)
