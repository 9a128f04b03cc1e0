"""vecdb's posting lists."""

from __future__ import annotations

import tempfile
from typing import Any

import engine_process
import numpy as np

import vecdb


class PostingLists(engine_process.Engine):
    def _index(self) -> vecdb.Spann:
        return vecdb.Spann(**self.spec["vecdb"])

    def _fill(self, folder: Any, rows: Any) -> None:
        with vecdb.open(folder) as db:
            docs = db.create_collection(
                "bench", dim=rows.shape[1], metric=self.spec["metric"], dtype=str(rows.dtype), index=self._index()
            )
            step = max(1, (16 << 20) // (rows.shape[1] * rows.itemsize))
            for start in range(0, len(rows), step):
                stop = min(len(rows), start + step)
                docs.upsert(np.arange(start, stop), np.array(rows[start:stop]))
            docs.optimize()

    def warm(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self._fill(folder, np.array(self.base[:6_000]))
            with vecdb.open(folder) as db:
                for query in self.queries[:20]:
                    db.collection("bench").search(query, limit=self.spec["limit"], explain=True)

    def build(self) -> None:
        self._fill(self.folder, self.base)

    def open(self) -> None:
        self.db = vecdb.open(self.folder)
        self.docs = self.db.collection("bench")

    def prepare(self, value: int) -> None:
        self.params = vecdb.SearchParams(nprobe=value)

    def search(self, query: Any) -> Any:
        return self.docs.search(query, limit=self.spec["limit"], params=self.params)

    def rows(self, result: Any) -> list[int]:
        return list(result.ids.tolist())

    def facts(self) -> engine_process.Spec:
        """Means of `explain` over some queries."""
        found = [
            self.docs.search(query, limit=self.spec["limit"], params=self.params, explain=True).explain
            for query in self.queries[:200]
        ]
        names = ("probes", "rows_scanned", "reads", "bytes_read", "reranked", "heads_ms", "scan_ms", "read_ms")
        return {"explain": {name: float(np.mean([one[name] for one in found])) for name in (*names, "rerank_ms")}}


if __name__ == "__main__":
    engine_process.serve(PostingLists)
