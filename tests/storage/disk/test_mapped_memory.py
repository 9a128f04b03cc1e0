"""Memory that was freed goes back to the system, although what was taken after it is still in use."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from vecdb.storage.disk import mapped_memory


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc; other C libraries keep nothing")
def test_freed_memory_goes_back() -> None:
    taken = [np.ones(64 << 10, np.uint8) for _ in range(1_000)]
    last = taken.pop()  # lies behind the others: without it the C library would give them back by itself
    before = resident_bytes()
    taken.clear()
    mapped_memory.give_back_freed()
    assert before - resident_bytes() > 32 << 20
    assert last[0] == 1
