"""vecdb with a million tenants, nearly all of them idle."""

from __future__ import annotations

import tempfile
import time

import engine_process
import numpy as np

import vecdb


class ManyTenants(engine_process.Engine):
    def _fill(self, folder: object, count: int, singles: int = 0) -> engine_process.Spec:
        step, took = 10_000, 0.0
        with vecdb.open(folder) as db:
            docs = db.create_collection("bench", dim=self.base.shape[1], metric="l2", index=vecdb.Flat())
            started = time.perf_counter()
            for start in range(0, count, step):
                docs.create_tenant([f"user-{j}" for j in range(start, min(count, start + step))])
            took = time.perf_counter() - started
            started = time.perf_counter()
            for j in range(singles):
                docs.create_tenant(f"one-{j}")
            single = (time.perf_counter() - started) / max(1, singles)
            rows = np.array(self.base)
            docs.upsert(np.arange(len(rows)), rows, tenants=[[f"user-{j % count}"] for j in range(len(rows))])
        return {"create_seconds": took, "create_one_seconds": single}

    def warm(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self._fill(folder, 10)
            with vecdb.open(folder) as db:
                db.collection("bench").search(self.queries[0], limit=1, tenant="user-1")

    def build(self) -> engine_process.Spec:
        return self._fill(self.folder, self.spec["tenants"], singles=self.spec["singles"])

    def open(self) -> None:
        self.db = vecdb.open(self.folder)
        self.docs = self.db.collection("bench")

    def prepare(self, value: object) -> None:
        pass

    def search(self, query: np.ndarray) -> vecdb.Hits:
        return self.docs.search(query, limit=1, tenant="user-1")

    def rows(self, result: vecdb.Hits) -> list[int]:
        return list(result.ids.tolist())


if __name__ == "__main__":
    engine_process.serve(ManyTenants)
