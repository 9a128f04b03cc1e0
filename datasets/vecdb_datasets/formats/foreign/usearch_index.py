"""An index that usearch saved, read by usearch, which maps the file. Rows are in the order of their keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb import Corruption, InvalidArgument

from ..optional import optional_module
from ..source import Array
from ..tables.columns import Choice
from ..tables.table import Window
from .rows import CollectionSource

_METRICS = {"Cos": "cosine", "L2sq": "l2", "IP": "ip"}
_DTYPES = {"F64": "f4", "F32": "f4", "F16": "f2"}  # others give back float32


class UsearchSource(CollectionSource):
    """An open usearch index."""

    vector_column = "vector"

    def __init__(self, path: str, check_finite: bool, choice: Choice) -> None:
        usearch = optional_module("usearch.index", f"{path} is a usearch index: reading it", "usearch")
        self.losses = {}
        try:
            facts = usearch.Index.metadata(path)
            metric, kind = (_name_of(facts[name]) for name in ("kind_metric", "kind_scalar"))
            self._index: Any = usearch.Index.restore(path, view=True)
            if self._index is None:
                raise ValueError("no index")
            self._keys: Array = np.sort(np.asarray(self._index.keys[0 : len(self._index)], np.uint64))
        except (ValueError, RuntimeError, KeyError) as error:
            raise Corruption(f"{path}: usearch cannot read it ({error})") from error
        if kind == "B1":
            raise InvalidArgument(f"{path}: its vectors are single bits, which vecdb does not store")
        if metric not in _METRICS:
            raise InvalidArgument(f"{path}: its metric is {metric}, vecdb has l2, ip and cosine")
        if len(np.unique(self._keys)) != len(self._keys):
            raise InvalidArgument(f"{path}: it has several vectors for one key, and a record has one: save them apart")
        self.metric = _METRICS[metric]
        if kind not in ("F64", "F32", "F16"):
            self.losses["vectors"] = f"the index holds them as {kind.lower()}"
        elif kind == "F64":
            self.losses["float64"] = "vecdb stores float32"
        self.field_columns = []
        shape = (len(self._keys), int(self._index.ndim))
        self._settle(path, "usearch", shape, check_finite, choice, _DTYPES.get(kind, "f4"))

    def _parse(self, start: int, stop: int) -> Window:
        keys = self._keys[start:stop]
        found = self._index.get(keys, dtype="f16" if self.dtype == np.float16 else "f32")
        vectors: Any = [np.zeros(0) if one is None else one for one in found]
        wrong = {at: " has no vector" for at, one in enumerate(found) if one is None}
        if not wrong:
            vectors = np.asarray(found, self.dtype).reshape(len(keys), self.dim)
        return self._made(start, keys.tolist(), vectors, [{} for _ in keys], wrong)

    def close(self) -> None:
        super().close()
        self._index = None


def _name_of(kind: Any) -> str:
    """ "Cos" of MetricKind.Cos."""
    return str(getattr(kind, "name", kind))
