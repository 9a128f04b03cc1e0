"""What searching among tenants costs: beside other engines, in memory, over unions, as tenants grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vecdb_bench import recall_curves
from vecdb_bench.tenants.lineup import Contestant, Entrant, Field, Lane, Say, Value, best, point, take_turns, worthwhile
from vecdb_bench.tenants.plan import Plan, alone, entrants, ours

from .workload import Questions, Workload, by_size, by_tenant, every_tenant, grown, recalls, sized, with_unions


def standing(plan: Plan, of: Workload, folder: Path, say: Say) -> Field:
    """The field that `compare` and `memory` share."""
    asked = by_size(of, plan.queries, plan.seed), every_tenant(of, plan.each, plan.seed)
    return Field(of, folder / "search", asked, say)


def compare(plan: Plan, field: Field) -> dict[str, Any]:
    """Every contestant's points, the ratio of the best ones at the recall asked for, recall of each tenant there."""
    of = field.workload
    timed = by_size(of, plan.queries, plan.seed)
    truth = timed.truth(of, plan.limit)
    everybody = entrants(plan, of.metric)
    with ExitStack() as stack:
        if plan.together:
            stack.enter_context(field.together())
        lanes = []
        for entrant in everybody:
            lanes += _entered(plan, entrant, field, [timed], truth, stack)
        field.say(f"{len(timed):,} searches of each of {len(lanes)} points, {plan.step} a turn")
        take_turns(lanes, plan.step)
        points = [point(lane, truth, plan.limit) for lane in lanes]
        winners = {}
        for entrant in everybody:
            won = best((one for one in points if one["contestant"] == entrant.name), plan.target)
            if won is not None:
                winners[entrant.name] = dict(won)
        if "vecdb" in winners:
            field.say("every tenant asks vecdb")
            winners["vecdb"] |= _by_tenant(plan, field, lanes[0].process, winners["vecdb"]["value"])
    mine = winners.get("vecdb")
    for won in winners.values():
        won["mean_by_it"] = mine["mean_ms"] / won["mean_ms"] if mine else None
        won["p99_by_it"] = mine["p99_ms"] / won["p99_ms"] if mine else None
    return {"points": points, "best": winners}


def _by_tenant(plan: Plan, field: Field, process: Contestant, value: Value) -> dict[str, Any]:
    """Recall of the tenants that fare worst, where all are asked equally often; and what vecdb says of its searches."""
    each = every_tenant(field.workload, plan.each, plan.seed)
    lane = Lane(process, each, value)
    take_turns([lane], 1_000)
    shares = by_tenant(recalls(lane.rows, each.truth(field.workload, plan.limit), plan.limit), each)
    return {"recall_by_tenant_p1": float(np.percentile(shares, 1))} | process.ask(do="facts")


def memory(plan: Plan, field: Field) -> dict[str, Any]:
    """Anonymous memory after reopening and once every tenant has searched."""
    of = field.workload
    each = every_tenant(of, plan.each, plan.seed)
    mine, without = ours(plan, of.metric), alone(plan, of.metric)
    first = [one for one in entrants(plan, of.metric) if one.name.startswith("hnswlib")][:1]
    found = {}
    for entrant in (mine, without, *first):
        with ExitStack() as stack:
            process = field.open(entrant, stack)
            opened = process.ask(do="memory")["anonymous_bytes"]
            take_turns([Lane(process, each, entrant.values[0])], 1_000, lead=0)
            found[entrant.name] = {"opened": opened, "searched": process.ask(do="memory")["anonymous_bytes"]}
    more = found[mine.name]["searched"] - found[without.name]["searched"]
    peers = {one.name: found[mine.name]["searched"] / found[one.name]["searched"] for one in first}
    return {
        "bytes": found,
        "bytes_by_pair_above_no_tenants": more / of.pairs,
        "by_no_tenants": found[mine.name]["searched"] / max(1, found[without.name]["searched"]),
        "by": peers,
        "pairs": of.pairs,
    }


def unions(plan: Plan, of: Workload, folder: Path, say: Say) -> dict[str, Any]:
    """A union of roles against one tenant of the very same records."""
    shared, roles, single = with_unions(of, plan.roles, plan.unions, plan.queries, plan.seed)
    field = Field(shared, folder / "unions", (roles, single), say)
    truth = roles.truth(shared, plan.limit)
    mine = ours(plan, of.metric)
    with ExitStack() as stack:
        lanes = _entered(plan, mine, field, [roles, single], truth, stack)
        take_turns(lanes, plan.step)
    points = [point(lane, truth, plan.limit) for lane in lanes]
    pairs = list(zip(points[::2], points[1::2], strict=True))
    return {
        "rows": float(np.mean([len(rows) for rows in shared.members[len(of.names) :]])),
        "points": points,
        "ratios": [{"value": a["value"], "ratio": a["mean_ms"] / b["mean_ms"]} for a, b in pairs],
    }


