"""Jobs over all shards of a cluster on Ray: what they make and find is what one collection holds and finds."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.shards.ray_processes import kill_one
from tests.support.shards.written_cluster import WrittenCluster
from vecdb.cluster.placement import Placement, cluster_bucket
from vecdb.ray import RayOptions, build, evaluate, reshape, search
from vecdb.shards.birth import ATTEMPTS

DIM = 16
EXACT = vecdb.SearchParams(exact=True)
RESHAPED_ROWS = int(os.environ.get("VECDB_RESHAPED_ROWS", "20000"))
_UPSERTED = 20_000


def data(n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def nearest(vectors: Any, queries: Any, k: int) -> Any:
    """Ids of the k nearest under l2, in order."""
    far = ((queries[:, None, :].astype(np.float64) - vectors[None].astype(np.float64)) ** 2).sum(axis=2)
    return np.argsort(far, axis=1, kind="stable")[:, :k]


def parquet(path: Path, ids: Any, vectors: Any) -> str:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {
        "id": pa.array(ids),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM),
        "kind": pa.array([f"k{one % 7}" for one in range(len(ids))]),
    }
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_a_cluster_is_built_and_searched(ray: Any, tmp_path: Path) -> None:
    """The one test that starts Ray among the fast ones."""
    vectors, queries = data(1_200), data(50, 1)
    url = f"cluster://{tmp_path}/c"
    np.save(tmp_path / "rows.npy", vectors)
    said: list[tuple[int, int]] = []
    made = build(
        url, "docs", tmp_path / "rows.npy", shards=2, metric="l2", on=RayOptions(progress=lambda *one: said.append(one))
    )
    assert made["records"] == 1_200 == sum(made["shards"]) and min(made["shards"]) > 450
    assert said[0] == (0, 3) and said[-1] == (3, 3)
    bucket = cluster_bucket(url)
    assert not list(bucket.list(ATTEMPTS))
    told: list[tuple[int, int]] = []
    found = search(
        url, "docs", queries, 5, params=EXACT, chunk=20, on=RayOptions(progress=lambda *one: told.append(one))
    )
    assert (found.ids == nearest(vectors, queries, 5)).all() and told[-1] == (50, 50)
    with pytest.raises(vecdb.AlreadyExists):
        build(url, "docs", tmp_path / "rows.npy", shards=2)


@pytest.mark.slow
def test_a_cluster_is_reshaped_and_finds_the_same(ray: Any, tmp_path: Path) -> None:
    vectors, queries = data(1_200), data(50, 1)
    url = f"cluster://{tmp_path}/c"
    np.save(tmp_path / "rows.npy", vectors)
    build(url, "docs", tmp_path / "rows.npy", shards=2, metric="l2")
    moved = reshape(url, shards=3, drain_s=0.0, servers_s=0.0, remove_old=True)
    bucket = cluster_bucket(url)
    placement = Placement.read(bucket)
    assert moved["records"] == 1_200 and len(placement.serving) == 3
    logs = {key.partition("/")[0] for key, _ in bucket.list() if key.startswith("shard-")}
    assert {one.log for one in placement.shards.values()} <= logs
    assert (search(url, "docs", queries, 5, params=EXACT).ids == nearest(vectors, queries, 5)).all()


@pytest.mark.slow
def test_parquet_with_ids_and_fields_and_a_dataset_make_the_same(ray: Any, tmp_path: Path) -> None:
    vectors, queries = data(3_000), data(20, 1)
    ids = [f"id-{one}" for one in range(3_000)]
    file = parquet(tmp_path / "rows.parquet", ids, vectors)
    build(f"cluster://{tmp_path}/a", "docs", file, shards=3, metric="l2")
    import ray.data

    build(f"cluster://{tmp_path}/b", "docs", ray.data.read_parquet(file), shards=3, metric="l2")
    true = nearest(vectors, queries, 10)
    for name in ("a", "b"):
        found = search(f"cluster://{tmp_path}/{name}", "docs", queries, 10, params=EXACT, fields=True)
        assert found.ids.tolist() == [[f"id-{one}" for one in row] for row in true.tolist()]
    assert evaluate(f"cluster://{tmp_path}/a", "docs", queries, 10)["recall"] > 0.9
    found = search(f"cluster://{tmp_path}/a", "docs", queries, 3, filter="kind = 'k3'", params=EXACT)
    assert all(int(one.removeprefix("id-")) % 7 == 3 for one in found.ids.ravel().tolist())


@pytest.mark.slow
def test_answers_are_written_and_a_job_goes_on(ray: Any, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    vectors, queries = data(1_000), data(130, 1)
    url, out = f"cluster://{tmp_path}/c", tmp_path / "out"
    np.save(tmp_path / "rows.npy", vectors)
    np.save(tmp_path / "queries.npy", queries)
    build(url, "docs", tmp_path / "rows.npy", shards=2, metric="l2")
    asked: dict[str, Any] = {"params": EXACT, "out": str(out), "chunk": 50}
    made = search(url, "docs", str(tmp_path / "queries.npy"), 4, **asked)
    assert made["queries"] == 130 and made["files"] == 3
    files = sorted(out.glob("*.parquet"))
    kept = files[0].stat().st_mtime_ns
    files[1].unlink()
    search(url, "docs", str(tmp_path / "queries.npy"), 4, **asked)
    assert files[0].stat().st_mtime_ns == kept
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert [row["query"] for row in rows] == list(range(130))
    assert [row["ids"] for row in rows] == nearest(vectors, queries, 4).tolist()
    with pytest.raises(vecdb.InvalidArgument, match="another search"):
        search(url, "docs", str(tmp_path / "queries.npy"), 5, **asked)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["_bear", "_split_part"])
def test_a_worker_that_is_killed_while_it_builds_is_replaced(ray: Any, tmp_path: Path, name: str) -> None:
    vectors, queries = data(140_000), data(20, 1)
    url = f"cluster://{tmp_path}/c"
    np.save(tmp_path / "rows.npy", vectors)
    killer = threading.Thread(target=kill_one, args=(name,))
    killer.start()
    made = build(url, "docs", tmp_path / "rows.npy", shards=2, metric="l2")
    killer.join()
    assert made["records"] == 140_000
    bucket = cluster_bucket(url)
    logs = {key.partition("/")[0] for key, _ in bucket.list() if key.startswith("shard-")}
    assert logs == {one.log for one in Placement.read(bucket).shards.values()}
    found = search(url, "docs", queries, 5, params=EXACT)
    assert (found.ids == nearest(vectors, queries, 5)).all()


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_searches_is_replaced(ray: Any, tmp_path: Path) -> None:
    vectors, queries = data(20_000), data(3_000, 1)
    url = f"cluster://{tmp_path}/c"
    np.save(tmp_path / "rows.npy", vectors)
    build(url, "docs", tmp_path / "rows.npy", shards=2, metric="l2")
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if done >= 400 and not killed:
            killed.append(kill_one("ShardSearcher"))

    found = search(url, "docs", queries, 5, params=EXACT, chunk=200, on=RayOptions(progress=progress))
    assert killed and (found.ids == nearest(vectors, queries, 5)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OldShard", "NewShard"])
@pytest.mark.parametrize("step", ["copying", "catching up", "caught up"])
def test_a_worker_that_is_killed_while_it_reshapes_is_replaced(ray: Any, tmp_path: Path, name: str, step: str) -> None:
    cluster = WrittenCluster(tmp_path, 2)
    cluster.create()
    for first in range(0, RESHAPED_ROWS, _UPSERTED):
        cluster.upsert(list(range(first, min(first + _UPSERTED, RESHAPED_ROWS))))
    killed: list[int] = []

    def report(now: str, done: int, total: int) -> None:
        if now == step and not killed:
            killed.append(kill_one(name))
            if step != "caught up":
                cluster.upsert(list(range(RESHAPED_ROWS, RESHAPED_ROWS + 10)))
                cluster.delete(list(range(10)))
        elif now == "catching up":
            cluster.close()

    made = reshape(cluster.url, shards=3, drain_s=0.0, servers_s=0.0, report=report)
    assert killed and made["records"] == len(cluster.records)
    cluster.close()
    assert cluster.found() == cluster.records


def test_without_ray_the_rest_of_vecdb_does_not_notice() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['ray'] = None\n"
        "import vecdb, vecdb.ray\n"
        "assert 'vecdb.ray' in sys.modules\n"
        "try: vecdb.ray.search('cluster:///nowhere', 'docs', [[1.0]])\n"
        "except vecdb.VecdbError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'vecdb-engine[ray]'" in done.stdout
