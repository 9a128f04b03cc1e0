"""tenants: one collection shared by many tenants, beside an index for each, and beside one graph with a filter.

workload.py   which tenants see which rows, and the queries      plan.py   the plan, and the engines
lineup.py     processes, turns, points                            searches.py  writes.py   the measurements
report.py     tables
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vecdb_bench.reporting import machine
from vecdb_bench.tenants import report, searches, writes
from vecdb_bench.tenants.lineup import Say
from vecdb_bench.tenants.plan import KINDS, MEASURES, PEERS, Plan
from vecdb_bench.tenants.workload import load_workload

__all__ = ["KINDS", "MEASURES", "PEERS", "Plan", "run"]


def run(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure what the plan names, one measure after the other."""
    plan.check()
    workload = load_workload(plan.dataset, plan.folder, plan.rows)
    say(f"{workload.name}: {len(workload.base):,} records, {len(workload.names):,} tenants, {workload.pairs:,} pairs")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=plan.path) as home:
        folder = Path(home)
        lineup = (
            searches.shared_lineup(plan, workload, folder, say) if {"search", "memory"} & set(plan.measures) else None
        )
        for measure in plan.measures:
            say(measure)
            if measure in ("search", "memory"):
                assert lineup is not None
                found[measure] = {"search": searches.compare, "memory": searches.memory}[measure](plan, lineup)
            elif measure == "many":
                found[measure] = writes.many(plan, folder, say)
            else:
                take = {
                    "union": searches.unions, "growth": searches.growth, "sizes": searches.sizes,
                    "writes": writes.writes,
                }[measure]  # fmt: skip
                found[measure] = take(plan, workload, folder, say)
        builds = lineup.builds if lineup else {}
    return {
        "benchmark": "tenants",
        "plan": asdict(plan),
        "data": workload.facts(),
        "machine": machine.facts([name.partition("-")[0].replace("faiss", "faiss-cpu") for name in plan.peers]),
        "builds": builds,
        **found,
        "tables": report.tables(found),
    }
