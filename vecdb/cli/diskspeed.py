"""How fast is the disk itself? Random direct reads at two depths, through the seam that searches use."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.storage.disk import filesystem
from vecdb.storage.disk.batch_read import ReadBatch

file_bytes = 256 << 20
block = 4096
seconds = 1.0


def random_reads(folder: Path) -> dict[str, Any]:
    """4 KiB reads a second at depth 1 and 32, and microseconds of a batch of each, on a fresh file in `folder`."""
    file = folder / "diskspeed"
    rng = np.random.default_rng(1)
    filesystem.write_atomic(file, (rng.bytes(8 << 20) for _ in range(file_bytes // (8 << 20))))
    found: dict[str, Any] = {}
    fd = filesystem.open_direct(file)
    ring = ReadBatch()
    try:
        for depth in (1, 32):
            buffer = filesystem.reserve_memory(depth * block, np.uint8)
            places, lengths = np.arange(depth) * block, np.full(depth, block)
            times = []
            ends = time.perf_counter() + seconds
            while (began := time.perf_counter()) < ends:
                ring.read(fd, rng.integers(0, file_bytes // block, depth) * block, lengths, buffer, places)
                times.append(time.perf_counter() - began)
            found[f"reads/s at depth {depth}"] = depth / float(np.median(times))
            found[f"us at depth {depth}"] = 1e6 * float(np.median(times))
    finally:
        ring.close()
        filesystem.close(fd)
        filesystem.remove(file)
    return found
