"""A shard of qdrant-edge with HNSW in one segment, for each engine and peer that measures one.

spec : metric, m, ef_construction, threads (those that build).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

_STEP = 1_000  # points of an update
_NO_GRAPH_KB = 100  # of vectors: fewer are scanned


def build(
    path: Path, base: Any, spec: dict[str, Any], fields: Sequence[str] = (), records: Callable[..., Any] | None = None
) -> None:
    """fields : of keywords, each with an index.   records(start, stop) : fields of some rows, as dicts."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    distance = {"l2": "Euclid", "ip": "Dot", "cosine": "Cosine"}[spec["metric"]]
    graph = qdrant.HnswIndexConfig(spec["m"], spec["ef_construction"], _NO_GRAPH_KB, spec["threads"])
    vectors = qdrant.EdgeVectorParams(base.shape[1], getattr(qdrant.Distance, distance), hnsw_config=graph)
    config = qdrant.EdgeConfig(
        vectors=vectors, hnsw_config=graph,
        optimizers=qdrant.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=_NO_GRAPH_KB),
    )  # fmt: skip
    shard = qdrant.EdgeShard.create(str(path), config)
    for name in fields:
        shard.update(qdrant.UpdateOperation.create_field_index(name, qdrant.PayloadSchemaType.Keyword))
    for first in range(0, len(base), _STEP):
        rows = np.asarray(base[first : first + _STEP], np.float32)
        values = records(first, first + len(rows)) if records else [{}] * len(rows)
        points = [qdrant.Point(first + i, row.tolist(), values[i]) for i, row in enumerate(rows)]
        shard.update(qdrant.UpdateOperation.upsert_points(points))
    shard.optimize()
    shard.flush()
    shard.close()


def open_to_read(path: Path) -> Any:
    return qdrant.EdgeShard.load(str(path))


def width(ef: int, acorn: bool = False) -> Any:
    return qdrant.SearchParams(hnsw_ef=ef, acorn=qdrant.AcornSearchParams(enable=True) if acorn else None)


def search(shard: Any, query: Any, limit: int, width: Any, condition: Any = None) -> Any:
    nearest = qdrant.Query.Nearest(np.asarray(query, np.float32).tolist())
    return shard.search(qdrant.SearchRequest(nearest, limit, filter=condition, params=width))


def search_batch(shard: Any, queries: Any, limit: int, width: Any) -> Any:
    """Several queries in one call."""
    lists = np.asarray(queries, np.float32).tolist()
    asked = [qdrant.QueryRequest(limit, query=qdrant.Query.Nearest(one), params=width) for one in lists]
    return shard.query_batch(qdrant.QueryBatchRequest(asked))


def rows(found: Any) -> list[int]:
    return [int(point.id) for point in found]
