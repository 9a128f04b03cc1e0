"""serving: the gRPC service, server and load on the same cores, beside the embedded call, an echo, and a peer's server.

plan.py       what to measure                          servers.py   vecdb serve, echo, milvus-lite
lineup.py      what stands, and takes turns             echo.py      the ceiling, a process
measures.py   overload.py   what is measured           load_process.py load.py   the load, a process
report.py     tables                                   client_driver.py    a user's program, near or far, a process
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vecdb_bench.serving.lineup import Field, Say

from .. import machine
from . import measures, overload, report
from .plan import MEASURES, PEERS, Plan

__all__ = ["MEASURES", "PEERS", "Plan", "run"]

_TAKE: dict[str, Callable[[Field], Any]] = {
    name: getattr(overload if name == "overload" else measures, name) for name in MEASURES
}
_CORES = 2  # of server and load together


def run(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure what the plan names, one measure after the other."""
    plan.check()
    allowed = os.sched_getaffinity(0)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=plan.path) as home:
        os.sched_setaffinity(0, sorted(allowed)[:_CORES])
        try:
            with Field(plan, Path(home), say) as field:
                for name in plan.measures:
                    say(name)
                    found[name] = _TAKE[name](field)
        finally:
            os.sched_setaffinity(0, allowed)
    return {
        "benchmark": "serve",
        "plan": asdict(plan),
        "data": {"name": field.data.name, "rows": len(field.data.base), "dim": field.data.dim, "recall": field.recall},
        "machine": machine.facts(["grpcio", "protobuf", "uvloop"]),
        **found,
        "tables": report.tables(found),
    }
