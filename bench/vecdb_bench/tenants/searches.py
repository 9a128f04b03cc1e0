"""Measurements of searches among tenants: beside other engines, in memory, over unions, as tenants grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vecdb_bench.reporting import recall_curves
from vecdb_bench.tenants.lineup import (
    EngineSpec,
    Lineup,
    OpenEngine,
    Run,
    Say,
    Value,
    best,
    point,
    take_turns,
    values_near,
)
from vecdb_bench.tenants.plan import Plan, all_engines, vecdb_engine, vecdb_without_tenants
from vecdb_bench.tenants.workload import (
    QuerySet,
    Workload,
    by_size,
    by_tenant,
    every_tenant,
    grown,
    recalls,
    sized,
    with_unions,
)


def shared_lineup(plan: Plan, workload: Workload, folder: Path, say: Say) -> Lineup:
    """The lineup that `compare` and `memory` share."""
    query_sets = by_size(workload, plan.queries, plan.seed), every_tenant(workload, plan.each, plan.seed)
    return Lineup(workload, folder / "search", query_sets, say)


def compare(plan: Plan, lineup: Lineup) -> dict[str, Any]:
    """Every engine's points, the best ones at the target recall and their ratios, and the recall of each tenant."""
    workload = lineup.workload
    timed = by_size(workload, plan.queries, plan.seed)
    truth = timed.truth(workload, plan.limit)
    engines = all_engines(plan, workload.metric)
    with ExitStack() as stack:
        if plan.together:
            stack.enter_context(lineup.in_one_process())
        runs = []
        for engine in engines:
            runs += _runs_of(plan, engine, lineup, [timed], truth, stack)
        lineup.say(f"{len(timed):,} searches of each of {len(runs)} points, {plan.step} a turn")
        take_turns(runs, plan.step)
        points = [point(run, truth, plan.limit) for run in runs]
        winners = {}
        for engine in engines:
            won = best((one for one in points if one["contestant"] == engine.name), plan.target)
            if won is not None:
                winners[engine.name] = dict(won)
        if "vecdb" in winners:
            lineup.say("every tenant asks vecdb")
            winners["vecdb"] |= _by_tenant(plan, lineup, runs[0].process, winners["vecdb"]["value"])
    mine = winners.get("vecdb")
    for won in winners.values():
        won["mean_by_it"] = mine["mean_ms"] / won["mean_ms"] if mine else None
        won["p99_by_it"] = mine["p99_ms"] / won["p99_ms"] if mine else None
    return {"points": points, "best": winners}


def _by_tenant(plan: Plan, lineup: Lineup, process: OpenEngine, value: Value) -> dict[str, Any]:
    """The first percentile of recall by tenant, when all search equally often; and what vecdb says of its searches."""
    each = every_tenant(lineup.workload, plan.each, plan.seed)
    run = Run(process, each, value)
    take_turns([run], 1_000)
    shares = by_tenant(recalls(run.rows, each.truth(lineup.workload, plan.limit), plan.limit), each)
    return {"recall_by_tenant_p1": float(np.percentile(shares, 1))} | process.ask(do="facts")


def memory(plan: Plan, lineup: Lineup) -> dict[str, Any]:
    """Anonymous memory after reopening, and after every tenant has searched."""
    workload = lineup.workload
    each = every_tenant(workload, plan.each, plan.seed)
    mine, without = vecdb_engine(plan, workload.metric), vecdb_without_tenants(plan, workload.metric)
    first = [one for one in all_engines(plan, workload.metric) if one.name.startswith("hnswlib")][:1]
    found = {}
    for engine in (mine, without, *first):
        with ExitStack() as stack:
            process = lineup.open(engine, stack)
            opened = process.ask(do="memory")["anonymous_bytes"]
            take_turns([Run(process, each, engine.values[0])], 1_000, lead=0)
            found[engine.name] = {"opened": opened, "searched": process.ask(do="memory")["anonymous_bytes"]}
    more = found[mine.name]["searched"] - found[without.name]["searched"]
    peers = {one.name: found[mine.name]["searched"] / found[one.name]["searched"] for one in first}
    return {
        "bytes": found,
        "bytes_by_pair_above_no_tenants": more / workload.pairs,
        "by_no_tenants": found[mine.name]["searched"] / max(1, found[without.name]["searched"]),
        "by": peers,
        "pairs": workload.pairs,
    }


def unions(plan: Plan, workload: Workload, folder: Path, say: Say) -> dict[str, Any]:
    """A union of roles beside one tenant of the same records."""
    shared, roles, single = with_unions(workload, plan.roles, plan.unions, plan.queries, plan.seed)
    lineup = Lineup(shared, folder / "unions", (roles, single), say)
    truth = roles.truth(shared, plan.limit)
    mine = vecdb_engine(plan, workload.metric)
    with ExitStack() as stack:
        runs = _runs_of(plan, mine, lineup, [roles, single], truth, stack)
        take_turns(runs, plan.step)
    points = [point(run, truth, plan.limit) for run in runs]
    pairs = list(zip(points[::2], points[1::2], strict=True))
    return {
        "rows": float(np.mean([len(rows) for rows in shared.members[len(workload.names) :]])),
        "points": points,
        "ratios": [{"value": a["value"], "ratio": a["mean_ms"] / b["mean_ms"]} for a, b in pairs],
    }


