"""Where a result was measured: machine, processor features, versions, digest of the kernels."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import vecdb

shown_flags = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "f16c", "fma", "asimddp", "i8mm", "sve")
measured_packages = ("numpy", "numba", "llvmlite", "lmdb", "msgspec")


def facts(packages: Sequence[str] = ()) -> dict[str, Any]:
    """What a reader needs to judge or repeat a measurement."""
    cpu = _cpuinfo()
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": f"{platform.system()} {platform.release()}",
        "processor": cpu.get("model name") or platform.machine(),
        "features": [flag for flag in shown_flags if flag in flags],
        "cache_bytes": _cache_bytes(),
        "cores": cores(),
        "load": load(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
        "versions": {"vecdb": vecdb.__version__} | {name: _version(name) for name in (*measured_packages, *packages)},
        "kernels": kernels_digest(),
        "environment": {n: v for n, v in os.environ.items() if n.startswith(("NUMBA_", "OMP_", "OPENBLAS_", "MKL_"))},
    }


def cores() -> int:
    """How many cores this process may use; where the system does not say, how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load() -> list[float]:
    """Processes that ran or waited, on average of the last 1, 5 and 15 minutes, this one among them."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def kernels_digest() -> str:
    """Digest of the sources of vecdb's kernels: results with the same digest ran the same code."""
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted((Path(vecdb.__file__).parent / "kernels").rglob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def return_free_memory() -> None:
    """Let the allocator give back what nobody uses."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def memory_bytes() -> dict[str, int]:
    """Anonymous and resident memory of this process, after allocators have returned their free memory."""
    return_free_memory()
    try:
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return {"anonymous": 0, "resident": 0}
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines[1:]}
    return {"anonymous": sizes["Anonymous"], "resident": sizes["Rss"]}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines of /proc/cpuinfo; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _cache_bytes() -> int | None:
    """Size of the last-level cache: data sets that fit in it look faster."""
    try:
        return max(
            int(path.read_text(encoding="ascii").strip().removesuffix("K")) << 10
            for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
        )
    except (OSError, ValueError):
        return None
