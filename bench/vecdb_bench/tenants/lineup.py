"""Field: the contestants on one workload. Each builds once, opens in a process of its own (or all in one), and they
search in turns.

    for slice of the questions:  for lane (contestant, value):  the slice, one call a question

A turn is short, so that whatever the machine does meanwhile meets all lanes alike; who is first changes from slice to
slice; a few untimed questions before each turn warm what others have cooled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vecdb_bench.child_process import Process, Seat, Together

from ..runner import latencies_ms
from .workload import Questions, Workload, recalls

Say = Callable[[str], None]
Contestant = Process | Seat
Value = float | None  # of a search parameter; None: what a search takes that names none


@dataclass(frozen=True, slots=True)
class Entrant:
    """script : of engines/.   spec : what it is told.   values : of its search parameter, rising in recall."""

    name: str
    script: str
    spec: Mapping[str, Any]
    values: tuple[Value, ...]


@dataclass(slots=True)
class Lane:
    """A contestant at one value, asked one set of questions; what it answered."""

    process: Contestant
    questions: Questions
    value: Value
    seconds: list[float] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)

    def turn(self, start: int, stop: int, lead: int) -> None:
        answer = self.process.ask(do="turn", of=[self.value, self.questions.name, start, stop, lead])
        self.seconds += answer["seconds"]
        self.rows += answer["rows"]


class Field:
    """A workload in a folder, and what its contestants built there."""

    def __init__(self, of: Workload, folder: Path, questions: Iterable[Questions], say: Say) -> None:
        self.workload, self.folder, self.say = of, folder, say
        of.save(folder)
        for each in questions:
            each.save(folder)
        self.builds: dict[str, dict[str, Any]] = {}
        self._together: Together | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Meanwhile whatever is opened is opened in one process."""
        with Together(self.folder) as self._together:
            try:
                yield
            finally:
                self._together = None

    def build(self, entrant: Entrant) -> dict[str, Any]:
        if entrant.name not in self.builds:
            self.say(f"building {entrant.name} on {self.workload.name}")
            with self._process(entrant) as process:
                self.builds[entrant.name] = process.ask(do="build")
        return self.builds[entrant.name]

    def open(self, entrant: Entrant, stack: ExitStack) -> Contestant:
        """A contestant that has its index open until `stack` closes, in a process of its own but for `together`."""
        self.build(entrant)
        process: Contestant
        if self._together is not None:
            process = self._together.enter(entrant.name, entrant.script, entrant.spec)
        else:
            process = stack.enter_context(self._process(entrant, one_thread=True))
        process.ask(do="open")
        return process

    def _process(self, entrant: Entrant, one_thread: bool = False) -> Process:
        return Process(entrant.name, entrant.script, self.folder, dict(entrant.spec), one_thread=one_thread)


def take_turns(lanes: Sequence[Lane], step: int, lead: int = 20) -> None:
    """All questions of every lane, `step` at a time."""
    count = max(len(lane.questions) for lane in lanes)
    for at, start in enumerate(range(0, count, step)):
        for lane in (*lanes[at % len(lanes) :], *lanes[: at % len(lanes)]):
            if start < len(lane.questions):
                lane.turn(start, start + step, lead)


def worthwhile(
    process: Contestant, questions: Questions, truth: Any, values: Sequence[Value], limit: int, few: int, target: float
) -> list[Value]:
    """Of rising values those that matter around recall `target`: from a little below it to the first well above it."""
    kept: list[Value] = []
    for at, value in enumerate(values):
        answer = process.ask(do="turn", of=[value, questions.name, 0, few, 0])
        part = type(truth)(truth.ids[: len(answer["rows"])], truth.distances[: len(answer["rows"])])
        recall = float(recalls(answer["rows"], part, limit).mean())
        if recall >= target - 0.06 or value is None or at == len(values) - 1:
            kept.append(value)
        if recall >= target + 0.6 * (1 - target) and value is not None:
            break
    return kept


def point(lane: Lane, truth: Any, limit: int) -> dict[str, Any]:
    """What a lane showed."""
    marks = latencies_ms(lane.seconds)
    mean = 1e3 * float(np.mean(lane.seconds))
    return {
        "contestant": lane.process.name,
        "questions": lane.questions.name,
        "value": lane.value,
        "recall": float(recalls(lane.rows, truth, limit).mean()),
        "mean_ms": mean,
        "p50_ms": marks["p50"],
        "p99_ms": marks["p99"],
        "p99_by_mean": marks["p99"] / mean,
        "searches": len(lane.seconds),
    }


def best(points: Iterable[Mapping[str, Any]], target: float) -> Mapping[str, Any] | None:
    """The fastest of the points that reach recall `target`."""
    return min((one for one in points if one["recall"] >= target), key=lambda one: one["mean_ms"], default=None)