def growth(plan: Plan, of: Workload, folder: Path, say: Say) -> dict[str, Any]:
    """The same tenants with more records each: latency at equal recall."""
    mine = ours(plan, of.metric)
    timed = by_size(grown(of, plan.growth[0], plan.seed), plan.queries, plan.seed)
    points: list[dict[str, Any]] = []
    with ExitStack() as stack:
        lanes: list[Lane] = []
        truths: list[Any] = []
        for rows in plan.growth:
            larger = grown(of, rows, plan.seed)
            field = Field(larger, folder / f"growth-{rows}", [timed], say)
            truth = timed.truth(larger, plan.limit)
            entered = _entered(plan, replace(mine, name=f"vecdb, {rows:,}"), field, [timed], truth, stack)
            lanes += entered
            truths += [(rows, truth)] * len(entered)
        take_turns(lanes, plan.step)
        for lane, (rows, truth) in zip(lanes, truths, strict=True):
            points.append({"rows": rows} | point(lane, truth, plan.limit))
    latencies = {rows: _latency(points, rows, plan.target) for rows in plan.growth}
    small, large = latencies[plan.growth[0]], latencies[plan.growth[-1]]
    return {
        "points": points,
        "mean_ms_at_recall": latencies,
        "recall": plan.target,
        "ratio": large / small if small and large else None,
    }


def sizes(plan: Plan, of: Workload, folder: Path, say: Say) -> dict[str, Any]:
    """Tenants of many sizes: the way that is chosen for each beside a scan of all its rows, beside the tree, and beside
    a graph of vecdb's own that is walked with a bitmap, as wide as the recall asked for takes.
    """
    shared, asked = sized(of, plan.sizes, plan.queries, plan.seed)
    truths = [questions.truth(shared, plan.limit) for questions in asked]
    field = Field(shared, folder / "sizes", asked, say)
    mine = replace(ours(replace(plan, index="curator", parameter="", sweep=()), of.metric), values=(None,))
    graph = replace(ours(replace(plan, index="hnsw", parameter="", sweep=()), of.metric), name="vecdb, graph")
    ways = {"chosen": {}, "scan": {"scan_max": max(plan.sizes)}, "tree": {"scan_max": 1}}
    lanes: dict[str, list[list[Lane]]] = {}  # of a way, for each size
    with ExitStack() as stack:
        for way, told in ways.items():
            options = {"options": dict(plan.options if plan.index == "curator" else {}) | told}
            process = field.open(replace(mine, name=f"vecdb, {way}", spec=dict(mine.spec) | options), stack)
            lanes[way] = [[Lane(process, questions, None)] for questions in asked]
        process = field.open(graph, stack)
        lanes["graph"] = []
        for questions, truth in zip(asked, truths, strict=True):
            values = worthwhile(process, questions, truth, graph.values[1:], plan.limit, plan.pilot, plan.target)
            lanes["graph"].append([Lane(process, questions, value) for value in values])
        take_turns([lane for sized in lanes.values() for some in sized for lane in some], plan.step)
    points = []
    for at, (questions, truth) in enumerate(zip(asked, truths, strict=True)):
        shown = {way: _fastest(every[at], truth, plan) for way, every in lanes.items()}
        best = min(shown["scan"]["mean_ms"], shown["tree"]["mean_ms"])
        chosen = shown["chosen"]["mean_ms"]
        rows = len(shared.rows_of(questions.tenants[0]))
        ratios = {"chosen_by_best": chosen / best, "chosen_by_graph": chosen / shown["graph"]["mean_ms"]}
        points.append({"rows": rows, "ways": shown, **ratios})
    return {"points": points}


def _fastest(lanes: Sequence[Lane], truth: Any, plan: Plan) -> Mapping[str, Any]:
    """The fastest point that reaches the recall, else the one that comes nearest."""
    points = [point(lane, truth, plan.limit) for lane in lanes]
    return best(points, plan.target) or max(points, key=lambda one: one["recall"])


def _entered(
    plan: Plan, entrant: Entrant, field: Field, asked: Sequence[Questions], truth: Any, stack: ExitStack
) -> list[Lane]:
    """Lanes of the values that matter, in a process that has answered everything once."""
    process = field.open(entrant, stack)
    values = worthwhile(process, asked[0], truth, entrant.values, plan.limit, plan.pilot, plan.target)
    for questions in asked:
        take_turns([Lane(process, questions, values[0])], 1_000)
    return [Lane(process, questions, value) for value in values for questions in asked]


def _latency(points: Sequence[dict[str, Any]], rows: int, recall: float) -> float | None:
    rate = recall_curves.rate_at(
        [(one["recall"], 1e3 / one["mean_ms"]) for one in points if one["rows"] == rows], recall
    )
    return 1e3 / rate if rate else None
