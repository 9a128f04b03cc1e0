"""A cluster that Ray builds and searches, beside servers of the same shards and one collection of all records."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb import ray
from vecdb_bench.cluster.lineup import Found, Lineup, Meanwhile, bytes_below, filled
from vecdb_bench.cluster.routing import ids_in_common
from vecdb_bench.serving.client_driver import COLLECTION
from vecdb_datasets import recall

_CHUNK, _UNDER_WAY = 4_096, 3  # queries of a call, and calls at a time: as the job has them
_PATIENCE_S = 600.0  # for a call: many queries, on a machine that has other work
_TOLD = 2_000  # queries whose true answers are calculated


def jobs(lineup: Lineup) -> Found:
    """Build from Parquet, search of many queries, by Ray; the same queries to a server of each shard; and to one
    collection that was built in one process. Rates are of searches under way, without what comes before.
    """
    plan, shards = lineup.plan, lineup.plan.shards or 4
    data = lineup.data(plan.rows_of("jobs"))
    queries = lineup.queries(data, plan.queries or 100_000)
    source, url = _parquet(lineup.folder / "rows.parquet", data.base), f"cluster://{lineup.folder.absolute()}/ray"
    with Memory() as building:
        built = ray.build(url, COLLECTION, source, shards=shards, metric=data.metric, index=plan.new_index(),
                          on=ray.RayOptions(niceness=0, work=str(lineup.folder)))  # fmt: skip
    lineup.say(f"built in {built['seconds']:.0f} s")
    clock = _Clock()
    with Memory() as searching:
        found = ray.search(url, COLLECTION, queries, plan.limit,
                           on=ray.RayOptions(niceness=0, work=str(lineup.folder), progress=clock))  # fmt: skip
    lineup.say(f"searched at {clock.rate:.0f} a second")
    servers = [
        lineup.serve(lineup.folder / f"server-{at}", "--follow", f"file://{lineup.folder.absolute()}/ray/{log}",
                     "--staleness-s", "3600")
        for at, log in enumerate(sorted(one.name for one in (lineup.folder / "ray").glob("shard-*")))
    ]  # fmt: skip
    routed = lineup.placed("served", [(f"grpc://{one.target}", ()) for one in servers])
    with vecdb.open(routed, timeout=_PATIENCE_S) as db, Memory() as serving:
        docs = db[COLLECTION]
        docs.search(queries[:1_000], plan.limit)
        began = time.perf_counter()
        with ThreadPoolExecutor(_UNDER_WAY) as pool:
            parts = list(pool.map(lambda at: docs.search(queries[at : at + _CHUNK], plan.limit).ids,
                                  range(0, len(queries), _CHUNK)))  # fmt: skip
        grpc_rate = len(queries) / (time.perf_counter() - began)
        over_grpc = np.concatenate(parts)
    lineup.say(f"over gRPC at {grpc_rate:.0f} a second")
    for one in servers:
        one.close()
    alone, one_rate, one_s, truth = _alone(lineup, data, queries)
    first = slice(0, len(truth.ids))
    rows = [
        {"what": name, "recall": float(recall(ids[first], truth.ids, truth.distances, plan.limit)),
         "a second": rate, "as the servers": ids_in_common(ids[:_TOLD], over_grpc[:_TOLD])}
        for name, ids, rate in (
            ("Ray", found.ids, clock.rate), ("a server of each shard", over_grpc, grpc_rate),
            ("one collection, one thread", alone.ids, one_rate),
        )
    ]  # fmt: skip
    sizes = [
        {"what": "Ray, build", "seconds": built["seconds"], "peak MB": building.peak_mb},
        {"what": "Ray, search, with its start", "seconds": clock.seconds, "peak MB": searching.peak_mb},
        {"what": "servers and client, search", "seconds": len(queries) / grpc_rate, "peak MB": serving.peak_mb},
        {"what": "one collection, build", "seconds": one_s, "peak MB": None},
    ]
    return {
        "searches": rows,
        "jobs": sizes,
        "built": built,
        "bucket_bytes": bytes_below(lineup.folder / "ray"),
        "ratio": clock.rate / grpc_rate,
        "tables": {
            f"{len(queries):,} queries, {len(data.base):,} x {data.dim} in {shards} shards: Ray by gRPC "
            f"{clock.rate / grpc_rate:.2f}": rows,
            "jobs": sizes,
        },
    }


def _alone(lineup: Lineup, data: Any, queries: Any) -> tuple[Any, float, float, Any]:
    """(Hits, queries a second, seconds of the build, the true nearest of the first queries) of one collection."""
    limit = lineup.plan.limit
    seconds = filled(lineup.folder / "alone", data, lineup.plan.new_index())
    with vecdb.open(lineup.folder / "alone", read_only=True) as db:
        docs = db[COLLECTION]
        docs.search(queries[:1_000], limit)
        began = time.perf_counter()
        hits = docs.search(queries, limit)
        rate = len(queries) / (time.perf_counter() - began)
        truth = docs.search(queries[:_TOLD], limit, params=vecdb.SearchParams(exact=True, threads=2))
    return hits, rate, seconds, truth


def _parquet(path: Path, base: Any) -> str:
    """A file of ids and vectors."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    vectors = pa.FixedSizeListArray.from_arrays(pa.array(base.ravel()), base.shape[1])
    parquet.write_table(pa.table({"id": pa.array(np.arange(len(base))), "vector": vectors}), path)
    return str(path)


class _Clock:
    """Hears of a search's progress. rate : queries a second from the first answers to the last."""

    def __init__(self) -> None:
        self._heard: list[tuple[float, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self._heard.append((time.perf_counter(), done))

    @property
    def seconds(self) -> float:
        return self._heard[-1][0] - self._heard[0][0]

    @property
    def rate(self) -> float:
        answered = [one for one in self._heard if one[1]]
        if len(answered) < 2:
            return self._heard[-1][1] / self.seconds
        return (answered[-1][1] - answered[0][1]) / (answered[-1][0] - answered[0][0])


class Memory(Meanwhile):
    """The most that this process and all that it has started hold at a time, shared memory counted once; looked at
    each second.
    """

    rest_s = 1.0

    def __init__(self) -> None:
        self.peak_mb = 0.0

    def _once(self) -> None:
        self.peak_mb = max(self.peak_mb, sum(map(_share_mb, _below(Path("/proc")))))


def _below(proc: Path) -> list[int]:
    """This process and those that it, or one of them, has started."""
    parents = {}
    for one in proc.iterdir():
        if one.name.isdecimal():
            try:
                parents[int(one.name)] = int((one / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found)


def _share_mb(pid: int) -> float:
    """Resident memory of a process, its share of what it shares with others."""
    try:
        for line in (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1e3
    except OSError:
        pass
    return 0.0
