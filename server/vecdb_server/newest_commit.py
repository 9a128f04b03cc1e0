"""Whether another process has committed to a directory: its mark of the newest commit, looked at in memory.

COMMITTED lies beside the database, and every commit overwrites its few bytes before it is acknowledged. What a mapping
of it shows is therefore never older than what a caller was told. It is compared as a whole and not read.
"""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path

_NAME = "COMMITTED"


class NewestCommit:
    """database : the directory. Threads: any."""

    def __init__(self, database: Path) -> None:
        self._path = database / _NAME
        self._mapped: mmap.mmap | None = None
        self._unseen = 0

    def version(self) -> object:
        """It differs from what it was before wherever there was a commit since; also where that cannot be known."""
        if self._mapped is None:
            with contextlib.suppress(OSError, ValueError), self._path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._mapped is not None:
            return self._mapped[:]
        self._unseen += 1
        return self._unseen

    def close(self) -> None:
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None
