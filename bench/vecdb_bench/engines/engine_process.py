"""What every engine does: answer the parent's lines, time single searches, measure its own memory.

Standard library and numpy only, because it runs under every engine's interpreter. Threads: one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Spec = dict[str, Any]
# what seconds are: time that passes, or processor time of the calling thread, which others on the machine change little
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.thread_time}
CLOCKS_OF_ALL_THREADS = CLOCKS | {"cpu": time.process_time}


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next((int(line.split()[1]) << 10 for line in file if line.startswith(field)), 0)


def anonymous_bytes() -> int:
    """Anonymous resident memory, after allocators have returned their free memory."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    return _status("RssAnon")


def disk_bytes(folder: Path) -> int:
    """Bytes that the files below `folder` occupy."""
    return sum(os.stat(file).st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def process_io(field: str) -> int:
    """field : read_bytes or write_bytes, what this process has read from or written to the disk."""
    with contextlib.suppress(OSError), open("/proc/self/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))
    return 0


class Engine:
    """An engine. folder : for its files.   base, queries : arrays.   spec : metric, limit, threads, and options.
    package : whose version a result names, where it runs under an interpreter of its own.   own_threads : whether
    searches are done by other threads than the one that asks.
    """

    package = ""
    own_threads = False

    def __init__(self, folder: Path, base: Any, queries: Any, spec: Spec) -> None:
        self.folder, self.base, self.queries, self.spec = folder, base, queries, spec

    def warm(self) -> None:
        """Load libraries and compile what needs compiling, before memory is counted."""

    def build(self) -> Spec | None:
        """Build the index in `folder` from `base`. Returns further facts for the result."""
        raise NotImplementedError

    def open(self) -> None:
        """Open the index for reading."""
        raise NotImplementedError

    def prepare(self, value: int) -> None:
        """Set the engine's search parameter; not timed."""
        raise NotImplementedError

    def query_set(self, name: str) -> Any:
        """The queries to search for, in order, where there are several sets."""
        return self.queries

    def search(self, query: Any) -> Any:
        """One search, timed."""
        raise NotImplementedError

    def rows(self, result: Any) -> list[int]:
        """Row numbers of a result of `search`; not timed."""
        raise NotImplementedError

    def facts(self) -> Spec:
        """Further facts after a sweep."""
        return {}


def turn(
    engine: Engine, value: Any, name: str = "queries", start: int = 0, stop: int | None = None, lead: int = 20
) -> Spec:
    """Search for some queries, one call each. lead : untimed searches before them, to fill the caches again."""
    engine.prepare(value)
    queries = engine.query_set(name)
    stop = len(queries) if stop is None else min(stop, len(queries))
    clock = (CLOCKS_OF_ALL_THREADS if engine.own_threads else CLOCKS)[engine.spec.get("clock", "wall")]
    for i in range(start - lead, start):
        engine.search(queries[i % len(queries)])
    seconds, results = np.empty(stop - start), []
    before = process_io("read_bytes")
    for i in range(start, stop):
        query = queries[i]
        started = clock()
        result = engine.search(query)
        seconds[i - start] = clock() - started
        results.append(result)
    fetched = process_io("read_bytes") - before
    return {"seconds": seconds.tolist(), "rows": [engine.rows(result) for result in results], "read_bytes": fetched}


class Session:
    """Answers the lines for one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._base_bytes = 0

    def answer(self, line: Spec) -> Spec:
        engine = self._engine
        if line["do"] == "build":
            started = time.perf_counter()
            facts = engine.build() or {}
            answer = {"seconds": time.perf_counter() - started, "peak_bytes": _status("VmHWM"), **facts}
            if engine.package:
                answer["version"] = importlib.metadata.version(engine.package)
            return answer | {"disk_bytes": disk_bytes(engine.folder)}
        if line["do"] == "open":
            engine.warm()
            self._base_bytes = anonymous_bytes()
            started = time.perf_counter()
            engine.open()
            return {"seconds": time.perf_counter() - started}
        if line["do"] == "turn":
            return turn(engine, *line["of"])
        if line["do"] == "facts":
            return engine.facts()
        if line["do"] == "sweep":
            return turn(engine, line["value"]) | engine.facts()
        assert line["do"] == "memory", line
        return {"anonymous_bytes": anonymous_bytes() - self._base_bytes}


def answer_lines(answer: Callable[[Spec], Spec]) -> None:
    """Answer each line of standard input, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an engine prints goes to standard error
    for line in sys.stdin:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


def session(engine: type[Engine], folder: str, base: str, queries: str, spec: Spec) -> Session:
    return Session(engine(Path(folder), np.load(base, mmap_mode="r"), np.load(queries), spec))


def serve(engine: type[Engine]) -> None:
    """The main function of an engine's process. Arguments: folder, base.npy, queries.npy, spec as JSON."""
    folder, base, queries, spec = sys.argv[1:5]
    answer_lines(session(engine, folder, base, queries, json.loads(spec)).answer)
