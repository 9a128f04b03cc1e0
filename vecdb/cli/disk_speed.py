"""The speed of a disk: random direct reads at two depths, through the same functions that searches read with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from vecdb.storage.disk import filesystem, mapped_memory
from vecdb.storage.disk.batch_read import ReadBatch

file_bytes = 256 << 20
block_bytes = 4096
seconds = 1.0


def random_reads(folder: Path) -> dict[str, Any]:
    """4 KiB reads a second at depth 1 and 32, and microseconds of a batch of each, on a fresh file in `folder`."""
    file = folder / "diskspeed"
    rng = np.random.default_rng(1)
    filesystem.write_atomic(file, (rng.bytes(8 << 20) for _ in range(file_bytes // (8 << 20))))
    found: dict[str, Any] = {}
    fd = filesystem.open_direct(file)
    batch = ReadBatch()
    try:
        for depth in (1, 32):
            buffer = mapped_memory.reserve_memory(depth * block_bytes, np.uint8)
            offsets, lengths = np.arange(depth) * block_bytes, np.full(depth, block_bytes)
            times = []
            ends = time.perf_counter() + seconds
            while (began := time.perf_counter()) < ends:
                batch.read(
                    fd, rng.integers(0, file_bytes // block_bytes, depth) * block_bytes, lengths, buffer, offsets
                )
                times.append(time.perf_counter() - began)
            found[f"reads/s at depth {depth}"] = depth / float(np.median(times))
            found[f"us at depth {depth}"] = 1e6 * float(np.median(times))
    finally:
        batch.close()
        filesystem.close(fd)
        filesystem.remove(file)
    return found
