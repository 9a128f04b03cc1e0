"""What the engines that filter share: the fields of rows, and for each condition the keyword that each query asks for.

fields.npz        of each field, int32[n], the number of each row's keyword
conditions.json   {"condition": {"field": ..., "codes": one for each query}}
"""

from __future__ import annotations

import json
import shutil
from typing import Any

import engine_process
import numpy as np


class FilteredEngine(engine_process.Engine):
    """Searches among the rows whose field has a keyword. spec["index_of"] : another engine, whose index it copies."""

    def __init__(self, *of: Any) -> None:
        super().__init__(*of)
        data = self.folder.parent
        with np.load(data / "fields.npz") as stored:
            self.fields = {name: stored[name] for name in stored.files}
        self.conditions = json.loads((data / "conditions.json").read_text(encoding="utf-8"))
        self._asked: dict[str, list[tuple[Any, Any]]] = {}

    def build(self) -> None:
        """Build the index, once: a folder that is there is kept."""
        if not (self.folder / "built").exists():
            if "index_of" in self.spec:
                shutil.copytree(self.folder.parent / self.spec["index_of"], self.folder, dirs_exist_ok=True)
                return
            self.folder.mkdir(exist_ok=True)
            self.make()
            (self.folder / "built").touch()

    def make(self) -> None:
        """Build the index in `folder`."""
        raise NotImplementedError

    def condition(self, field: str, code: int) -> Any:
        """The filter in the form that the engine takes; not timed."""
        raise NotImplementedError

    def query_set(self, name: str) -> Any:
        if name not in self._asked:
            field, codes = self.conditions[name]["field"], self.conditions[name]["codes"]
            known = {code: self.condition(field, code) for code in set(codes)}
            self._asked[name] = [(query, known[code]) for query, code in zip(self.queries, codes, strict=True)]
        return self._asked[name]

    def mask(self, field: str, code: int) -> Any:
        """bool[n]"""
        return self.fields[field] == code

    def records(self, start: int, stop: int) -> list[dict[str, str]]:
        """Fields of some rows."""
        texts = [[f"{name}.{code}" for code in codes[start:stop].tolist()] for name, codes in self.fields.items()]
        return [dict(zip(self.fields, values, strict=True)) for values in zip(*texts, strict=True)]

    def unit(self, vectors: Any) -> Any:
        """float32 vectors, of unit norm if the metric is cosine, so that the inner product is the similarity."""
        ready = np.ascontiguousarray(vectors, np.float32)
        if self.spec["metric"] != "cosine":
            return ready
        return ready / np.linalg.norm(ready, axis=-1, keepdims=True)
