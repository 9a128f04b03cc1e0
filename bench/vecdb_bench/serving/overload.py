"""Overload: many times what the server can do, at a fixed rate, for a minute, with health checks beside it.

What is let in should be answered within its deadline, what is not should be told so at once; health answers; memory
stays bounded; and afterwards no thread, descriptor or transaction is left behind. What is asked is small on the wire
and heavy on the server, a scan of all vectors, for one query a call and for many: refusing a call costs server and load
the same in both, so that the first shows what it is to refuse, and the second what becomes of those that are let in.
The echo is asked as often as the server, a while before: what it cannot answer nobody could even refuse.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from vecdb.v1 import search_pb2
from vecdb_bench.child_process import Module
from vecdb_bench.engines import length_prefixed
from vecdb_bench.serving.lineup import Field, Found

from . import servers

_HEALTH_RATE = 20.0
_SETTLE_S = 10.0
_ECHO_S = 5.0


def overload(field: Field) -> Found:
    plan = field.plan
    empty = field.folder / "empty"
    length_prefixed.write(empty, [b""])
    health = field.add(Module("health", "serving.load_process"))
    health.ask(do="connect", name="health", target=field.vecdb.target, method=servers.HEALTH, requests=str(empty))
    found: Found = {}
    for queries in (1, min(plan.batch, len(field.data.queries))):
        name = f"{queries} a call"
        field.say(f"{plan.overload:g} times the rate of exact searches, {name}")
        requests = servers.search_requests(
            field.data.queries, plan.limit, queries, search_pb2.SearchParams(exact=True)
        )  # fmt: skip
        field.connect(
            name,
            field.vecdb.target,
            servers.SEARCH,
            servers.write_requests(field.folder / f"exact-{queries}", requests),
        )
        found[name] = _overloaded(field, name, health)
    return found


def _overloaded(field: Field, name: str, health: Module) -> Found:
    plan, pid = field.plan, field.vecdb.pid
    capacity = field.load.ask(do="closed", name=name, clients=plan.clients[0], seconds=plan.seconds)["per_second"]
    asked = {"do": "opened", "rate": plan.overload * capacity, "timeout": plan.deadline_s}
    echoed = field.load.ask(name="echo", seconds=min(_ECHO_S, plan.overload_seconds), pid=field.echo.pid, **asked)
    before = state(pid)
    answers: dict[str, Any] = {}

    def ask_health() -> None:
        answers.update(health.ask(do="opened", name="health", rate=_HEALTH_RATE, seconds=plan.overload_seconds))

    beside = threading.Thread(target=ask_health)
    beside.start()
    with Watch(pid) as watch:
        said = field.load.ask(name=name, seconds=plan.overload_seconds, **asked)
    beside.join()
    return {
        "capacity": capacity,
        "goodput": said["n"] / plan.overload_seconds / capacity,
        "load": said,
        "echo": echoed,
        "health": answers,
        "before": before,
        "most": watch.most,
        "after": settled(pid, before),
    }


def state(pid: int) -> dict[str, int]:
    """Resident bytes, threads and descriptors of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    sizes = {line.split(":")[0]: line.split()[1] for line in status if line.startswith(("VmRSS", "Threads"))}
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return {"resident_bytes": int(sizes["VmRSS"]) << 10, "threads": int(sizes["Threads"]), "descriptors": descriptors}


def settled(pid: int, before: dict[str, int]) -> dict[str, int]:
    """Once threads and descriptors are as few as before, or after a while."""
    ends = time.monotonic() + _SETTLE_S
    while True:
        now = state(pid)
        if time.monotonic() > ends or all(now[name] <= before[name] for name in ("threads", "descriptors")):
            return now
        time.sleep(0.1)


class Watch:
    """The most of each figure of `state` while it lasts."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.most = state(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            now = state(self._pid)
            self.most = {name: max(value, now[name]) for name, value in self.most.items()}
