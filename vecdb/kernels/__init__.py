"""Compiled kernels: arrays in, arrays out, the GIL released. Nothing here knows a Python object, a file or a name.

Importing this package imports numba (about half a second), so `import vecdb` must not reach it; indexes do, when the
first collection is opened. No other package imports numba.

    options     how kernels are compiled
    bundle      many arrays as one argument
    intrinsics  single instructions: 8-bit dot product, prefetch, CRC-32C steps, half-precision loads
    distance    exact distances of full vectors, float64 accumulation, one row at a time
    checks      row checksums, refusal of what is not finite
    quantize    full vectors -> 8-bit codes
    beam        best-first walk over codes on one layer
    sieve       codes of one bit, a cache line each
    panels      the same of 32 rows at once
    slots       codes in the order of a tree, all of them or a tenant's
    search      whole queries: walk, tail, visibility, re-rank
    build       batch insertion into the graph, reverse links
    repair      neighbourhoods of deleted nodes, reachability
    scan        exact scan of full vectors
    kmeans      assignment and accumulation of balanced k-means
    rabitq      residuals -> codes of 1 to 8 bits, queries to match
    lists       queries over posting lists: heads, scan, re-rank
    assign      which list a row belongs to
    bodies      lists' bodies: filled, carried over, sealed, checked

Machine code is cached per user in a folder named by the digest of these sources, numba's version and the processor,
because numba's own cache does not notice an edit in another file.

Thread rule: kernels are serial and keep no state; threads are the caller's.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numba
from numba import config


def _cache_folder() -> str:
    """Where this version of the kernels keeps its machine code; a private temporary folder where home is not
    writable.
    """
    digest = hashlib.blake2b(digest_size=8)
    here = Path(__file__).parent
    for source in sorted(here.rglob("*.py")):
        digest.update(str(source.relative_to(here)).encode() + b"\0" + source.read_bytes())
    cpu = f"{config.CPU_NAME}/{config.CPU_FEATURES}"
    try:
        import llvmlite.binding as llvm

        cpu += "/" + llvm.get_host_cpu_name()
    except Exception:  # the name only keeps machines with one home apart
        pass
    digest.update(f"{numba.__version__}/{cpu}/{config.BOUNDSCHECK}".encode())
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = f"numba-{digest.hexdigest()}"
    for parent in (os.path.join(base, "vecdb"), os.path.join(tempfile.gettempdir(), f"vecdb-{os.getuid()}")):
        folder = os.path.join(parent, name)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            # Code is loaded from here: a folder that someone else made (in /tmp, say) must not be trusted.
            if os.stat(folder).st_uid == os.getuid() and os.access(folder, os.W_OK):
                return folder
        except OSError:
            continue
    return tempfile.mkdtemp(prefix="vecdb-numba-")


_previous = config.CACHE_DIR
config.CACHE_DIR = os.environ.get("NUMBA_CACHE_DIR") or _cache_folder()
cache_folder: str = config.CACHE_DIR
try:
    from vecdb.kernels import (
        assign,
        beam,
        bodies,
        build,
        bundle,
        checks,
        distance,
        intrinsics,
        kmeans,
        lists,
        quantize,
        rabitq,
        repair,
        scan,
        search,
        sieve,
        slots,
    )
finally:
    config.CACHE_DIR = _previous

__all__ = [
    "assign",
    "beam",
    "bodies",
    "build",
    "bundle",
    "cache_folder",
    "checks",
    "distance",
    "intrinsics",
    "kmeans",
    "lists",
    "quantize",
    "rabitq",
    "repair",
    "scan",
    "search",
    "sieve",
    "slots",
]
