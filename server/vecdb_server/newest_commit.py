"""Whether another process has committed to a directory, by its mark of the newest commit.

COMMITTED lies beside the database, and every commit overwrites its few bytes before it is acknowledged. They are
compared as a whole and not understood. Where a disk refused that write, which does not undo a commit, the next second
counts as another.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

NAME = "COMMITTED"  # as storage/disk/commit_mark.py calls it
_BYTES = 64  # more than it has


class NewestCommit:
    """database : the directory. Threads: any."""

    def __init__(self, database: Path) -> None:
        self._path = database / NAME
        self._fd = -1
        self._unseen = 0

    def version(self) -> object:
        """It differs from what it was before wherever there was a commit since; also where that cannot be known."""
        if self._fd < 0:
            with contextlib.suppress(OSError):
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        if self._fd >= 0:
            return os.pread(self._fd, _BYTES, 0), int(time.monotonic())
        self._unseen += 1
        return self._unseen

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
