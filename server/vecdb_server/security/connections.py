"""How many connections there may be, and how many there are."""

from __future__ import annotations

import resource
from pathlib import Path

_FILES_KEPT = 256  # descriptors that connections leave to the database
_TABLES = Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6")
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
    """Established connections to a port of this machine; 0 where the system does not tell."""
    ending, count = f":{port:04X}", 0
    for table in _TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            count += words[1].endswith(ending) and words[3] == _ESTABLISHED
    return count
