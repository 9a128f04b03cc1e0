"""Processes of the Ray that this test has started, to be killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

PATIENCE_S = 120.0


def workers_named(name: str) -> list[int]:
    """Processes below this one whose title begins with ray:: and contains the name."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if title.startswith("ray::") and name in title and _is_below(int(folder.name)):
                found.append(int(folder.name))
    return sorted(found)


def kill_one(name: str) -> int:
    """Wait for such a process, and kill it. Returns its id."""
    ends = time.monotonic() + PATIENCE_S
    while not (found := workers_named(name)):
        assert time.monotonic() < ends, f"no {name}"
        time.sleep(0.02)
    os.kill(found[0], signal.SIGKILL)
    return found[0]


def _is_below(process: int) -> bool:
    """Whether this process has started that one, or one that did."""
    while process > 1:
        if process == os.getpid():
            return True
        try:
            process = int((Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False
