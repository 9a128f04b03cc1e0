"""What it costs that records are spread: a call of the cluster beside one of a shard, and list indexes of shards beside
one of all records.
"""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.cluster.lineup import Found, Lineup, fill
from vecdb_bench.serving.client_driver import COLLECTION
from vecdb_bench.serving.lineup import median
from vecdb_datasets import recall

_WIDTHS = (4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256)

_QUIET_S, _QUIET_MOST_S, _QUIET_SHARE = 3.0, 120.0, 0.03
_KERNELS = ("heads_ms", "scan_ms", "rerank_ms")  # of what `explain` says


def served(lineup: Lineup, name: str, shards: int, data: Any, index: Any) -> tuple[list[Any], str]:
    """Servers of so many shards, and the address of the cluster, which has the data."""
    servers = [lineup.serve(lineup.folder / f"{name}-{at}") for at in range(shards)]
    url = lineup.placed(name, [(f"grpc://{one.target}", ()) for one in servers])
    with vecdb.open(url) as db:
        fill(db, data, index).optimize()
    wait_quiet([one.pid for one in servers])
    return servers, url


def wait_quiet(pids: list[int]) -> None:
    """Until processes do nothing by themselves: after a build, and after many searches, servers learn for a while."""
    ends = time.monotonic() + _QUIET_MOST_S
    while time.monotonic() < ends:
        before = sum(map(cpu_s, pids))
        time.sleep(_QUIET_S)
        if sum(map(cpu_s, pids)) - before < _QUIET_SHARE * _QUIET_S * len(pids):
            return


def router(lineup: Lineup) -> Found:
    """One client: a call of the cluster, and the same of each shard. Batches: queries a second that the cluster gives
    each of its shards, and those that the shards answer when each has a client of its own, all at once.
    """
    plan = lineup.plan
    data = lineup.data(plan.rows_of("router"))
    servers, url = served(lineup, "routed", plan.shards or 2, data, vecdb.Hnsw())
    places = {"cluster": url, **{f"shard {at}": f"grpc://{one.target}" for at, one in enumerate(servers)}}
    single = {name: lineup.client(where, lineup.queries(data, plan.queries or 1_000)) for name, where in places.items()}
    batch = {name: lineup.client(where, lineup.queries(data, plan.batch)) for name, where in places.items()}
    shards = [name for name in places if name != "cluster"]
    for name in places:
        batch[name].ask(do="batch", limit=plan.limit)  # kernels are loaded, connections made
    calls: list[Found] = []
    rates: list[Found] = []
    with ThreadPoolExecutor(len(shards)) as pool:
        for at in range(plan.rounds):
            for name in list(places)[at % len(places) :] + list(places)[: at % len(places)]:
                turn = single[name].ask(do="search", limit=plan.limit, seconds=plan.seconds)
                calls.append({"round": at + 1, "what": name, "p50 us": turn["p50_us"], "p99 us": turn["p99_us"]})
            routed = 1e6 / batch["cluster"].ask(do="batch", limit=plan.limit)["us"]
            alone = [1e6 / batch[name].ask(do="batch", limit=plan.limit)["us"] for name in shards]
            at_once = list(pool.map(lambda name: 1e6 / batch[name].ask(do="batch", limit=plan.limit)["us"], shards))
            rates.append(
                {"round": at + 1, "cluster": routed, "shard alone": statistics.mean(alone),
                 "shards at once, sum": sum(at_once), "ratio": routed * len(shards) / sum(at_once)}
            )  # fmt: skip
            lineup.say(f"round {at + 1}")
    p50 = {name: statistics.median(one["p50 us"] for one in calls if one["what"] == name) for name in places}
    added = p50["cluster"] - statistics.mean(p50[name] for name in shards)
    return {
        "calls": calls,
        "batches": rates,
        "added_us": added,
        "ratio": median(rates)["ratio"],
        "tables": {
            f"one client; the cluster adds {added:.0f} us at the median": calls,
            f"queries a second, {plan.batch:,} a call; each shard of the cluster beside the shards": rates,
        },
    }


def lists(lineup: Lineup) -> Found:
    """Spann over shards beside one collection, each with the fewest lists that reach the recall: vectors read, and
    processor time of servers and client, of batches of queries.
    """
    plan = lineup.plan
    data = lineup.data(plan.rows_of("lists"))
    queries = lineup.queries(data, plan.queries or 1_000)[: len(data.queries)]
    truth = data.truth_for(plan.limit)
    rows, found = [], {}
    for shards in (1, plan.shards or 4):
        lineup.say(f"building {shards} shards")
        servers, url = served(lineup, f"lists-{shards}", shards, data, vecdb.Spann())
        with vecdb.open(url) as db:
            docs = db[COLLECTION]

            def recall_at(width: int, docs: Any = docs) -> float:
                hits = docs.search(queries, plan.limit, params=vecdb.SearchParams(nprobe=width))
                return float(recall(hits.ids, truth.ids[: len(queries)], truth.distances[: len(queries)], plan.limit))

            width = next((one for one in _WIDTHS if recall_at(one) >= plan.recall), _WIDTHS[-1])
            pids = [one.pid for one in servers]
            for at in range(plan.rounds):
                wait_quiet(pids)  # they learn from what was asked
                turn = _work(docs, queries, plan.limit, width, pids)
                rows.append({"shards": shards, "round": at + 1, "lists": width, "recall": recall_at(width)} | turn)
        found[shards] = median([one for one in rows if one["shards"] == shards])
        for one in servers:
            one.close()
    one, many = found.values()
    ratios = {name: many[name] / one[name] for name in ("read", "servers us", "client us", "all us")}
    shown = ", ".join(f"{name} {value:.2f}" for name, value in ratios.items())
    return {"rounds": rows, "ratios": ratios, "tables": {f"work of a query: {shown} times one collection's": rows}}


def _work(docs: Any, queries: Any, limit: int, width: int, pids: list[int]) -> Found:
    """Of a query."""
    params = vecdb.SearchParams(nprobe=width)
    explained = docs.search(queries, limit, params=params, explain=True).explain
    before, own, began = [cpu_s(pid) for pid in pids], time.process_time(), time.perf_counter()
    turns = 0
    while time.perf_counter() - began < 2.0 or not turns:  # clocks of other processes have ticks of 10 ms
        docs.search(queries, limit, params=params)
        turns += 1
    own = time.process_time() - own
    served_s = sum(cpu_s(pid) for pid in pids) - sum(before)
    each = 1e6 / len(queries) / turns
    parts = list(explained["shards"].values())
    return {
        "read": sum(part.get("reranked", 0) for part in parts) / len(queries),
        "lists us": 1e3 * sum(part.get(name, 0.0) for part in parts for name in _KERNELS) / len(queries),
        "servers us": served_s * each,
        "client us": own * each,
        "all us": (served_s + own) * each,
    }


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def ids_in_common(first: Any, second: Any) -> float:
    """The share of ids of two answers that are in both, on average of the queries."""
    return float(np.mean([len(np.intersect1d(a, b)) / max(1, len(a)) for a, b in zip(first, second, strict=True)]))
