"""One `vecdb serve` in a process of its own, which ends with the thread that started it, however that ends.

Threads: one at a time; `start` from a thread that lives as long as the server is to live.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vecdb.storage.disk import filesystem

# The kernel sends SIGKILL once the starting thread is gone: what was acknowledged is kept, and the directory's lock is
# free at once. Where that thread was gone before this line, the parent is another by now.
_BEGINS = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"
    "if os.getppid() == int(sys.argv[1]):\n"
    "    sys.argv[:] = ['vecdb', *sys.argv[2:]]\n"
    "    from vecdb.cli import main\n"
    "    main()\n"
)
_LOG_BYTES_MAX = 16 << 20  # of what servers before have written; then the file begins anew


class ServerProcess:
    """A server that runs, or has ended. arguments : of `vecdb serve`.   log : the file that gets what it says."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        fd = _log_file(log)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BEGINS, str(os.getpid()), "serve", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                start_new_session=True,  # a Ctrl-C is for whoever supervises
            )
        finally:
            filesystem.close(fd)
        self.began_at = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def lived_s(self) -> float:
        return time.monotonic() - self.began_at

    def end(self, patience_s: float) -> None:
        """Let it answer what it has begun, write what waits, and close; kill it where that takes longer."""
        if self.alive:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        if self.alive:
            self._process.kill()
        self._process.wait()


def _log_file(path: Path) -> int:
    filesystem.make_dir(path.parent)
    if filesystem.kind_of(path) == "file":
        fd = filesystem.open_append(path)
        if filesystem.size(fd) <= _LOG_BYTES_MAX:
            os.lseek(fd, 0, os.SEEK_END)
            return fd
        filesystem.close(fd)
        filesystem.remove(path)
    return filesystem.open_append(path, create=True)
