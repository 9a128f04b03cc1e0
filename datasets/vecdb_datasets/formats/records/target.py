"""Target: where a writer's bytes go.

    a path that is free, or a plain file     a neighbour PATH.part-PID, renamed when it is whole
    a symbolic link                          the same for the file that it leads to; the link stays
    "-" and /dev/stdout                      a temporary file, copied to standard output when it is whole
    a pipe, a device, /dev/fd/N              the same, copied there

Nothing but a plain file is ever replaced. Neighbours that a killed writer of the same file left are removed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from typing import IO

from vecdb import InvalidArgument, NotFound

STDOUT = "-"


class Target:
    """path : as the caller gave it.   part : the file to write, until `put_in_place` or `discard`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._real = os.path.realpath(path)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.is_stdout = is_stdout(path)
        self.is_stream = self.is_stdout or _is_stream(path)
        if self.is_stream:
            self._folder = tempfile.TemporaryDirectory(prefix="vecdb-export-")
            self.part = os.path.join(self._folder.name, "part")
            return
        if os.path.islink(self._real):
            raise InvalidArgument(f"{path} is a link that leads to itself")
        if os.path.isdir(self._real):
            raise InvalidArgument(f"{path} is a directory: name a file in it")
        parent = os.path.dirname(self._real)
        if not os.path.isdir(parent):
            raise NotFound(f"{path}: there is no folder {parent}: make it first")
        _remove_left_parts(parent, os.path.basename(self._real))
        self.part = f"{self._real}.part-{os.getpid()}"

    def put_in_place(self) -> None:
        """Make the part the file, or send it down the pipe."""
        if not self.is_stream:
            if os.path.exists(self._real):
                os.chmod(self.part, stat.S_IMODE(os.stat(self._real).st_mode))
            os.replace(self.part, self._real)
            return
        with open(self.part, "rb") as source:
            if self.is_stdout:
                sys.stdout.flush()
                shutil.copyfileobj(source, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                return
            with _open_stream(self.path) as sink:
                shutil.copyfileobj(source, sink)

    def discard(self) -> None:
        """Remove the part, where there is one."""
        if os.path.exists(self.part):
            os.unlink(self.part)
        if self._folder is not None:
            self._folder.cleanup()


def is_stdout(path: str) -> bool:
    """Whether a path means standard output."""
    return path == STDOUT or os.path.abspath(path) in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def _open_stream(path: str) -> IO[bytes]:
    descriptor = re.fullmatch("/(?:dev|proc/self)/fd/([0-9]+)", os.path.abspath(path))
    return os.fdopen(os.dup(int(descriptor[1])), "wb") if descriptor else open(path, "wb")


def _is_stream(path: str) -> bool:
    if os.path.abspath(path).startswith(("/dev/fd/", "/proc/self/fd/")):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _remove_left_parts(folder: str, name: str) -> None:
    """Parts of writers of this file that are no more."""
    head = f"{name}.part-"
    for other in os.listdir(folder):
        pid = other.removeprefix(head).split("-")[0]
        if other.startswith(head) and pid.isdigit() and not _lives(int(pid)):
            left = os.path.join(folder, other)
            if os.path.isdir(left) and not os.path.islink(left):
                shutil.rmtree(left)
            else:
                os.unlink(left)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
