"""serving: the gRPC service beside the embedded call, an echo server and a peer's server, all on the same cores.

plan.py       what to measure               servers.py                vecdb serve, echo, milvus-lite
lineup.py     servers and clients           echo.py                   the echo server: the ceiling
measures.py   overload.py   workers.py      load_process.py load.py   the load generator
report.py     tables                        client_driver.py          a user's program, embedded or remote
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vecdb_bench.reporting import machine
from vecdb_bench.serving import measures, overload, report
from vecdb_bench.serving import workers as workers_measure
from vecdb_bench.serving.lineup import Lineup, Say
from vecdb_bench.serving.plan import MEASURES, PEERS, Plan

__all__ = ["MEASURES", "PEERS", "Plan", "run"]

_MEASURE: dict[str, Callable[[Lineup], Any]] = {
    name: getattr({"overload": overload, "workers": workers_measure}.get(name, measures), name) for name in MEASURES
}


def run(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure what the plan names, one measure after the other."""
    plan.check()
    allowed = os.sched_getaffinity(0)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=plan.path) as home:
        os.sched_setaffinity(0, sorted(allowed)[: plan.cores or None])
        try:
            with Lineup(plan, Path(home), say) as lineup:
                for name in plan.measures:
                    say(name)
                    found[name] = _MEASURE[name](lineup)
        finally:
            os.sched_setaffinity(0, allowed)
    return {
        "benchmark": "serve",
        "plan": asdict(plan),
        "data": {
            "name": lineup.data.name,
            "rows": len(lineup.data.base),
            "dim": lineup.data.dim,
            "recall": lineup.recall,
        },
        "machine": machine.facts(["grpcio", "protobuf", "uvloop"]),
        **found,
        "tables": report.tables(found),
    }
