"""One `vecdb serve` in a process of its own, which ends with the thread that started it, however that ends.

Threads: one at a time; `start` from a thread that lives as long as the server is to live.
"""

from __future__ import annotations

import json
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
_LAST_BYTES, _WORDS_MAX = 8_192, 300  # that are read for the last line, and characters of it that are shown
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

    @property
    def killed_by(self) -> str | None:
        """The signal that has ended it, by its name; None where it ended otherwise, or runs."""
        code = self._process.poll()
        return None if code is None or code >= 0 else signal.Signals(-code).name

    def lived_s(self) -> float:
        return time.monotonic() - self.began_at

    def end(self, patience_s: float) -> None:
        """Let it answer what it has begun, write what waits, and close; kill it where that takes longer."""
        if self.alive:
            self.tell_to_end()
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def tell_to_end(self) -> None:
        """It takes no calls from now on, and ends once it has answered those that it has. From any thread."""
        self._process.send_signal(signal.SIGTERM)

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


def last_words(log: Path) -> str:
    """The last line that a server wrote, and where: most say there why they ended."""
    if filesystem.kind_of(log) != "file":
        return f"there is no {log}"
    fd = filesystem.open_read(log)
    try:
        written = filesystem.size(fd)
        text = filesystem.pread(fd, min(written, _LAST_BYTES), max(0, written - _LAST_BYTES)).decode(errors="replace")
    finally:
        filesystem.close(fd)
    last = next((line.strip() for line in reversed(text.split("\n")) if line.strip()), "")
    if not last:
        return f"it wrote nothing to {log}"
    said = _reason(last)
    return f"{said[:_WORDS_MAX]}{'...' if len(said) > _WORDS_MAX else ''} ({log})"


def _reason(line: str) -> str:
    """What a line of a server's log says, without its other fields; another line as it is."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    return str(fields.get("reason") or fields.get("event") or line) if isinstance(fields, dict) else line
