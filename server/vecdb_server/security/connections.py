"""How many connections there may be, and how many there are."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

_FILES_KEPT = 256  # descriptors that connections leave to the database
_TABLES = Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")
_DESCRIPTORS = "/proc/self/fd"
_ESTABLISHED = "01"


def connections_max(wanted: int) -> int:
    """As many as wanted, or as the limit of open files allows; that is raised as far as this user may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = wanted + _FILES_KEPT
    if soft != resource.RLIM_INFINITY and soft < need:
        soft = need if hard == resource.RLIM_INFINITY else min(need, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(1, min(wanted, max(soft - _FILES_KEPT, soft // 2)))


def connections_of(port: int) -> int:
    """Established connections of this process to a port of this machine, which other processes may share; 0 where the
    system does not tell.
    """
    ending, there = f":{port:04X}", set()
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[1].endswith(ending) and words[3] == _ESTABLISHED:
                    there.add(f"socket:[{words[9]}]")
    return len(there & _own()) if there else 0


def _own() -> set[str]:
    """What the descriptors of this process are, as the system names it."""
    found = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(_DESCRIPTORS):
            with contextlib.suppress(OSError):  # it was closed meanwhile
                found.add(os.readlink(f"{_DESCRIPTORS}/{name}"))
    return found
