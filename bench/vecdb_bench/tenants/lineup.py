"""Lineup: the engines that are compared on one workload. Each builds its index once and opens it in a process of its
own (or all of them in one process), and they search in turns.

    for slice of the queries:  for run (engine, parameter value):  the slice, one call for each query

A turn is short, so that a disturbance of the machine affects all runs alike. Another run is first in each slice. A few
untimed queries before each turn bring back into the caches what other engines have pushed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vecdb_bench.child_process import EngineProcess, SharedEngine, SharedProcess
from vecdb_bench.runner import latencies_ms
from vecdb_bench.tenants.workload import QuerySet, Workload, recalls

Say = Callable[[str], None]
OpenEngine = EngineProcess | SharedEngine
Value = float | None  # of a search parameter; None: the search names none, and the engine's default holds


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """script : in engines/.   spec : its settings.   values : of its search parameter, by rising recall."""

    name: str
    script: str
    spec: Mapping[str, Any]
    values: tuple[Value, ...]


@dataclass(slots=True)
class Run:
    """One engine at one parameter value on one set of queries, with the seconds and rows of each search so far."""

    process: OpenEngine
    queries: QuerySet
    value: Value
    seconds: list[float] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)

    def turn(self, start: int, stop: int, lead: int) -> None:
        answer = self.process.ask(do="turn", of=[self.value, self.queries.name, start, stop, lead])
        self.seconds += answer["seconds"]
        self.rows += answer["rows"]


class Lineup:
    """A workload in a folder, and what the engines built there."""

    def __init__(self, workload: Workload, folder: Path, query_sets: Iterable[QuerySet], say: Say) -> None:
        self.workload, self.folder, self.say = workload, folder, say
        workload.save(folder)
        for each in query_sets:
            each.save(folder)
        self.builds: dict[str, dict[str, Any]] = {}
        self._shared: SharedProcess | None = None

    @contextmanager
    def in_one_process(self) -> Iterator[None]:
        """Engines that are opened within the block are opened in one process."""
        with SharedProcess(self.folder) as self._shared:
            try:
                yield
            finally:
                self._shared = None

    def build(self, engine: EngineSpec) -> dict[str, Any]:
        if engine.name not in self.builds:
            self.say(f"building {engine.name} on {self.workload.name}")
            with self._process(engine) as process:
                self.builds[engine.name] = process.ask(do="build")
        return self.builds[engine.name]

    def open(self, engine: EngineSpec, stack: ExitStack) -> OpenEngine:
        """The engine with its index open until `stack` closes, in a process of its own unless `in_one_process`."""
        self.build(engine)
        process: OpenEngine
        if self._shared is not None:
            process = self._shared.add(engine.name, engine.script, engine.spec)
        else:
            process = stack.enter_context(self._process(engine, one_thread=True))
        process.ask(do="open")
        return process

    def _process(self, engine: EngineSpec, one_thread: bool = False) -> EngineProcess:
        return EngineProcess(engine.name, engine.script, self.folder, dict(engine.spec), one_thread=one_thread)


def take_turns(runs: Sequence[Run], step: int, lead: int = 20) -> None:
    """All queries of every run, `step` of them in a turn."""
    count = max(len(run.queries) for run in runs)
    for at, start in enumerate(range(0, count, step)):
        for run in (*runs[at % len(runs) :], *runs[: at % len(runs)]):
            if start < len(run.queries):
                run.turn(start, start + step, lead)


def values_near(
    process: OpenEngine, queries: QuerySet, truth: Any, values: Sequence[Value], limit: int, few: int, target: float
) -> list[Value]:
    """The values that matter at recall `target`: from a little below it to the first well above it.

    values : by rising recall.   few : how many queries each is tried with.
    """
    kept: list[Value] = []
    for at, value in enumerate(values):
        answer = process.ask(do="turn", of=[value, queries.name, 0, few, 0])
        part = type(truth)(truth.ids[: len(answer["rows"])], truth.distances[: len(answer["rows"])])
        recall = float(recalls(answer["rows"], part, limit).mean())
        if recall >= target - 0.06 or value is None or at == len(values) - 1:
            kept.append(value)
        if recall >= target + 0.8 * (1 - target) and value is not None:
            break
    return kept


def point(run: Run, truth: Any, limit: int) -> dict[str, Any]:
    """Recall and latencies of a run. The key "contestant" is the engine's name in result files."""
    marks = latencies_ms(run.seconds)
    mean = 1e3 * float(np.mean(run.seconds))
    return {
        "contestant": run.process.name,
        "questions": run.queries.name,
        "value": run.value,
        "recall": float(recalls(run.rows, truth, limit).mean()),
        "mean_ms": mean,
        "p50_ms": marks["p50"],
        "p99_ms": marks["p99"],
        "p99_by_mean": marks["p99"] / mean,
        "searches": len(run.seconds),
    }


def best(points: Iterable[Mapping[str, Any]], target: float) -> Mapping[str, Any] | None:
    """The fastest of the points that reach recall `target`."""
    return min((one for one in points if one["recall"] >= target), key=lambda one: one["mean_ms"], default=None)
