"""A collection as public benchmark harnesses hold an index: what all plug-ins share.

    HarnessCollection    fill, change, search; kernels are loaded when it is made, before a harness starts its clock
    AnnHarness           the methods of ann-benchmarks and of VIBE over it

    ann_benchmarks/   vibe/   big_ann/   vectordbbench/        the plug-ins, each with a page that says how to run it

Records are in a temporary directory ($TMPDIR), which is never synced and goes when the harness is done. Ids are row
numbers. Nothing works in the background while a harness times or weighs, unless it changes records as it searches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb_bench.reporting import machine

Array = NDArray[Any]
METRICS = {
    "angular": "cosine", "cosine": "cosine", "euclidean": "l2", "l2": "l2", "ip": "ip",
    "normalized": "ip",  # of rows of unit norm, where both rank alike
    "hamming": "hamming",  # of rows of bits
}  # fmt: skip
_SLICE_BYTES = 2 << 20  # of one write: what a large one leaves in the allocator is weighed as if it were in use


class HarnessCollection:
    """One collection in a database of its own.

    index : what is built.   metric : a harness's name for it.   dim : None where it is not known before the rows are:
    kernels are loaded then.   background : whether maintenance works beside the caller.
    """

    def __init__(
        self, index: vecdb.Flat | vecdb.Hnsw | vecdb.Spann | vecdb.Curator, metric: str, dim: int | None = None,
        dtype: str = "float32", *, background: bool = False,
    ) -> None:  # fmt: skip
        if metric not in METRICS:
            raise vecdb.InvalidArgument(f"distance {metric!r} is not one of {', '.join(METRICS)}")
        self.index, self.metric = index, METRICS[metric]
        self.dtype = dtype if self.metric != "hamming" else "bits"
        self.threads = machine.cores()
        self._background = background
        self._db: vecdb.Database | None = None
        self._docs: vecdb.Collection | None = None
        self._params = vecdb.SearchParams()
        if dim is not None:
            vecdb.warm_up(dim, self.metric, self.dtype, index)

    @property
    def docs(self) -> vecdb.Collection:
        if self._docs is None:
            raise vecdb.InvalidArgument("nothing is stored yet: the harness is to fit, or to set up, first")
        return self._docs

    def create(self, dim: int) -> vecdb.Collection:
        """A new collection; one from before goes. Vectors of zeros, which data sets have, are taken."""
        self.close()
        self._db = vecdb.open(":memory:", maintenance=self._background)
        self._docs = self._db.create_collection("harness", dim, self.metric, self.index, self.dtype, zero_vectors="far")
        return self._docs

    def fill(self, vectors: Array) -> None:
        """Store all rows, row numbers as ids, and build the index on every processor that this process may use."""
        step = max(1, _SLICE_BYTES // max(1, vectors[:1].nbytes))
        self.fill_from((vectors[start : start + step] for start in range(0, len(vectors), step)), vectors.shape[1])

    def fill_from(self, blocks: Iterable[Array], dim: int, tags: Any = None) -> None:
        """The same for rows that come block after block. tags : a CSR matrix (indptr, indices) with a line for each
        row, whose places are the row's tags; None for none.
        """
        docs, start = self.create(dim), 0
        for block in blocks:
            stop = start + len(block)
            fields = None if tags is None else [{"tags": line.tolist()} for line in _lines(tags, start, stop)]
            docs.upsert(
                range(start, stop), np.ascontiguousarray(block, bool if self.dtype == "bits" else self.dtype), fields
            )
            start = stop
        docs.optimize(threads=self.threads)
        machine.return_free_memory()  # what a harness weighs is what is used

    def search_with(self, *, threads: int = 1, **widths: int | None) -> None:
        """What searches after this do: ef, nprobe, rerank, exact, threads of `vecdb.SearchParams`."""
        self._params = vecdb.SearchParams(threads=threads, **widths)  # type: ignore[arg-type]

    def search(self, query: Array, limit: int) -> Array:
        """Ids of the nearest of one query [dim], int64[limit]."""
        return self.docs.search(query, limit, params=self._params, fields=()).ids

    def search_all(self, queries: Array, limit: int, filter: Any = None) -> Array:
        """Ids int64[nq, limit] of many, on every processor; -1 where fewer records match. filter : one for each."""
        params = vecdb.SearchParams(
            self._params.ef, self._params.nprobe, self._params.recall, self._params.exact, self.threads,
            self._params.rerank,
        )  # fmt: skip
        queries = np.ascontiguousarray(queries)
        return self.docs.search(queries, limit, params=params, fields=(), filter=filter).ids

    def search_tagged(self, queries: Array, tags: Any, limit: int) -> Array:
        """`search_all`, each query among the records that have all of its tags. tags : as those of `fill_from`."""
        filters = [
            vecdb.F.tags.contains_all(line.tolist()) if len(line) else None for line in _lines(tags, 0, len(queries))
        ]
        return self.search_all(queries, limit, filters)

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
        self._db = self._docs = None


class AnnHarness:
    """What ann-benchmarks and VIBE call, in this order: the constructor, `fit`, then for each group of query arguments
    `set_query_arguments` of the plug-in, `query` once a query or `batch_query`; at last `done`.
    """

    def __init__(self, name: str, index: Any, metric: str, dim: int | None = None) -> None:
        self._title = f"{name} ({', '.join(f'{key}={value}' for key, value in _told(index))})"
        self.name = self._title
        self._collection = HarnessCollection(index, metric, dim)
        self.res: Array = np.empty((0, 0), np.int64)

    def fit(self, X: Array) -> None:
        self._collection.fill(np.ascontiguousarray(X, bool if self._collection.dtype == "bits" else np.float32))

    def fit_ood(self, X: Array, X_learn: Array, X_learn_neighbors: Array) -> None:
        """VIBE's, where queries are of another distribution: samples of them change nothing here."""
        self.fit(X)

    def search_with(self, **widths: int | None) -> None:
        self._collection.search_with(**widths)  # type: ignore[arg-type]
        self.name = f"{self._title[:-1]}{', ' if self._title[-2] != '(' else ''}" + (
            ", ".join(f"{key}={value}" for key, value in widths.items()) + ")"
        )

    def query(self, q: Array, n: int) -> Array:
        return self._collection.search(q, n)

    def batch_query(self, X: Array, n: int) -> None:
        self.res = self._collection.search_all(X, n)

    def get_batch_results(self) -> Array:
        return self.res

    def done(self) -> None:
        self._collection.close()

    def __str__(self) -> str:
        return self.name


def _lines(csr: Any, start: int, stop: int) -> list[Array]:
    """Places that each of some lines of a CSR matrix has."""
    return [csr.indices[csr.indptr[i] : csr.indptr[i + 1]] for i in range(start, stop)]


def _told(index: Any) -> list[tuple[str, Any]]:
    """Parameters of an index that are set."""
    return [(key, getattr(index, key)) for key in getattr(index, "__slots__", ()) if getattr(index, key) is not None]
