"""filters: search among the records that match, from all of them to one in ten thousand, near and far from the query.

plan.py         what is measured                  conditions.py   shares of the rows, independent, near and far
collections.py  vecdb's collections               cells.py        every condition, limit and kind of index
lineup.py       peers, in turns                   bitmaps.py      filters alone, over many records
report.py       tables                            plot.py         latency over the share that matches
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vecdb_bench.filters import bitmaps, cells, collections, lineup, report
from vecdb_bench.filters.collections import Say
from vecdb_bench.filters.conditions import conditions, load_data
from vecdb_bench.filters.plan import KINDS, MEASURES, PEERS, Plan
from vecdb_bench.reporting import machine

__all__ = ["KINDS", "MEASURES", "PEERS", "Plan", "run"]


def run(plan: Plan, say: Say = lambda text: None) -> dict[str, Any]:
    """Measure what the plan names, one measure after the other."""
    plan.check()
    found: dict[str, Any] = {"load": {"before": os.getloadavg()[0]}}
    with ExitStack() as stack:
        folder = Path(
            plan.kept or stack.enter_context(tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=plan.path))
        )
        if {"cells", "peers"} & set(plan.measures):
            collections.claim(plan, folder)
            data = load_data(plan)
            say(f"{data.name}: {len(data.base):,} x {data.base.shape[1]}, {data.metric}, {len(data.queries)} queries")
            kinds = plan.kinds if "cells" in plan.measures else ("hnsw",)
            if "peers" in plan.measures:
                kinds = tuple(dict.fromkeys((*kinds, "hnsw")))
            opened = stack.enter_context(collections.opened(plan, data, kinds, folder, say))
            found["data"] = {
                "name": data.name, "rows": len(data.base), "dim": data.base.shape[1], "metric": data.metric,
                "dtype": str(data.base.dtype),
            }  # fmt: skip
            if "peers" in plan.measures:
                found["peers"] = lineup.measure(plan, data, opened["hnsw"], folder, say)
            if "cells" in plan.measures:
                some = {kind: docs for kind, docs in opened.items() if kind in plan.kinds}
                found["cells"] = cells.measure(plan, data, some, conditions(data, plan.parts), say)
        if "bitmaps" in plan.measures:
            found["bitmaps"] = bitmaps.measure(plan, say)
    found["load"]["after"] = os.getloadavg()[0]
    return {
        "benchmark": "filters",
        "plan": {name: value for name, value in asdict(plan).items() if name not in ("folder", "kept", "path")},
        "machine": machine.facts(sorted(set(map(PEERS.__getitem__, plan.peers)))),
        **found,
        "tables": report.tables(found, plan.recall),
    }
