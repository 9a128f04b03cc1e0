"""Figures of this moment, for a page that asks again and again: commits, memory by component, and how long a search
takes, which is measured by asking one.

Counters only grow; whoever shows rates compares two answers.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import vecdb
from vecdb.errors import InvalidArgument, NotFound, VecdbError
from vecdb.integrations.console import queries
from vecdb.integrations.console.drawings.curve import sample
from vecdb.integrations.console.view import View

_SHOWN_MAX = 32  # collections
_PROBES = 16  # vectors that searches are measured with
_PROBE_AGE_S = 60.0


class LiveFigures:
    """Figures of one view. Threads: any."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._lock = threading.Lock()
        self._probes: dict[str, tuple[float, Any]] = {}
        self._asked = 0

    def now(self) -> dict[str, Any]:
        """{} where the view is not told."""
        stats = queries.database_stats(self._view, disk=False)
        if not stats:
            return {}
        times = stats.get("commit_times") or {}
        return {
            "at": time.monotonic(),
            "sequence": stats.get("sequence"),
            "requests": stats.get("requests"),
            "commit_bounds_ms": [bound * 1_000 for bound in times.get("bounds_s") or []],
            "commit_counts": times.get("counts") or [],
            "lmdb_bytes": (stats.get("lmdb") or {}).get("used_bytes"),
            "processes": len(stats.get("processes") or []),
            "collections": [self._collection(name) for name in self._view.collections()[:_SHOWN_MAX]],
        }

    def _collection(self, name: str) -> dict[str, Any]:
        try:
            docs = self._view.collection(name)
            stats = docs.stats()
            return {
                "name": name,
                "live": stats.get("live"),
                "queries": stats.get("queries"),
                "tail_rows": stats.get("tail_rows"),
                "index_state": stats.get("index_state"),
                "bytes_ram": stats.get("bytes_ram"),
                "memory": [{"part": part, "bytes": size} for part, size in queries.memory_parts(stats)],
                "search_ms": self._searched(docs),
            }
        except VecdbError as error:
            return {"name": name, "problem": str(error)}

    def _searched(self, docs: vecdb.Collection) -> float | None:
        """Milliseconds of one search for ten, as this console sees it; None where there is nothing to search with."""
        with self._lock:
            known = self._probes.get(docs.name)
            self._asked += 1
            turn = self._asked
        if known is None or time.monotonic() - known[0] > _PROBE_AGE_S:
            try:
                known = (time.monotonic(), sample(docs, _PROBES, walked_max=_PROBES * 4))
            except (NotFound, InvalidArgument):
                return None
            with self._lock:
                self._probes[docs.name] = known
        vectors = known[1]
        started = time.perf_counter()
        docs.search(vectors[turn % len(vectors)], 10, fields=[])
        return (time.perf_counter() - started) * 1_000
