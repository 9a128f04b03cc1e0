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


def read_bytes() -> int:
    """Bytes that this process has had fetched from the disk."""
    with contextlib.suppress(OSError), open("/proc/self/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("read_bytes"))
    return 0


class Contestant:
    """An engine. folder : of its files.   base, queries : arrays.   spec : metric, limit, threads, and options."""

    def __init__(self, folder: Path, base: Any, queries: Any, spec: Spec) -> None:
        self.folder, self.base, self.queries, self.spec = folder, base, queries, spec

    def warm(self) -> None:
        """Load libraries and compile what is compiled, before memory is counted."""

    def build(self) -> None:
        """Make the index in `folder` from `base`."""
        raise NotImplementedError

    def open(self) -> None:
        """Open the index for reading."""
        raise NotImplementedError

    def prepare(self, value: int) -> None:
        """Take `value` of the engine's search parameter."""
        raise NotImplementedError

    def search(self, query: Any) -> Any:
        """One query, timed."""
        raise NotImplementedError

    def rows(self, result: Any) -> list[int]:
        """Row numbers of a result of `search`, not timed."""
        raise NotImplementedError

    def facts(self) -> Spec:
        """What else there is to say after a sweep."""
        return {}


def sweep(engine: Contestant, value: int) -> Spec:
    """Every query once, one call each."""
    engine.prepare(value)
    for query in engine.queries[:20]:
        engine.search(query)
    seconds, results = np.empty(len(engine.queries)), []
    before = read_bytes()
    for i, query in enumerate(engine.queries):
        started = time.perf_counter()
        result = engine.search(query)
        seconds[i] = time.perf_counter() - started
        results.append(result)
    fetched = read_bytes() - before
    return {
        "seconds": seconds.tolist(),
        "rows": [engine.rows(result) for result in results],
        "read_bytes": fetched,
        **engine.facts(),
    }


def serve(kind: type[Contestant]) -> None:
    """Answer lines on standard input until it ends. Arguments: folder, base.npy, queries.npy, spec as JSON."""
    folder, base, queries, spec = sys.argv[1:5]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # engines that print would disturb the answers
    engine = kind(Path(folder), np.load(base, mmap_mode="r"), np.load(queries), json.loads(spec))
    at_rest = 0
    for line in sys.stdin:
        asked = json.loads(line)
        answer: Spec = {}
        if asked["do"] == "build":
            started = time.perf_counter()
            engine.build()
            answer = {"seconds": time.perf_counter() - started, "peak_bytes": _status("VmHWM")}
            answer["disk_bytes"] = disk_bytes(Path(folder))
        elif asked["do"] == "open":
            engine.warm()
            at_rest = anonymous_bytes()
            engine.open()
        elif asked["do"] == "sweep":
            answer = sweep(engine, asked["value"])
        elif asked["do"] == "memory":
            answer = {"anonymous_bytes": anonymous_bytes() - at_rest}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
