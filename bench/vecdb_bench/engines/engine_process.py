"""What every contestant does: answer the parent's lines, time single searches, know its own memory. Standard library
and numpy only.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Spec = dict[str, Any]


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next((int(line.split()[1]) << 10 for line in file if line.startswith(field)), 0)


def anonymous_bytes() -> int:
    """Anonymous resident memory, after handing back what allocators hold free."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return _status("RssAnon")


def disk_bytes(folder: Path) -> int:
    """Bytes that the files below `folder` occupy."""
    return sum(os.stat(file).st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def process_io(field: str) -> int:
    """read_bytes: what this process has had fetched from the disk; write_bytes: what it has had sent there."""
    with contextlib.suppress(OSError), open("/proc/self/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))
    return 0


class Contestant:
    """An engine. folder : of its files.   base, queries : arrays.   spec : metric, limit, threads, and options."""

    def __init__(self, folder: Path, base: Any, queries: Any, spec: Spec) -> None:
        self.folder, self.base, self.queries, self.spec = folder, base, queries, spec

    def warm(self) -> None:
        """Load libraries and compile what is compiled, before memory is counted."""

    def build(self) -> Spec | None:
        """Make the index in `folder` from `base`; what else there is to say of that."""
        raise NotImplementedError

    def open(self) -> None:
        """Open the index for reading."""
        raise NotImplementedError

    def prepare(self, value: int) -> None:
        """Take `value` of the engine's search parameter."""
        raise NotImplementedError

    def questions(self, name: str) -> Any:
        """What is searched, in order, where a contest has several sets of questions."""
        return self.queries

    def search(self, query: Any) -> Any:
        """One question, timed."""
        raise NotImplementedError

    def rows(self, result: Any) -> list[int]:
        """Row numbers of a result of `search`, not timed."""
        raise NotImplementedError

    def facts(self) -> Spec:
        """What else there is to say after a sweep."""
        return {}


def turn(
    engine: Contestant, value: Any, name: str = "queries", start: int = 0, stop: int | None = None, lead: int = 20
) -> Spec:
    """Some questions, one call each. lead : as many are asked before, untimed, to warm what another has cooled."""
    engine.prepare(value)
    asked = engine.questions(name)
    stop = len(asked) if stop is None else min(stop, len(asked))
    for i in range(start - lead, start):
        engine.search(asked[i % len(asked)])
    seconds, results = np.empty(stop - start), []
    before = process_io("read_bytes")
    for i in range(start, stop):
        question = asked[i]
        started = time.perf_counter()
        result = engine.search(question)
        seconds[i - start] = time.perf_counter() - started
        results.append(result)
    fetched = process_io("read_bytes") - before
    return {"seconds": seconds.tolist(), "rows": [engine.rows(result) for result in results], "read_bytes": fetched}


class Session:
    """Answers the lines that are for one engine."""

    def __init__(self, engine: Contestant) -> None:
        self._engine = engine
        self._at_rest = 0

    def answer(self, asked: Spec) -> Spec:
        engine = self._engine
        if asked["do"] == "build":
            started = time.perf_counter()
            said = engine.build() or {}
            answer = {"seconds": time.perf_counter() - started, "peak_bytes": _status("VmHWM"), **said}
            return answer | {"disk_bytes": disk_bytes(engine.folder)}
        if asked["do"] == "open":
            engine.warm()
            self._at_rest = anonymous_bytes()
            started = time.perf_counter()
            engine.open()
            return {"seconds": time.perf_counter() - started}
        if asked["do"] == "turn":
            return turn(engine, *asked["of"])
        if asked["do"] == "facts":
            return engine.facts()
        if asked["do"] == "sweep":
            return turn(engine, asked["value"]) | engine.facts()
        assert asked["do"] == "memory", asked
        return {"anonymous_bytes": anonymous_bytes() - self._at_rest}


def answer_lines(answer: Callable[[Spec], Spec]) -> None:
    """Each line of standard input, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines that print would disturb the answers
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


def enter(kind: type[Contestant], folder: str, base: str, queries: str, spec: Spec) -> Session:
    return Session(kind(Path(folder), np.load(base, mmap_mode="r"), np.load(queries), spec))


def serve(kind: type[Contestant]) -> None:
    """A process of one contestant. Arguments: folder, base.npy, queries.npy, spec as JSON."""
    folder, base, queries, spec = sys.argv[1:5]
    answer_lines(enter(kind, folder, base, queries, json.loads(spec)).answer)
