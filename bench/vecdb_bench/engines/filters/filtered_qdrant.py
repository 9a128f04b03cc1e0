"""qdrant-edge: a shard with a keyword index for each field, as its planner chooses; spec["acorn"]: with ACORN."""

from __future__ import annotations

import shutil
from typing import Any

import engine_process
import filtered
import numpy as np
import qdrant_edge as qdrant


class Qdrant(filtered.FilteredEngine):
    own_threads = True

    def make(self) -> None:
        path = self.folder / "shard"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        distance = {"l2": "Euclid", "ip": "Dot", "cosine": "Cosine"}[self.spec["metric"]]
        graph = qdrant.HnswIndexConfig(self.spec["m"], self.spec["ef_construction"], 100, self.spec["threads"])
        vectors = qdrant.EdgeVectorParams(self.base.shape[1], getattr(qdrant.Distance, distance), hnsw_config=graph)
        config = qdrant.EdgeConfig(
            vectors=vectors, hnsw_config=graph,
            optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=100),
        )  # fmt: skip
        shard = qdrant.EdgeShard.create(str(path), config)
        for name in self.fields:
            shard.update(qdrant.UpdateOperation.create_field_index(name, qdrant.PayloadSchemaType.Keyword))
        for start in range(0, len(self.base), 1_000):
            rows = np.asarray(self.base[start : start + 1_000], np.float32)
            records = self.records(start, start + len(rows))
            points = [qdrant.Point(start + i, row.tolist(), records[i]) for i, row in enumerate(rows)]
            shard.update(qdrant.UpdateOperation.upsert_points(points))
        shard.optimize()
        shard.flush()
        shard.close()

    def open(self) -> None:
        self.shard = qdrant.EdgeShard.load(str(self.folder / "shard"))

    def condition(self, field: str, code: int) -> Any:
        return qdrant.Filter(must=[qdrant.FieldCondition(key=field, match=qdrant.MatchValue(f"{field}.{code}"))])

    def prepare(self, value: int) -> None:
        acorn = qdrant.AcornSearchParams(enable=True) if self.spec.get("acorn") else None
        self.params = qdrant.SearchParams(hnsw_ef=value, acorn=acorn)

    def search(self, query_and_filter: Any) -> Any:
        query, one = query_and_filter
        return self.shard.search(
            qdrant.SearchRequest(
                qdrant.Query.Nearest(np.asarray(query, np.float32).tolist()), self.spec["limit"], filter=one,
                params=self.params,
            )
        )  # fmt: skip

    def rows(self, result: Any) -> list[int]:
        return [int(point.id) for point in result]


if __name__ == "__main__":
    engine_process.serve(Qdrant)
