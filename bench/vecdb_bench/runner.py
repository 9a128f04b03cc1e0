"""run: build every peer, then sweep ef, measuring the peers alternately (A B A B ...) within one process.

    for ef in sweep:                  recall of each peer, once
        for mode in batch, single:
            for round in rounds:      each peer once a round; its rate is its best round
                for peer in peers

Measurements right after one another meet the same load of a shared machine, so ratios hold where absolute rates do not.
A peer that is missing, cannot hold the vectors or fails is absent with the reason, and the others go on. One that ends
the process is absent when the same run is started again, which goes on where it was (reporting/run_journal.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb_bench.engines.engine_process import CLOCKS, CLOCKS_OF_ALL_THREADS
from vecdb_bench.name_check import refuse_unknown
from vecdb_bench.peers import Peer, make_peers
from vecdb_bench.reporting import machine, recall_curves
from vecdb_bench.reporting.run_journal import RunJournal
from vecdb_datasets import Dataset, load, recall

Say = Callable[[str], None]
Array = NDArray[Any]
modes = ("batch", "single")
sweep_default = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `rows` and `queries` cut the data set; None takes all of it.   clock : "wall", or "cpu", which is
    processor time (of the thread that searches; of all that build), for machines that others use as well.
    """

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
    clock: str = "wall"
    modes: tuple[str, ...] = field(default=modes)


def run(plan: Plan, say: Say = lambda text: None, folder: Path | None = None) -> dict[str, Any]:
    """Measure; returns the whole result as plain values. Peers that are missing, cannot hold the vectors or fail are in
    its `absent`, with why.
    folder : where a run that is killed leaves what it has measured, for the next run of the same plan.
    """
    refuse_unknown([plan.clock], tuple(CLOCKS), "clock")
    peers, missing = make_peers(list(plan.peers), plan.m, plan.ef_construction)
    journal = RunJournal(folder, {name: getattr(plan, name) for name in plan.__slots__})
    journal.absent |= missing
    data = _cut(load(plan.dataset, plan.folder), plan.rows, plan.queries)
    for peer in peers:
        if why := peer.refusal(data.metric, data.dim):
            journal.absent.setdefault(peer.name, why)
    for name, why in journal.absent.items():
        say(f"without {name}: {why}")
        journal.drop(name)
    say(f"{data.name}: {len(data.base):,} x {data.dim} {data.base.dtype}, {data.metric}, {len(data.queries):,} queries")
    truth = data.truth_for(plan.limit)
    active = [peer for peer in peers if peer.name not in journal.absent]
    if not active:
        raise vecdb.Unavailable(f"no peer is left: {journal.absent}")
    _warm(data, plan, active)
    alone = partial(_alone, journal=journal, active=active, say=say)
    begun = list(active)
    try:
        builds = _build_all(active, data, plan, say, alone)
        _sweep(active, data, truth, plan, say, journal)
        _count_bytes(active, builds, alone)
    finally:
        for peer in begun:
            # one that failed may not close either
            with contextlib.suppress(Exception), journal.noting(peer.name, "it was closed"):
                peer.close()
    journal.finish()
    builds = {peer.name: builds[peer.name] for peer in active}
    return {
        "benchmark": "run",
        "plan": {name: getattr(plan, name) for name in plan.__slots__},
        "data": data.facts(),
        "machine": machine.facts([peer.package for peer in peers]),
        "builds": builds,
        "absent": journal.absent,
        "resumed": journal.resumed,
        "points": journal.points,
        "summary": summary(journal.points, builds, plan),
    }


def _alone(peer: Peer, doing: str, work: Callable[[], Any], journal: RunJournal, active: list[Peer], say: Say) -> bool:
    """Do a peer's work. Where it fails the peer is absent, and the others go on."""
    try:
        with journal.within(peer.name, doing):
            work()
    except Exception:  # whatever another library raises
        active.remove(peer)
        journal.drop(peer.name)
        say(f"without {peer.name}: {journal.absent[peer.name]}")
        return False
    return True


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
    """The first rows, and the first queries as float32; true neighbours are others for fewer rows, and left out."""
    base = data.base if rows is None else data.base[:rows]
    chosen = data.queries if queries is None else data.queries[:queries]
    if chosen.dtype == np.float16:  # models give float32, whatever is stored
        chosen = np.asarray(chosen, np.float32)
    if len(base) == len(data.base) and len(chosen) == len(data.queries):
        return replace(data, queries=chosen)
    return Dataset(f"{data.name}[:{len(base)}]", base, chosen, data.metric)


def _warm(data: Dataset, plan: Plan, peers: Sequence[Peer]) -> None:
    """Compile vecdb's kernels, so that neither build time nor memory includes the compiler."""
    few = min(5_000, len(data.base))
    for name in [peer.name for peer in peers]:
        if name.startswith("vecdb"):
            vecdb.warm_up(data.base.shape[1], data.metric, str(data.base.dtype))  # what so few rows do not need
            [peer], _ = make_peers([name], plan.m, plan.ef_construction)
            try:
                peer.build(data.base[:few], data.metric, plan.threads)
                peer.set_ef(32)
                peer.batch(data.queries[:8], plan.limit)
                peer.single(data.queries[0], plan.limit)
            finally:
                peer.close()


