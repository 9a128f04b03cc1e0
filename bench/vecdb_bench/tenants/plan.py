"""The plan: what to measure, which engines are compared, with which settings and parameter values."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import vecdb
from vecdb_bench.engines.engine_process import CLOCKS
from vecdb_bench.name_check import refuse_unknown
from vecdb_bench.tenants.lineup import EngineSpec, Value

MEASURES = ("search", "memory", "union", "growth", "sizes", "writes", "many")
KINDS = ("curator", "hnsw", "spann", "flat")
PARAMETERS = {"hnsw": "ef", "spann": "nprobe", "curator": "nprobe", "flat": ""}
SWEEPS: dict[str, tuple[Value, ...]] = {
    "flat": (None,),
    "hnsw": (None, 16, 32, 64, 128, 256),
    "spann": (None, 4, 8, 16, 32, 64, 128, 256),
    "curator": (None, 4, 8, 16, 32, 64, 128, 256),
    "hnswlib": (10, 14, 20, 28, 40, 56, 80, 112, 160, 240, 320),
    "faiss": (20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120),
    "numpy": (None,),
}
PEERS = ("hnswlib-100", "hnswlib-200", "faiss", "numpy")  # the numbers: ef_construction


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. options : of the index.   parameter, sweep : a name in SearchParams and its values; those of the
    index kind if none.   pilot : queries that show which values matter.   each : queries of every tenant.
    together : the engines that are compared search in one process.   growth : numbers of records.   sizes : rows of a
    tenant.   many : tenants of one database.   batches : of each kind of write.
    clock : of searches, "wall", or "cpu", which is processor time.
    """

    dataset: str = "summaries"
    folder: str | None = None
    rows: int | None = None
    index: str = "hnsw"
    options: Mapping[str, Any] = field(default_factory=dict)
    parameter: str = ""
    sweep: tuple[Value, ...] = ()
    peers: tuple[str, ...] = PEERS
    measures: tuple[str, ...] = MEASURES
    queries: int = 3_000
    step: int = 100
    pilot: int = 500
    each: int = 20
    limit: int = 10
    target: float = 0.95
    threads: int = os.cpu_count() or 1
    m: int = 16
    roles: int = 16
    unions: int = 20
    growth: tuple[int, ...] = (80_000, 320_000)
    sizes: tuple[int, ...] = (1_000, 2_000, 4_000, 8_000, 16_000, 24_000, 32_000, 40_000)
    batch_rows: int = 1_000
    batches: int = 20
    degree: int = 13
    many: int = 1_000_000
    seed: int = 1
    path: str | None = None
    together: bool = False
    clock: str = "wall"

    def quick(self) -> Plan:
        """The same plan at small sizes: its results have the right form, but say nothing of speed."""
        return replace(
            self, queries=200, step=50, pilot=100, each=2, unions=4, growth=(1_000, 4_000), sizes=(200, 1_000),
            batch_rows=200, batches=2, many=5_000,
        )  # fmt: skip

    def check(self) -> None:
        """Refuse names that are unknown or not installed, before anything is built."""
        refuse_unknown(self.measures, MEASURES, "measure")
        refuse_unknown(self.peers, PEERS, "peer")
        refuse_unknown([self.clock], tuple(CLOCKS), "clock")
        if self.index not in KINDS or getattr(vecdb, self.index.capitalize(), None) is None:
            raise vecdb.InvalidArgument(f"no index of kind {self.index!r}; there are {', '.join(KINDS)}")
        for module in {name.partition("-")[0] for name in self.peers}:
            if importlib.util.find_spec(module) is None:
                raise vecdb.Unavailable(f"peer {module!r} is not installed: pip install 'vecdb-engine[bench]'")


def vecdb_engine(plan: Plan, metric: str) -> EngineSpec:
    spec = _spec(plan, metric) | {"index": plan.index, "options": dict(plan.options), "shared": True}
    spec["parameter"] = plan.parameter or PARAMETERS[plan.index]
    return EngineSpec("vecdb", "tenants/tenant_vecdb.py", spec, plan.sweep or SWEEPS[plan.index])


def vecdb_without_tenants(plan: Plan, metric: str) -> EngineSpec:
    """The same collection without tenants."""
    engine = vecdb_engine(plan, metric)
    return replace(engine, name="vecdb, no tenants", spec=dict(engine.spec) | {"shared": False})


def all_engines(plan: Plan, metric: str) -> list[EngineSpec]:
    found = [vecdb_engine(plan, metric)]
    for name in plan.peers:
        module, _, ef_construction = name.partition("-")
        spec = _spec(plan, metric) | {"m": plan.m, "ef_construction": int(ef_construction or 200)}
        found.append(EngineSpec(name, f"tenants/tenant_{module}.py", spec, SWEEPS[module]))
    return found


def _spec(plan: Plan, metric: str) -> dict[str, Any]:
    return {"metric": metric, "limit": plan.limit, "threads": plan.threads, "clock": plan.clock}
