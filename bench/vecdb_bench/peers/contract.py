"""The methods that the runner calls, of vecdb and of every library that it is compared with.

    Peer.missing()                      why it is not there, without importing it; None if it is
    Peer.refusal(metric, dim)           why it cannot hold such vectors; None if it can
    Peer.load()                         imports the library; not timed
    Peer.build(base, metric, threads)   from vectors in memory to an index that is ready to search
    Peer.set_ef(ef)                     beam width of the searches that follow; not timed
    Peer.batch(queries, k)              int64[nq, k], one call, one thread; a loop where there is no such call
    Peer.single(query, k)               int64[k], as in a loop in a user's program

Every peer gets the same m and ef_construction, and float32 where it has no other type. m is the number of links that a
node of HNSW chooses: its lowest layer has 2 * m of them, and so has a graph without layers. Threads: one caller.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import vecdb

Array = NDArray[Any]


class Peer:
    """A peer.

    name : in results.   package : whose version a result names.   module : what is imported; None for nothing.
    install : what pip installs, the package if empty.   metrics, dim_min : what it can hold.
    own_threads : whether other threads than the caller's search, so that processor time is that of the process.
    """

    name: str
    package: str
    module: str | None = None
    install: ClassVar[str] = ""
    metrics: tuple[str, ...] = ("l2", "cosine", "ip")
    dim_min: ClassVar[int] = 1
    own_threads: ClassVar[bool] = False

    def missing(self) -> str | None:
        if self.module is None or importlib.util.find_spec(self.module) is not None:
            return None
        return f"not installed: pip install {self.install or self.package}"

    def refusal(self, metric: str, dim: int) -> str | None:
        if metric not in self.metrics:
            return f"it has no metric {metric}, only {', '.join(self.metrics)}"
        if dim < self.dim_min:
            return f"it wants at least {self.dim_min} dimensions, and these vectors have {dim}"
        return None

    def load(self) -> None:
        if self.module is not None:
            importlib.import_module(self.module)

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        """Build the index. Returns seconds of its stages; the runner measures the total itself."""
        raise NotImplementedError

    def set_ef(self, ef: int) -> None:
        raise NotImplementedError

    def batch(self, queries: Array, k: int) -> Array:
        raise NotImplementedError

    def single(self, query: Array, k: int) -> Array:
        raise NotImplementedError

    def disk_bytes(self) -> int:
        raise NotImplementedError

    def close(self) -> None:
        """Free the index. Called once, if `build` was called, whether it succeeded or not."""


# -- what several peers need ---------------------------------------------------------------------------


def unit_rows(vectors: Array) -> Array:
    """float32 vectors of unit norm, for libraries without cosine: their inner product is the similarity."""
    ready = np.ascontiguousarray(vectors, np.float32)
    return ready / np.linalg.norm(ready, axis=-1, keepdims=True)  # type: ignore[no-any-return]


def saved_bytes(save: Callable[[str], None]) -> int:
    """Bytes of the file that `save(path)` writes."""
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder:
        save(str(Path(folder) / "index"))
        return (Path(folder) / "index").stat().st_size


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@contextlib.contextmanager
def prints_to_stderr() -> Iterator[None]:
    """What a library's own code prints meanwhile goes to standard error: a result may be on standard output."""
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError, TypeError):  # no C library is known by that name
            ctypes.CDLL(None).fflush(None)  # what the library has printed, and C still holds
        os.dup2(before, 1)
        os.close(before)
