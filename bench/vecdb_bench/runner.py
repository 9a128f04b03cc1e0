"""run: build every peer, then sweep ef, measuring the peers alternately (A B A B ...) within one process.

    for ef in sweep:                  recall of each peer, once
        for mode in batch, single:
            for round in rounds:      each peer once a round; its rate is its best round
                for peer in peers

Measurements right after one another meet the same load of a shared machine, so ratios hold where absolute rates do not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb_bench.peers import Peer, make_peers
from vecdb_bench.reporting import machine, recall_curves
from vecdb_datasets import Dataset, load, recall

Say = Callable[[str], None]
Array = NDArray[Any]
modes = ("batch", "single")
sweep_default = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `rows` and `queries` cut the data set; None takes all of it."""

    dataset: str = "glove-50"
    peers: tuple[str, ...] = ("vecdb", "hnswlib", "faiss")
    m: int = 16
    ef_construction: int = 200
    limit: int = 10
    efs: tuple[int, ...] = sweep_default
    rounds: int = 3
    threads: int = 2
    rows: int | None = None
    queries: int | None = None
    folder: str | None = None
    recall_enough: float = 0.995
    modes: tuple[str, ...] = field(default=modes)


def run(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure; returns the whole result as plain values."""
    peers = make_peers(list(plan.peers), plan.m, plan.ef_construction)
    data = load(plan.dataset, plan.folder)
    data = _cut(data, plan.rows, plan.queries)
    say(f"{data.name}: {len(data.base):,} x {data.dim} {data.base.dtype}, {data.metric}, {len(data.queries):,} queries")
    truth = data.truth_for(plan.limit)
    _warm(data, plan)
    try:
        builds = {peer.name: _build(peer, data, plan.threads, say) for peer in peers}
        points = _sweep(peers, data, truth, plan, say)
        for peer in peers:
            builds[peer.name]["disk_bytes"] = peer.disk_bytes()
    finally:
        for peer in peers:
            peer.close()
    return {
        "benchmark": "run",
        "plan": {name: getattr(plan, name) for name in plan.__slots__},
        "data": data.facts(),
        "machine": machine.facts([peer.package for peer in peers]),
        "builds": builds,
        "points": points,
        "summary": summary(points, builds, plan),
    }


def summary(points: Sequence[dict[str, Any]], builds: dict[str, Any], plan: Plan) -> list[dict[str, Any]]:
    """Rates at the target recalls per peer and mode, and their ratio to the first other peer."""
    rows: list[dict[str, Any]] = []
    for mode in plan.modes:
        rates: dict[str, dict[float, float | None]] = {}
        for name in builds:
            curve = [(p["recall"], p["rate"]) for p in points if p["peer"] == name and p["mode"] == mode]
            rates[name] = {target: recall_curves.rate_at(curve, target) for target in recall_curves.targets}
        for name, found in rates.items():
            row: dict[str, Any] = {"mode": mode, "peer": name}
            for target, rate in found.items():
                ours = rates[next(iter(rates))][target]
                row[f"rate_{target:.2f}"] = rate
                row[f"ratio_{target:.2f}"] = ours / rate if ours and rate else None
            rows.append(row)
    return rows


# -- steps -----------------------------------------------------------------------------------------


def _cut(data: Dataset, rows: int | None, queries: int | None) -> Dataset:
    """The first rows and queries, without the true neighbours, which are others for fewer rows."""
    base = data.base if rows is None else data.base[:rows]
    chosen = data.queries if queries is None else data.queries[:queries]
    if len(base) == len(data.base) and len(chosen) == len(data.queries):
        return data
    return Dataset(f"{data.name}[:{len(base)}]", base, chosen, data.metric)


def _warm(data: Dataset, plan: Plan) -> None:
    """Compile vecdb's kernels, so that neither build time nor memory includes the compiler."""
    if not any(name.startswith("vecdb") for name in plan.peers):
        return
    few = min(5_000, len(data.base))
    for name in plan.peers:
        if name.startswith("vecdb"):
            (peer,) = make_peers([name], plan.m, plan.ef_construction)
            try:
                peer.build(data.base[:few], data.metric, plan.threads)
                peer.set_ef(32)
                peer.batch(data.queries[:8], plan.limit)
                peer.single(data.queries[0], plan.limit)
            finally:
                peer.close()


def _build(peer: Peer, data: Dataset, threads: int, say: Say) -> dict[str, Any]:
    say(f"building {peer.name} on {threads} threads")
    before = machine.memory_bytes()
    started = time.perf_counter()
    stages = peer.build(data.base, data.metric, threads)
    seconds = time.perf_counter() - started
    after = machine.memory_bytes()
    return {
        "seconds": seconds,
        "threads": threads,
        "anonymous_bytes": after["anonymous"] - before["anonymous"],
        "resident_bytes": after["resident"] - before["resident"],
        **stages,
    }


def _sweep(peers: Sequence[Peer], data: Dataset, truth: Any, plan: Plan, say: Say) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    active = list(peers)
    for ef in plan.efs:
        if ef < plan.limit or not active:
            continue
        recalls: dict[str, float] = {}
        for peer in active:
            peer.set_ef(ef)
            found = peer.batch(data.queries, plan.limit)
            recalls[peer.name] = recall(found, truth.ids, truth.distances, plan.limit)
        for mode in plan.modes:
            times = _alternate(active, data.queries, mode, plan)
            for name, seconds in times.items():
                rates = [len(data.queries) / each for each in seconds]
                points.append(
                    {"peer": name, "mode": mode, "ef": ef, "recall": recalls[name], "rate": max(rates), "rates": rates}
                )
        say(f"ef {ef}: " + ", ".join(f"{name} {value:.4f}" for name, value in recalls.items()))
        active = [peer for peer in active if recalls[peer.name] < plan.recall_enough]
    return points


def _alternate(peers: Sequence[Peer], queries: Array, mode: str, plan: Plan) -> dict[str, list[float]]:
    """Seconds of each round for each peer; another peer is first in each round."""
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for round_ in range(max(1, plan.rounds)):
        for at in range(len(peers)):
            peer = peers[(at + round_) % len(peers)]
            started = time.perf_counter()
            if mode == "batch":
                peer.batch(queries, plan.limit)
            else:
                for query in queries:
                    peer.single(query, plan.limit)
            times[peer.name].append(time.perf_counter() - started)
    return times


def latencies_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles of single calls, in milliseconds."""
    values = np.asarray(seconds) * 1e3
    marks = np.percentile(values, [50, 95, 99, 99.9])
    return dict(zip(("p50", "p95", "p99", "p99_9"), (float(mark) for mark in marks), strict=True)) | {
        "n": float(len(values)),
        "max": float(values.max()),
    }
