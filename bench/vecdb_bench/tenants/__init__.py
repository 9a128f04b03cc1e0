"""tenants: one collection shared by many tenants, beside an index for each, and beside one graph with a filter.

workload.py   who sees what, and what is asked          plan.py  the plan, and who is measured
lineup.py      processes, turns, points                  searches.py  writes.py  what is measured
report.py     tables
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vecdb_bench.tenants.lineup import Say
from vecdb_bench.tenants.plan import KINDS, MEASURES, PEERS, Plan

from .. import machine
from . import report, searches, writes
from .workload import load_workload

__all__ = ["KINDS", "MEASURES", "PEERS", "Plan", "run"]


def run(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure what the plan names, one measure after the other."""
    plan.check()
    of = load_workload(plan.dataset, plan.folder, plan.rows)
    say(f"{of.name}: {len(of.base):,} records, {len(of.names):,} tenants, {of.pairs:,} pairs")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=plan.path) as home:
        folder = Path(home)
        field = searches.standing(plan, of, folder, say) if {"search", "memory"} & set(plan.measures) else None
        for measure in plan.measures:
            say(measure)
            if measure in ("search", "memory"):
                assert field is not None
                found[measure] = {"search": searches.compare, "memory": searches.memory}[measure](plan, field)
            elif measure == "many":
                found[measure] = writes.many(plan, folder, say)
            else:
                take = {
                    "union": searches.unions, "growth": searches.growth, "sizes": searches.sizes,
                    "writes": writes.writes,
                }[measure]  # fmt: skip
                found[measure] = take(plan, of, folder, say)
        builds = field.builds if field else {}
    return {
        "benchmark": "tenants",
        "plan": asdict(plan),
        "data": of.facts(),
        "machine": machine.facts([name.partition("-")[0].replace("faiss", "faiss-cpu") for name in plan.peers]),
        "builds": builds,
        **found,
        "tables": report.tables(found),
    }
