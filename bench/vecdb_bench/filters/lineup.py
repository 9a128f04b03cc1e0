"""Lineup: vecdb's graph and its peers, one keyword, the same queries in turns.

    for condition:   each peer takes the smallest width that reaches the recall, or none
        for round:   each engine all queries, one call each, after a few that are not timed; another is first in each

Peers run in processes of their own (engines/filters/). hnswlib and faiss get bits that are ready; lancedb, zvec and
qdrant-edge evaluate the filter in each search. vecdb takes the smallest width as well, and is timed with filters that
repeat and with new ones; besides, with filters that repeat, as it searches by default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.child_process import EngineProcess
from vecdb_bench.filters.cells import Truth, fresh_filters, timed
from vecdb_bench.filters.conditions import Condition, Data, conditions, filter_of
from vecdb_bench.filters.plan import Plan

Say = Callable[[str], None]
_SCRIPTS: dict[str, tuple[str, dict[str, Any]]] = {
    "hnswlib": ("hnswlib", {}),
    "faiss-hnsw": ("faiss", {}),
    "faiss-flat": ("faiss", {"flat": True}),
    "lancedb": ("lancedb", {}),
    "zvec": ("zvec", {}),
    "qdrant-edge": ("qdrant", {}),
    "qdrant-edge-acorn": ("qdrant", {"acorn": True, "index_of": "qdrant-edge"}),
}
BITS_READY = ("hnswlib", "faiss-hnsw", "faiss-flat")
_BUDGETS = 4  # of turns, that are spent on finding a width
_PILOT = 3  # queries that show how long a search takes
_Failed = (vecdb.VecdbError, OSError, ValueError, KeyError)


def measure(plan: Plan, data: Data, docs: Any, folder: Path, say: Say) -> dict[str, Any]:
    """docs : vecdb's graph.   folder : of the peers' indexes. Returns points, and what failed."""
    asked = conditions(data, plan.peer_parts, ("keyword",))
    _save(data, asked, folder)
    distances, limit = data.distances(), 10
    points: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        engines = _open(plan, data, limit, folder, stack, failed, say)
        for condition in asked:
            truth = Truth(data, distances, condition)
            contest = _Contest(plan, data, docs, condition, truth, limit)
            for name, engine in list(engines.items()):
                try:
                    contest.admit(name, engine)
                except _Failed as error:
                    failed[name] = f"{condition.name}: {error}"
                    del engines[name]
            for name, why in contest.rounds().items():
                failed[name] = f"{condition.name}: {why}"
                engines.pop(name, None)
            points += contest.points()
            say(f"{condition.name}: " + ", ".join(f"{p['engine']} {_shown(p)}" for p in contest.points()))
    return {"limit": limit, "points": points, "failed": failed}


def _shown(point: dict[str, Any]) -> str:
    return "none" if point["us"] is None else f"{point['us']:.0f}"


class _Contest:
    """All engines at one condition."""

    def __init__(self, plan: Plan, data: Data, docs: Any, condition: Condition, truth: Truth, limit: int) -> None:
        self._plan, self._data, self._docs, self._condition = plan, data, docs, condition
        self._truth, self._limit = truth, limit
        self._filters = [filter_of(terms) for terms in condition.terms]
        self._found: dict[str, dict[str, Any]] = {}
        self._engines: dict[str, EngineProcess] = {}
        self._width, recall = self._own_width()
        for name in ("vecdb", "vecdb, new filters"):
            self._found[name] = {"width": self._width, "recall": recall, "seconds": []}
        self._found["vecdb, default"] = {"width": None, "recall": self._own_recall(None), "seconds": []}

    def _recall(self, rows: Sequence[Any]) -> float:
        return float(np.mean([self._truth.recall(at, ids, self._limit) for at, ids in enumerate(rows)]))

    def _own_width(self) -> tuple[int | None, float]:
        """vecdb's smallest width that reaches the recall, with its recall; where none does, that of the default."""
        for width in self._plan.peer_widths:
            recall = self._own_recall(width)
            if recall >= self._plan.recall:
                return width, recall
        return None, self._own_recall(None)

    def _own_recall(self, width: int | None) -> float:
        pairs = zip(self._data.queries, self._filters, strict=True)
        params = params_of(width)
        return self._recall([self._docs.search(q, self._limit, filter=one, params=params).ids for q, one in pairs])

    def admit(self, name: str, engine: EngineProcess) -> None:
        """Find the smallest width that reaches the recall."""
        plan, queries = self._plan, len(self._data.queries)
        widths = plan.peer_widths if name != "faiss-flat" else (1,)
        best = spent = 0.0
        for width in widths:
            pilot = engine.ask(do="turn", of=[width, self._condition.name, 0, min(_PILOT, queries), 0])
            each = float(np.mean(pilot["seconds"]))
            asked = int(np.clip(plan.budget / max(each, 1e-9), min(_PILOT, queries), queries))
            answer = engine.ask(do="turn", of=[width, self._condition.name, 0, asked, 0])
            recall = self._recall(answer["rows"])
            best, spent = max(best, recall), spent + sum(pilot["seconds"]) + sum(answer["seconds"])
            if recall >= plan.recall:
                self._found[name] = {"width": width, "recall": recall, "asked": asked, "seconds": []}
                self._engines[name] = engine
                return
            if spent > _BUDGETS * plan.budget:
                break
        self._found[name] = {"width": None, "recall": best, "seconds": []}

    def rounds(self) -> dict[str, str]:
        """Search in turns. Returns the engines that failed."""
        failed = {}
        turns: dict[str, Callable[[], list[float]]] = {
            "vecdb": lambda: self._own(self._filters, self._width),
            "vecdb, new filters": lambda: self._own(fresh_filters(self._condition), self._width),
            "vecdb, default": lambda: self._own(self._filters, None),
        }
        for name in self._engines:
            turns[name] = lambda name=name: self._ask(name)  # type: ignore[misc]
        for round_ in range(self._plan.rounds):
            names = list(turns)
            for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
                try:
                    self._found[name]["seconds"] += turns[name]()
                except _Failed as error:
                    failed[name] = str(error)
                    del turns[name]
        return failed

    def _ask(self, name: str) -> list[float]:
        found = self._found[name]
        lead = found["asked"] // 2 if found["asked"] == len(self._data.queries) else 1
        of = [found["width"], self._condition.name, 0, found["asked"], lead]
        return list(self._engines[name].ask(do="turn", of=of)["seconds"])

    def _own(self, filters: Sequence[Any], width: int | None) -> list[float]:
        half, queries, params = len(filters) // 2, self._data.queries, params_of(width)
        timed(self._docs, queries[:half], self._limit, self._filters[:half], params)
        return timed(self._docs, queries, self._limit, filters, params, self._plan.clock)

    def points(self) -> list[dict[str, Any]]:
        about = {"correlation": self._condition.correlation, "parts": self._condition.parts}
        about |= {"percent": self._condition.percent}
        return [
            about | {
                "engine": name, "width": found["width"], "recall": found["recall"],
                "us": 1e6 * float(np.median(found["seconds"])) if found["seconds"] else None,
            }
            for name, found in self._found.items()
        ]  # fmt: skip


