"""disk: searches of indexes on disk, beside peers, one thread and one call for each query.

    base, queries as .npy -> each engine builds in a process of its own -> a new process opens the index and is swept,
    engines in turns, round by round -> rate at equal recall, latency, memory, bytes on disk, reads

The engines (engines/disk/) run under interpreters of their own: two of the peers share a module name, and none is
needed to install vecdb. The disk's own speed, which the caller measures, is part of the result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.child_process import EngineProcess
from vecdb_bench.reporting import machine, recall_curves
from vecdb_bench.runner import latencies_ms
from vecdb_datasets import Dataset, load, open_vectors
from vecdb_datasets import recall as recall_of

Say = Callable[[str], None]

CODES_ON_DISK = "vecdb-codes-on-disk"  # the same lists, with no codes in memory
SCRIPTS = {
    "vecdb": "disk/vecdb_lists.py",
    CODES_ON_DISK: "disk/vecdb_lists.py",
    "diskannpy-rust": "disk/diskann.py",
    "zvec": "disk/zvec_diskann.py",
    "lancedb-rq": "disk/lancedb_ivf.py",
    "lancedb-hnsw": "disk/lancedb_ivf.py",
}
_PROBES = (32, 64, 96, 128, 192, 256, 320, 384, 512, 768)
SWEEPS = {
    "vecdb": _PROBES,
    CODES_ON_DISK: _PROBES,
    "diskannpy-rust": (10, 15, 20, 30, 40, 50, 70, 100, 150),
    "zvec": (10, 12, 15, 18, 22, 30, 40, 60, 80),
    "lancedb-rq": (15, 25, 35, 50, 65, 80, 110),
    "lancedb-hnsw": (20, 30, 40, 80, 160, 260),
}
TARGETS = (0.90, 0.95, 0.975)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. peers : interpreter by the engine's name.   vecdb : parameters of `vecdb.Spann`."""

    dataset: str
    queries: int = 1_000
    rows: int | None = None
    metric: str | None = None
    limit: int = 10
    rounds: int = 3
    threads: int = 2
    peers: Mapping[str, str] = field(default_factory=dict)
    vecdb: Mapping[str, Any] = field(default_factory=dict)
    sweep: tuple[int, ...] = ()
    folder: str | None = None
    path: str | None = None


def run(plan: Plan, disk: Callable[[Path], dict[str, Any]], say: Say = lambda text: None) -> dict[str, Any]:
    """Measure. disk : measures random reads a second on a file of the folder that it is given."""
    unknown = set(plan.peers) - set(SCRIPTS)
    if unknown:
        raise vecdb.InvalidArgument(f"no engine {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    data = _data(plan)
    truth = data.truth_for(plan.limit)
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=plan.path) as made:
        folder = Path(made)
        np.save(folder / "base.npy", data.base)
        np.save(folder / "queries.npy", data.queries)
        names = ["vecdb", *plan.peers]
        builds = {}
        for name in names:
            say(f"building {name}")
            with _process(name, plan, data.metric, folder) as process:
                builds[name] = process.ask(do="build")
        limits = disk(folder)
        points, memory = _sweeps(names, plan, data, truth, folder, say)
    return _result(plan, data, builds, points, memory, limits)


def _data(plan: Plan) -> Dataset:
    if Path(plan.dataset).is_file() and not plan.dataset.endswith((".hdf5", ".h5")):
        with open_vectors(Path(plan.dataset)) as source:
            n = len(source)
            rows = min(plan.rows or n, n - plan.queries)
            metric = plan.metric or ("l2" if np.dtype(source.dtype).kind in "iu" else "cosine")
            base, queries = np.array(source[0:rows]), np.array(source[n - plan.queries : n])
        return Dataset(Path(plan.dataset).name, base, queries, metric)  # type: ignore[arg-type]
    data = load(plan.dataset, plan.folder)
    base = np.asarray(data.base[: plan.rows])
    if base.dtype == np.float16:
        base = base.astype(np.float32)
    queries = np.asarray(data.queries[: plan.queries], base.dtype)
    kept = data.truth if plan.rows is None or plan.rows >= len(data.base) else None
    if kept is not None:
        kept = type(kept)(kept.ids[: plan.queries], kept.distances[: plan.queries])
    return Dataset(data.name, base, queries, data.metric, kept)


def _process(name: str, plan: Plan, metric: str, folder: Path, *, searches: bool = False) -> EngineProcess:
    spec = {"metric": metric, "limit": plan.limit, "threads": plan.threads, "vecdb": dict(plan.vecdb)}
    if name == CODES_ON_DISK:
        spec["vecdb"] = dict(plan.vecdb) | {"memory_budget_bytes": 0}
    if name == "lancedb-hnsw":
        spec["lancedb"] = {"index": "hnsw"}
    python = None if name == "vecdb" else plan.peers[name]
    return EngineProcess(name, SCRIPTS[name], folder, spec, python, one_thread=searches)


