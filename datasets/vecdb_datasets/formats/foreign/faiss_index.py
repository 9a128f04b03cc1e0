"""An index that faiss wrote, read by faiss; its vectors are what the index gives back of them.

    IDMap, IDMap2                  ids of their own          inverted lists      ids of their own, list after list
    flat, HNSW, NSG, codes ...     numbers from 0 on

The file is mapped where faiss can do so; kinds that it cannot map lie in memory as a whole while they are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument

from ..optional import optional_module
from ..source import Array
from ..tables.columns import Choice
from ..tables.table import Window
from .rows import CollectionSource

_EXACT = (
    "IndexFlat",
    "IndexFlatL2",
    "IndexFlatIP",
    "IndexHNSWFlat",
    "IndexNSGFlat",
    "IndexIVFFlat",
    "IndexIVFFlatDedup",
)


class FaissSource(CollectionSource):
    """An open faiss index."""

    vector_column = "vector"

    def __init__(self, path: str, check_finite: bool, choice: Choice) -> None:
        self._faiss = faiss = optional_module("faiss", f"{path} is a faiss index: reading it", "faiss")
        self.losses = {}
        index = self._open(path)
        self.metric = {faiss.METRIC_L2: "l2", faiss.METRIC_INNER_PRODUCT: "ip"}.get(index.metric_type)
        if self.metric is None:
            raise InvalidArgument(
                f"{path}: its metric has number {index.metric_type} in faiss, vecdb has l2, ip and cosine"
            )
        self._outer = index
        self._ids: Array | None = None
        if hasattr(index, "id_map"):
            self._ids = faiss.vector_to_array(index.id_map)
            index = faiss.downcast_index(index.index)
        if hasattr(index, "refine_index"):  # which holds the vectors of its base, better
            index = faiss.downcast_index(index.refine_index)
        self._inner = index
        self._lists: Any = None
        ivf = faiss.try_extract_index_ivf(index) if hasattr(faiss, "try_extract_index_ivf") else None
        self._ends = np.empty(0, np.int64)
        if ivf is not None:
            ivf = faiss.downcast_index(ivf)
            if "FastScan" in type(ivf).__name__:
                raise InvalidArgument(f"{path}: faiss cannot give back the vectors of {type(ivf).__name__}")
            self._lists = ivf
            sizes = [ivf.invlists.list_size(at) for at in range(ivf.nlist)]
            self._ends = np.cumsum(sizes, dtype=np.int64)
        kind = type(index).__name__
        if kind not in _EXACT:
            self.losses["vectors"] = f"they are what the codes of {kind} say of them"
        self.field_columns = []
        self._settle(path, "faiss", (int(index.ntotal), int(self._outer.d)), check_finite, choice)

    def _open(self, path: str) -> Any:
        """Mapped if possible."""
        faiss = self._faiss
        flags = [getattr(faiss, name) for name in ("IO_FLAG_MMAP_IFC", "IO_FLAG_MMAP") if hasattr(faiss, name)]
        said: Exception | None = None
        for flag in (*flags, 0):
            try:
                return faiss.read_index(path, flag)
            except RuntimeError as error:
                said = error
        what = str(said).rsplit("Error: ", 1)[-1]
        raise Corruption(f"{path}: faiss cannot read it ({what})") from said

    def _parse(self, start: int, stop: int) -> Window:
        try:
            if self._lists is not None:
                ids, vectors = self._of_lists(start, stop)
            else:
                ids = np.arange(start, stop)
                vectors = self._inner.reconstruct_n(start, stop - start)
        except RuntimeError as error:
            kind = type(self._inner).__name__
            raise InvalidArgument(f"{self.path}: {kind} cannot give its vectors back ({error})") from error
        if self._ids is not None:
            ids = self._ids[ids]
        return self._made(start, ids.tolist(), np.asarray(vectors, np.float32), [{} for _ in ids], {})

    def _of_lists(self, start: int, stop: int) -> tuple[Array, Array]:
        """(ids, vectors) of rows of inverted lists."""
        faiss, lists = self._faiss, self._lists
        ids = np.empty(stop - start, np.int64)
        vectors = np.empty((stop - start, lists.d), np.float32)
        at = start
        while at < stop:
            number = int(np.searchsorted(self._ends, at, side="right"))
            first = int(self._ends[number - 1]) if number else 0
            end = min(stop, int(self._ends[number]))
            inside = faiss.rev_swig_ptr(lists.invlists.get_ids(number), int(self._ends[number]) - first)
            ids[at - start : end - start] = inside[at - first : end - first]
            for row in range(at, end):
                lists.reconstruct_from_offset(number, row - first, faiss.swig_ptr(vectors[row - start]))
            at = end
        chain = self._inner
        if chain.d != lists.d or hasattr(chain, "chain"):
            vectors = self._before(chain, vectors)
        return ids, vectors

    def _before(self, index: Any, vectors: Array) -> Array:
        """Vectors as they were before an index transformed them."""
        if not hasattr(index, "chain"):
            raise RuntimeError("what it did to the vectors is not known")
        for at in reversed(range(index.chain.size())):
            vectors = self._faiss.downcast_VectorTransform(index.chain.at(at)).reverse_transform(vectors)
        return vectors

    def close(self) -> None:
        super().close()
        self._outer = self._inner = self._lists = None
