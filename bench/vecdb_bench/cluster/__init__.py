"""cluster: backups, copies and their takeover, shards behind one address, jobs over them.

plan.py       what to measure               lineup.py    data, servers, placements
copies.py     backup, beside, open, promote, visible
routing.py    router, lists                 jobs.py      jobs over Ray
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vecdb_bench.cluster import copies, jobs, routing
from vecdb_bench.cluster.lineup import Lineup, Say
from vecdb_bench.cluster.plan import MEASURES, Plan
from vecdb_bench.reporting import machine

__all__ = ["MEASURES", "Plan", "run"]

_MEASURE: dict[str, Callable[[Lineup], dict[str, Any]]] = {
    "backup": copies.backup,
    "beside": copies.beside,
    "open": copies.open_,
    "promote": copies.promote,
    "visible": copies.visible,
    "router": routing.router,
    "lists": routing.lists,
    "jobs": jobs.jobs,
}


def run(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure what the plan names, one measure after the other."""
    plan.check()
    found: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for name in plan.measures:
        say(name)
        with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=plan.path) as home:
            with Lineup(plan, Path(home), say) as lineup:
                found[name] = _MEASURE[name](lineup)
        tables |= found[name].pop("tables")
    return {
        "benchmark": "cluster",
        "plan": asdict(plan),
        "machine": machine.facts(["grpcio", "ray"]),
        **found,
        "tables": tables,
    }