def _build_all(
    active: Sequence[Peer], data: Dataset, plan: Plan, say: Say, alone: Callable[..., bool]
) -> dict[str, Any]:
    """Facts of each build by name. active : loses those that fail."""
    builds: dict[str, Any] = {}
    for peer in list(active):

        def build(peer: Peer = peer) -> None:
            builds[peer.name] = _build(peer, data, plan, say)

        if alone(peer, "it was loaded", peer.load):
            alone(peer, "it was built", build)
    return builds


def _count_bytes(active: Sequence[Peer], builds: dict[str, Any], alone: Callable[..., bool]) -> None:
    for peer in list(active):

        def count(peer: Peer = peer) -> None:
            builds[peer.name]["disk_bytes"] = peer.disk_bytes()

        alone(peer, "its bytes on disk were counted", count)


def _build(peer: Peer, data: Dataset, plan: Plan, say: Say) -> dict[str, Any]:
    threads = plan.threads
    say(f"building {peer.name} on {threads} threads")
    before = machine.memory_bytes()
    clock = CLOCKS_OF_ALL_THREADS[plan.clock]
    started = clock()
    stages = peer.build(data.base, data.metric, threads)
    seconds = clock() - started
    after = machine.memory_bytes()
    return {
        "seconds": seconds,
        "threads": threads,
        "anonymous_bytes": after["anonymous"] - before["anonymous"],
        "resident_bytes": after["resident"] - before["resident"],
        **stages,
    }


def _sweep(active: list[Peer], data: Dataset, truth: Any, plan: Plan, say: Say, journal: RunJournal) -> None:
    """Measure at each width those peers that are short of enough recall. active : loses those that fail."""
    done = [peer.name for peer in active]  # of whom more is to be measured
    for ef in plan.efs:
        if ef < plan.limit or not done:
            continue
        known = {p["peer"]: p["recall"] for p in journal.points if p["ef"] == ef}
        now = [peer for peer in active if peer.name in done]
        recalls = dict(known)
        if {peer.name for peer in now} - known.keys():
            for name in [peer.name for peer in now]:
                journal.points = [p for p in journal.points if not (p["peer"] == name and p["ef"] == ef)]
            recalls = _measure_width(now, active, ef, data, truth, plan, say, journal)
        say(f"ef {ef}: " + ", ".join(f"{name} {value:.4f}" for name, value in recalls.items()))
        done = [name for name in done if name in recalls and recalls[name] < plan.recall_enough]


def _measure_width(
    now: Sequence[Peer],
    active: list[Peer],
    ef: int,
    data: Dataset,
    truth: Any,
    plan: Plan,
    say: Say,
    journal: RunJournal,
) -> dict[str, float]:
    """Recalls at one width; its points go into the journal together, so that all of them meet the same load."""
    recalls: dict[str, float] = {}

    def look(peer: Peer) -> None:
        peer.set_ef(ef)
        found = peer.batch(data.queries, plan.limit)
        recalls[peer.name] = recall(found, truth.ids, truth.distances, plan.limit)
        if "single" in plan.modes:
            peer.single(data.queries[0], plan.limit)  # what fails is to fail here, before anybody is timed

    for peer in now:
        _alone(peer, f"it searched with ef {ef}", partial(look, peer), journal, active, say)
    points: list[dict[str, Any]] = []
    alone = partial(_alone, journal=journal, active=active, say=say)
    for mode in plan.modes:
        times = _alternate([peer for peer in now if peer in active], data.queries, mode, plan, alone)
        for name, seconds in times.items():
            if name in journal.absent:
                continue
            rates = [len(data.queries) / each for each in seconds]
            points.append(
                {"peer": name, "mode": mode, "ef": ef, "recall": recalls[name], "rate": max(rates), "rates": rates}
            )
    journal.add([point for point in points if point["peer"] not in journal.absent])
    return {name: value for name, value in recalls.items() if name not in journal.absent}


def _alternate(
    peers: Sequence[Peer], queries: Array, mode: str, plan: Plan, alone: Callable[..., Any] | None = None
) -> dict[str, list[float]]:
    """Seconds of each round for each peer; another peer is first in each round.
    alone(peer, doing, work) : does the work, and says whether it succeeded; who fails has no later rounds.
    """
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for round_ in range(max(1, plan.rounds)):
        for at in range(len(peers)):
            peer = peers[(at + round_) % len(peers)]
            if len(times[peer.name]) < round_:
                continue

            def measure(peer: Peer = peer) -> None:
                times[peer.name].append(_seconds(peer, queries, mode, plan))

            if alone is None:
                measure()
            else:
                alone(peer, f"it was timed, {mode}", measure)
    return times


def _seconds(peer: Peer, queries: Array, mode: str, plan: Plan) -> float:
    clock = (CLOCKS_OF_ALL_THREADS if peer.own_threads else CLOCKS)[plan.clock]
    started = clock()
    if mode == "batch":
        peer.batch(queries, plan.limit)
    else:
        for query in queries:
            peer.single(query, plan.limit)
    return clock() - started


def latencies_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles of single calls, in milliseconds."""
    values = np.asarray(seconds) * 1e3
    marks = np.percentile(values, [50, 95, 99, 99.9])
    return dict(zip(("p50", "p95", "p99", "p99_9"), (float(mark) for mark in marks), strict=True)) | {
        "n": float(len(values)),
        "max": float(values.max()),
    }
