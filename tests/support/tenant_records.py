"""Vectors, indexes and small questions that tests of tenants share."""

from __future__ import annotations

from typing import Any

import vecdb
from tests.support.corpus import clustered

VECTORS = clustered(400, 8)
KINDS = {
    "flat": vecdb.Flat(),
    "hnsw": vecdb.Hnsw(m=6, ef_construction=40),
    "spann": vecdb.Spann(head_ratio=0.1),
    "curator": vecdb.Curator(leaf_rows=8, scan_max=40, shortlist_max=12),
}


def ids_of(hits: Any) -> list[Any]:
    return sorted(hits.ids.tolist())


def seen(docs: Any, tenant: Any, **more: Any) -> list[Any]:
    """All that a tenant finds."""
    return ids_of(docs.search(VECTORS[0, : docs.dim], 400, tenant=tenant, **more))