def params_of(width: int | None) -> vecdb.SearchParams | None:
    """Of vecdb's graph."""
    return None if width is None else vecdb.SearchParams(ef=width)


def _open(
    plan: Plan, data: Data, limit: int, folder: Path, stack: ExitStack, failed: dict[str, str], say: Say
) -> dict[str, EngineProcess]:
    """The peers that could be built and opened."""
    engines = {}
    for name in plan.peers:
        script, options = _SCRIPTS[name]
        spec = {
            "metric": data.metric, "limit": limit, "threads": plan.threads, "m": plan.m,
            "ef_construction": plan.ef_construction, "clock": plan.clock,
        }  # fmt: skip
        of = (name, f"filters/filtered_{script}.py", folder, spec | options)
        try:
            say(f"building {name}")
            with EngineProcess(*of) as process:
                process.ask(do="build")
            engine = stack.enter_context(EngineProcess(*of, one_thread=True))
            engine.ask(do="open")
            engines[name] = engine
        except _Failed as error:
            failed[name] = str(error)
            say(f"{name} failed: {error}")
    return engines


def _save(data: Data, asked: Sequence[Condition], folder: Path) -> None:
    """Write what the engines read (vecdb_bench/engines/filters/filtered.py)."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "base.npy", np.asarray(data.base, np.float32))
    np.save(folder / "queries.npy", np.asarray(data.queries, np.float32))
    terms = {one.name: [terms[0] for terms in one.terms] for one in asked}
    fields = sorted({term.name for some in terms.values() for term in some})
    np.savez(folder / "fields.npz", **{name: data.columns[name].astype(np.int32) for name in fields})  # type: ignore[arg-type]
    stored = {name: {"field": some[0].name, "codes": [term.values[0] for term in some]} for name, some in terms.items()}
    (folder / "conditions.json").write_text(json.dumps(stored), encoding="utf-8")
