"""Import of an hnswlib index file into a collection.

    file -> parse (hnswlib_format.py) -> vectors and labels of live elements, upserted in batches -> a new graph

Elements that are marked as deleted are left out. The graph is built again by vecdb, with the file's m and
ef_construction (two threads build about as fast as hnswlib does).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vecdb import limits, validate
from vecdb.api.collection import Collection
from vecdb.api.database import Database
from vecdb.errors import InvalidArgument, NotFound
from vecdb.integrations import hnswlib_format
from vecdb.schema import Hnsw
from vecdb.storage.disk import filesystem, mapped_memory

_BATCH_BYTES = 8 << 20


def import_hnswlib(
    database: Database,
    collection: str,
    path: Any,
    metric: str,
    dim: int | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Collection:
    """Fill the new or existing `collection` with the live elements of an hnswlib index file; labels become int ids.

    metric : "l2", "ip" or "cosine", as the index was made: the file does not say it. A cosine index holds vectors that
        hnswlib has scaled to unit length.
    dim : the dimension that the file must have; None: any.
    progress : called with (elements imported, elements) after each batch.

    Every label is upserted, so an import that was interrupted is completed when it is repeated, and a complete one
    changes nothing.

    Raises Corruption where the file is not an hnswlib index, InvalidArgument where dim or metric does not fit, NotFound
    where there is no file.
    """
    file = Path(os.path.abspath(path))
    if not filesystem.exists(file):
        raise NotFound(f"no file at {file}")
    graph = hnswlib_format.parse(mapped_memory.map_readonly(file, foreign=True), name=str(file))
    if dim is not None and graph.dim != dim:
        raise InvalidArgument(f"{file} has dim {graph.dim}, got dim {dim}")
    m = min(max(graph.m, limits.m_min), limits.m_max)
    index = Hnsw(m=m, ef_construction=max(m, min(graph.ef_construction, limits.ef_construction_max)))
    target = database.create_collection(collection, graph.dim, metric, index, exist_ok=True)
    live = np.flatnonzero(~graph.deleted)
    if len(live) and graph.labels[live].max() > np.iinfo(np.int64).max:
        raise InvalidArgument(f"{file} has labels past 2**63 - 1; ids are signed 64-bit integers")
    labels = graph.labels.astype(np.int64)
    step = max(1, _BATCH_BYTES // (4 * graph.dim))
    for start in range(0, len(live), step):
        part = live[start : start + step]
        target.upsert(labels[part], graph.vectors[part])
        if progress is not None:
            progress(min(start + step, len(live)), len(live))
    target.optimize(threads=validate.threads(None))
    return target
