"""Jobs at sizes that the environment says, a worker killed in each: what a cluster finds is what one collection finds.

VECDB_RAY_ROWS=1000000 VECDB_RAY_QUERIES=100000 pytest -s -m slow tests/ray/test_many_rows.py
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.shards.ray_processes import kill_one
from vecdb.ray import RayOptions, build, search
from vecdb_datasets import load, recall

pytestmark = pytest.mark.slow
ROWS = int(os.environ.get("VECDB_RAY_ROWS", "40000"))
QUERIES = int(os.environ.get("VECDB_RAY_QUERIES", "6000"))
SHARDS = int(os.environ.get("VECDB_RAY_SHARDS", "4"))
DIM, LIMIT, TOLD = 128, 10, 500
LEAST = 0.95
EXACT = vecdb.SearchParams(exact=True)


def parquet(path: Path, base: Any) -> str:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(base.ravel()), DIM)
    pq.write_table(pa.table({"id": pa.array(np.arange(len(base))), "vector": vectors}), path)
    return str(path)


def alone(path: Path, base: Any) -> Any:
    """The same rows in one collection."""
    docs = vecdb.open(path).create_collection("docs", DIM, "l2", vecdb.Hnsw(), "uint8")
    for first in range(0, len(base), 20_000):
        docs.upsert(range(first, min(first + 20_000, len(base))), base[first : first + 20_000])
    docs.optimize()
    return docs


def test_a_cluster_finds_what_one_collection_does_though_workers_die(ray: Any, tmp_path: Path) -> None:
    data = load(f"clustered-{ROWS}x{DIM}-uint8")
    queries, told = np.resize(data.queries, (QUERIES, DIM)), data.queries[:TOLD]
    url, source = f"cluster://{tmp_path}/c", parquet(tmp_path / "rows.parquet", data.base)
    killer = threading.Thread(target=kill_one, args=("_bear",))
    killer.start()
    made = build(url, "docs", source, shards=SHARDS, metric="l2", index=vecdb.Hnsw())
    killer.join()
    assert made["records"] == ROWS == sum(made["shards"]) and len(made["shards"]) == SHARDS
    print(f"built {made['shards']} in {made['seconds']:.0f} s")
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if done >= total // 3 and not killed:
            killed.append(kill_one("ShardSearcher"))

    found = search(url, "docs", queries, LIMIT, chunk=max(100, QUERIES // 12), on=RayOptions(progress=progress))
    assert killed and (found.counts == LIMIT).all() and found.ids.shape == (QUERIES, LIMIT)
    for at in range(0, QUERIES, len(data.queries)):  # a query has one answer, before the kill and after
        some = found.ids[at : at + len(data.queries)]
        assert (some == found.ids[: len(some)]).all()
    docs = alone(tmp_path / "alone", data.base)
    truth = docs.search(told, LIMIT, params=EXACT)
    exact = search(url, "docs", told, LIMIT, params=EXACT)
    assert (exact.distances == truth.distances).all()
    for here, there, far in zip(exact.ids, truth.ids, truth.distances, strict=True):
        nearer = far < far[-1]  # of those that are as far as the last one either may be found
        assert set(here[nearer].tolist()) == set(there[nearer].tolist())
    reached = [
        float(recall(one.ids[:TOLD], truth.ids, truth.distances, LIMIT)) for one in (found, docs.search(told, LIMIT))
    ]
    print(f"recall of the cluster {reached[0]:.4f}, of one collection {reached[1]:.4f}")
    assert min(reached) >= LEAST and reached[0] >= reached[1] - 0.01
