"""Peers: vecdb and the libraries that it is compared with, behind the same few methods.

    Peer.build(base, metric, threads)   from vectors in memory to an index that is ready to search
    Peer.set_ef(ef)                     beam width of the searches that follow; not timed
    Peer.batch(queries, k)              int64[nq, k], one call, one thread
    Peer.single(query, k)               int64[k], as in a loop in a user's program

Every peer gets the same m and ef_construction, and float32 where it has no other type. Threads: one caller.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import vecdb

Array = NDArray[Any]


class Peer(Protocol):
    """The methods that the runner calls."""

    name: str
    package: str

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        """Build the index. Returns seconds of its stages; the runner measures the total itself."""

    def set_ef(self, ef: int) -> None: ...

    def batch(self, queries: Array, k: int) -> Array: ...

    def single(self, query: Array, k: int) -> Array: ...

    def disk_bytes(self) -> int: ...

    def close(self) -> None: ...


class Vecdb:
    """vecdb as users call it: a durable collection in a directory, `Collection.search` for every query."""

    package = "vecdb-engine"

    def __init__(self, m: int, ef_construction: int, quantization: Any = "sq8", name: str = "vecdb") -> None:
        self.name = name
        self._index = vecdb.Hnsw(m=m, ef_construction=ef_construction, quantization=quantization)
        self._folder = tempfile.mkdtemp(prefix="vecdb-bench-")
        self._db: vecdb.Database | None = None

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        dtype = str(base.dtype)
        self._db = vecdb.open(Path(self._folder) / "db")
        self._docs = self._db.create_collection("bench", base.shape[1], metric, self._index, dtype, zero_vectors="far")
        started = time.perf_counter()
        step = max(1, (32 << 20) // base[:1].nbytes)
        for start in range(0, len(base), step):
            self._docs.upsert(np.arange(start, min(len(base), start + step)), base[start : start + step])
        stored = time.perf_counter()
        self._docs.optimize(threads=threads)
        return {"store_seconds": stored - started, "optimize_seconds": time.perf_counter() - stored}

    def set_ef(self, ef: int) -> None:
        self._params = vecdb.SearchParams(ef=ef, threads=1)

    def batch(self, queries: Array, k: int) -> Array:
        return self._docs.search(queries, limit=k, params=self._params).ids

    def single(self, query: Array, k: int) -> Array:
        return self._docs.search(query, limit=k, params=self._params).ids

    def disk_bytes(self) -> int:
        assert self._db is not None
        return int(self._db.stats()["bytes_disk"])

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Hnswlib:
    """hnswlib, the reference implementation of HNSW."""

    package = "hnswlib"

    def __init__(self, m: int, ef_construction: int) -> None:
        self.name = "hnswlib"
        self._m, self._ef_construction = m, ef_construction

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        import hnswlib

        self._index = hnswlib.Index(space=metric, dim=base.shape[1])
        self._index.init_index(
            max_elements=len(base), M=self._m, ef_construction=self._ef_construction, random_seed=100
        )
        self._index.add_items(base, num_threads=threads)
        self._index.set_num_threads(1)
        return {}

    def set_ef(self, ef: int) -> None:
        self._index.set_ef(ef)

    def batch(self, queries: Array, k: int) -> Array:
        return self._index.knn_query(queries, k=k, num_threads=1)[0].astype(np.int64)  # type: ignore[no-any-return]

    def single(self, query: Array, k: int) -> Array:
        return self._index.knn_query(query, k=k, num_threads=1)[0][0]  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        return _saved_bytes(self._index.save_index)

    def close(self) -> None:
        del self._index


class Faiss:
    """faiss IndexHNSWFlat, or IndexHNSWSQ with 8-bit codes."""

    package = "faiss-cpu"

    def __init__(self, m: int, ef_construction: int, codes: bool = False) -> None:
        self.name = "faiss-sq8" if codes else "faiss"
        self._m, self._ef_construction, self._codes = m, ef_construction, codes
        self._unit = False

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        faiss: Any = importlib.import_module("faiss")
        self._unit = metric == "cosine"
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        dim = base.shape[1]
        self._index: Any
        if self._codes:
            self._index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, self._m, kind)
        else:
            self._index = faiss.IndexHNSWFlat(dim, self._m, kind)
        self._index.hnsw.efConstruction = self._ef_construction
        vectors = self._prepared(base)
        faiss.omp_set_num_threads(threads)
        if self._codes:
            self._index.train(vectors)
        self._index.add(vectors)
        faiss.omp_set_num_threads(1)
        return {}

    def set_ef(self, ef: int) -> None:
        self._index.hnsw.efSearch = ef

    def batch(self, queries: Array, k: int) -> Array:
        return self._index.search(self._prepared(queries), k)[1]  # type: ignore[no-any-return]

    def single(self, query: Array, k: int) -> Array:
        return self._index.search(self._prepared(query[None]), k)[1][0]  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        faiss: Any = importlib.import_module("faiss")
        return _saved_bytes(lambda path: faiss.write_index(self._index, path))

    def close(self) -> None:
        del self._index

    def _prepared(self, vectors: Array) -> Array:
        ready = np.ascontiguousarray(vectors, np.float32)
        return ready / np.linalg.norm(ready, axis=1, keepdims=True) if self._unit else ready


class Usearch:
    """usearch, HNSW over float32."""

    package = "usearch"

    def __init__(self, m: int, ef_construction: int) -> None:
        self.name = "usearch"
        self._m, self._ef_construction = m, ef_construction

    def build(self, base: Array, metric: vecdb.Metric, threads: int) -> dict[str, float]:
        usearch: Any = importlib.import_module("usearch.index")
        self._index = usearch.Index(
            ndim=base.shape[1], metric={"l2": "l2sq", "ip": "ip", "cosine": "cos"}[metric], dtype="f32",
            connectivity=self._m, expansion_add=self._ef_construction,
        )  # fmt: skip
        self._index.add(np.arange(len(base)), np.ascontiguousarray(base, np.float32), threads=threads)
        return {}

    def set_ef(self, ef: int) -> None:
        self._index.expansion_search = ef

    def batch(self, queries: Array, k: int) -> Array:
        return self._index.search(queries, k, threads=1).keys.astype(np.int64)  # type: ignore[no-any-return]

    def single(self, query: Array, k: int) -> Array:
        return self._index.search(query, k, threads=1).keys  # type: ignore[no-any-return]

    def disk_bytes(self) -> int:
        return _saved_bytes(self._index.save)

    def close(self) -> None:
        del self._index


def _saved_bytes(save: Callable[[str], None]) -> int:
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-") as folder:
        save(str(Path(folder) / "index"))
        return (Path(folder) / "index").stat().st_size


PEERS: dict[str, Callable[[int, int], Peer]] = {
    "vecdb": lambda m, ef: Vecdb(m, ef),
    "vecdb-f32": lambda m, ef: Vecdb(m, ef, quantization=None, name="vecdb-f32"),
    "hnswlib": lambda m, ef: Hnswlib(m, ef),
    "faiss": lambda m, ef: Faiss(m, ef),
    "faiss-sq8": lambda m, ef: Faiss(m, ef, codes=True),
    "usearch": lambda m, ef: Usearch(m, ef),
}


def make_peers(names: list[str], m: int, ef_construction: int) -> tuple[list[Peer], dict[str, str]]:
    """Peers by name; and those that are absent, with why. Unknown names are refused before anything is built."""
    for name in names:
        if name not in PEERS:
            raise vecdb.InvalidArgument(f"no peer {name!r}; there are: {', '.join(PEERS)}")
    absent = {}
    for name in names:
        module = name.removesuffix("-sq8") if not name.startswith("vecdb") else None
        if module and importlib.util.find_spec(module) is None:
            absent[name] = f"not installed: pip install 'vecdb-engine[{'usearch' if name == 'usearch' else 'bench'}]'"
    return [PEERS[name](m, ef_construction) for name in names if name not in absent], absent
