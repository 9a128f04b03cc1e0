"""Compiled kernels: arrays in, arrays out, the GIL released. Nothing here knows a Python object, a file or a name.

Importing this package imports numba (about half a second), so `import vecdb` must not reach it; indexes do, when the
first collection is opened. No other package imports numba.

    compile      how kernels are compiled
    array_table  many arrays as one argument
    primitives   distances, dot products of codes by instruction set, row checksums
    codes        full vectors -> codes of 8 bits, float32, 1 to 8 bits (RaBitQ), one bit
    search       whole queries: over a graph, posting lists, codes in the order of a tree, all vectors
    wire_elements  how much a message is, before it is parsed
    build        insertion into the graph and its repair; k-means, which list a row belongs to, bodies of lists

Machine code is cached per user in a folder named by the digest of these sources, numba's version and the processor,
because numba's own cache does not notice an edit in another file.

Thread rule: kernels are serial and keep no state; threads are the caller's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
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
    name = f"numba-{digest.hexdigest()}"
    for parent in _parents():
        if not os.path.isabs(parent):
            continue  # a user without a home: "~" stays as it is, and would be a folder of the working directory
        folder = os.path.join(parent, name)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            # Code is loaded from here: a folder that someone else made (in /tmp, say) must not be trusted.
            if os.stat(folder).st_uid == os.getuid() and os.access(folder, os.W_OK):
                return folder
        except OSError:
            continue
    try:
        return tempfile.mkdtemp(prefix="vecdb-numba-")
    except FileNotFoundError:
        raise FileNotFoundError(
            "vecdb finds no folder that it may write compiled kernels into: set XDG_CACHE_HOME or TMPDIR to one"
        ) from None


def _parents() -> Iterator[str]:
    """Where that folder may be. The second is looked for only where the first is no good: there may be none."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    yield os.path.join(base, "vecdb")
    with contextlib.suppress(FileNotFoundError):
        yield os.path.join(tempfile.gettempdir(), f"vecdb-{os.getuid()}")


_previous = config.CACHE_DIR
config.CACHE_DIR = os.environ.get("NUMBA_CACHE_DIR") or _cache_folder()
cache_folder: str = config.CACHE_DIR
try:
    from vecdb.kernels import wire_elements
    from vecdb.kernels.build import balanced_kmeans, insertion, list_assignment, list_bodies, repair
    from vecdb.kernels.codes import float_codes, one_bit_fastscan, one_bit_lines, rabitq, rotated_codes, sq8
    from vecdb.kernels.primitives import checksums, distance, dot_products
    from vecdb.kernels.search import (
        beam_search,
        code_scan,
        exact_scan,
        filtered_search,
        graph_search,
        list_probe,
        list_rerank,
        list_scan,
        row_bits,
        tree_search,
    )
finally:
    config.CACHE_DIR = _previous

__all__ = [
    "balanced_kmeans",
    "beam_search",
    "cache_folder",
    "checksums",
    "code_scan",
    "distance",
    "dot_products",
    "exact_scan",
    "filtered_search",
    "float_codes",
    "graph_search",
    "insertion",
    "list_assignment",
    "list_bodies",
    "list_probe",
    "list_rerank",
    "list_scan",
    "one_bit_fastscan",
    "one_bit_lines",
    "rabitq",
    "repair",
    "rotated_codes",
    "row_bits",
    "sq8",
    "tree_search",
    "wire_elements",
]