def growth(plan: Plan, workload: Workload, folder: Path, say: Say) -> dict[str, Any]:
    """The same tenants with more records each: latency at equal recall."""
    mine = vecdb_engine(plan, workload.metric)
    timed = by_size(grown(workload, plan.growth[0], plan.seed), plan.queries, plan.seed)
    points: list[dict[str, Any]] = []
    with ExitStack() as stack:
        runs: list[Run] = []
        truths: list[Any] = []
        for rows in plan.growth:
            larger = grown(workload, rows, plan.seed)
            lineup = Lineup(larger, folder / f"growth-{rows}", [timed], say)
            truth = timed.truth(larger, plan.limit)
            added = _runs_of(plan, replace(mine, name=f"vecdb, {rows:,}"), lineup, [timed], truth, stack)
            runs += added
            truths += [(rows, truth)] * len(added)
        take_turns(runs, plan.step)
        for run, (rows, truth) in zip(runs, truths, strict=True):
            points.append({"rows": rows} | point(run, truth, plan.limit))
    latencies = {rows: _latency(points, rows, plan.target) for rows in plan.growth}
    small, large = latencies[plan.growth[0]], latencies[plan.growth[-1]]
    return {
        "points": points,
        "mean_ms_at_recall": latencies,
        "recall": plan.target,
        "ratio": large / small if small and large else None,
    }


def sizes(plan: Plan, workload: Workload, folder: Path, say: Say) -> dict[str, Any]:
    """Tenants of many sizes: the plan that vecdb chooses for each, beside a scan of all its rows, beside the tree, and
    beside a graph of vecdb's own that is searched with a bitmap, as wide as the target recall needs.
    """
    shared, query_sets = sized(workload, plan.sizes, plan.queries, plan.seed)
    truths = [queries.truth(shared, plan.limit) for queries in query_sets]
    lineup = Lineup(shared, folder / "sizes", query_sets, say)
    mine = replace(
        vecdb_engine(replace(plan, index="curator", parameter="", sweep=()), workload.metric), values=(None,)
    )
    graph = replace(
        vecdb_engine(replace(plan, index="hnsw", parameter="", sweep=()), workload.metric), name="vecdb, graph"
    )
    plans = {"chosen": {}, "scan": {"scan_max": max(plan.sizes)}, "tree": {"scan_max": 1}}
    runs: dict[str, list[list[Run]]] = {}  # of each plan, for each size
    with ExitStack() as stack:
        for name, settings in plans.items():
            options = {"options": dict(plan.options if plan.index == "curator" else {}) | settings}
            process = lineup.open(replace(mine, name=f"vecdb, {name}", spec=dict(mine.spec) | options), stack)
            runs[name] = [[Run(process, queries, None)] for queries in query_sets]
        process = lineup.open(graph, stack)
        runs["graph"] = []
        for queries, truth in zip(query_sets, truths, strict=True):
            values = values_near(process, queries, truth, graph.values[1:], plan.limit, plan.pilot, plan.target)
            runs["graph"].append([Run(process, queries, value) for value in values])
        take_turns([run for by_size in runs.values() for some in by_size for run in some], plan.step)
    points = []
    for at, (queries, truth) in enumerate(zip(query_sets, truths, strict=True)):
        shown = {name: _fastest(each[at], truth, plan) for name, each in runs.items()}
        best = min(shown["scan"]["mean_ms"], shown["tree"]["mean_ms"])
        chosen = shown["chosen"]["mean_ms"]
        rows = len(shared.rows_of(queries.tenants[0]))
        ratios = {"chosen_by_best": chosen / best, "chosen_by_graph": chosen / shown["graph"]["mean_ms"]}
        points.append({"rows": rows, "ways": shown, **ratios})
    return {"points": points}


def _fastest(runs: Sequence[Run], truth: Any, plan: Plan) -> Mapping[str, Any]:
    """The fastest point that reaches the target recall; otherwise the one with the highest recall."""
    points = [point(run, truth, plan.limit) for run in runs]
    return best(points, plan.target) or max(points, key=lambda one: one["recall"])


def _runs_of(
    plan: Plan, engine: EngineSpec, lineup: Lineup, query_sets: Sequence[QuerySet], truth: Any, stack: ExitStack
) -> list[Run]:
    """A run for each value that matters and each query set, in a process that has answered every query once."""
    process = lineup.open(engine, stack)
    values = values_near(process, query_sets[0], truth, engine.values, plan.limit, plan.pilot, plan.target)
    for queries in query_sets:
        take_turns([Run(process, queries, values[0])], 1_000)
    return [Run(process, queries, value) for value in values for queries in query_sets]


def _latency(points: Sequence[dict[str, Any]], rows: int, recall: float) -> float | None:
    rate = recall_curves.rate_at(
        [(one["recall"], 1e3 / one["mean_ms"]) for one in points if one["rows"] == rows], recall
    )
    return 1e3 / rate if rate else None