def _sweeps(
    names: list[str], plan: Plan, data: Dataset, truth: Any, folder: Path, say: Say
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every engine's points, each from its best round; and the memory of each engine."""
    points: dict[tuple[str, int], dict[str, Any]] = {}
    memory: dict[str, int] = {}
    processes = {name: _process(name, plan, data.metric, folder, searches=True) for name in names}
    try:
        for process in processes.values():
            process.ask(do="open")
        values = {name: plan.sweep if name.startswith("vecdb") and plan.sweep else SWEEPS[name] for name in names}
        for at in range(plan.rounds):
            for step in range(max(map(len, values.values()))):
                for name in names[at % len(names) :] + names[: at % len(names)]:
                    if step < len(values[name]):
                        _point(processes[name], values[name][step], data, truth, plan, points)
            say(f"round {at + 1} of {plan.rounds}")
        memory = {name: int(process.ask(do="memory")["anonymous_bytes"]) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.close()
    return list(points.values()), memory


def _point(
    process: EngineProcess,
    value: int,
    data: Dataset,
    truth: Any,
    plan: Plan,
    points: dict[tuple[str, int], dict[str, Any]],
) -> None:
    answer = process.ask(do="sweep", value=value)
    marks = latencies_ms(answer["seconds"])
    mean = 1e3 * float(np.mean(answer["seconds"]))
    known = points.setdefault(
        (process.name, value),
        {
            "peer": process.name,
            "value": value,
            "recall": recall_of(answer["rows"], truth.ids, truth.distances, plan.limit),
            "means_ms": [],
        },
    )
    known["means_ms"].append(mean)
    if mean == min(known["means_ms"]):
        known.update(mean_ms=mean, p50_ms=marks["p50"], p99_ms=marks["p99"], p99_by_mean=marks["p99"] / mean)
        known["read_bytes_by_query"] = answer["read_bytes"] / len(data.queries)
        known.update(answer.get("explain", {}))


def _result(
    plan: Plan,
    data: Dataset,
    builds: dict[str, dict[str, Any]],
    points: list[dict[str, Any]],
    memory: dict[str, int],
    limits: dict[str, Any],
) -> dict[str, Any]:
    rates = {
        name: {
            target: recall_curves.rate_at(
                [(p["recall"], 1e3 / p["mean_ms"]) for p in points if p["peer"] == name], target
            )
            for target in TARGETS
        }
        for name in builds
    }
    tables = {"summary": _summary(data, builds, memory, rates), "vecdb": _own_points(points), "the disk": [limits]}
    others = _other_points(points)
    if others:
        tables["peers"] = others
    return {
        "benchmark": "disk",
        "plan": {"dataset": plan.dataset, "rows": len(data.base), "queries": len(data.queries), "limit": plan.limit}
        | {"metric": data.metric, "vecdb": dict(plan.vecdb), "rounds": plan.rounds, "threads": plan.threads},
        "machine": machine.facts(),
        "builds": builds,
        "points": points,
        "memory": memory,
        "disk": limits,
        "rates": rates,
        "tables": tables,
    }


def _summary(
    data: Dataset, builds: dict[str, dict[str, Any]], memory: dict[str, int], rates: dict[str, dict[float, Any]]
) -> list[dict[str, Any]]:
    summary = []
    for name, build in builds.items():
        row: dict[str, Any] = {"peer": name}
        for target in TARGETS:
            rate, own = rates[name][target], rates["vecdb"][target]
            row[f"q/s at {target}"] = rate
            row[f"vecdb by it at {target}"] = own / rate if own and rate else None
        row |= {
            "memory B/row": memory[name] / len(data.base),
            "disk by raw": build["disk_bytes"] / data.base.nbytes,
            "build s": build["seconds"],
            "build peak MiB": build["peak_bytes"] / (1 << 20),
        }
        summary.append(row)
    return summary


def _own_points(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "nprobe": p["value"], "recall": p["recall"], "mean ms": p["mean_ms"], "p99 ms": p["p99_ms"],
            "p99/mean": p["p99_by_mean"], "rows": p["rows_scanned"], "reads": p["reads"], "KB": p["bytes_read"] / 1e3,
            "KB fetched": p["read_bytes_by_query"] / 1e3, "heads ms": p["heads_ms"], "scan ms": p["scan_ms"],
            "read ms": p["read_ms"], "rerank ms": p["rerank_ms"],
        }
        for p in points
        if p["peer"] == "vecdb"
    ]  # fmt: skip


def _other_points(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = {"peer": "peer", "value": "value", "recall": "recall", "mean ms": "mean_ms", "p99/mean": "p99_by_mean"}
    return [{name: p[key] for name, key in columns.items()} for p in points if p["peer"] != "vecdb"]
