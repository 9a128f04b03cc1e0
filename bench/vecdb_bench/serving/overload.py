"""Overload: many times the rate that the server reaches, for a minute, with health checks beside it.

Calls that are let in should be answered within their deadline, and the others refused at once; health checks should be
answered; memory should stay bounded; and afterwards no thread, descriptor or transaction should be left. The calls are
small messages and much work, a scan of all vectors, with one query a call and with many. Refusing a call costs server
and load the same in both: the first shows the cost of refusing, the second what becomes of calls that are let in.
Before, the echo server gets the same rate: calls that it cannot answer could not be refused either. The calls go over
as many connections as reach every worker of the server, and what the server takes is that of all its processes.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from vecdb.v1 import search_pb2
from vecdb_bench.child_process import ModuleProcess
from vecdb_bench.engines import length_prefixed
from vecdb_bench.serving import servers
from vecdb_bench.serving.lineup import Found, Lineup

_HEALTH_RATE = 20.0
_CONNECTIONS_PER_CORE = 4  # the system spreads them over the workers by chance
_SETTLE_S = 10.0
_ECHO_S = 5.0


def overload(lineup: Lineup) -> Found:
    plan = lineup.plan
    empty = lineup.folder / "empty"
    length_prefixed.write(empty, [b""])
    health = lineup.add(ModuleProcess("health", "serving.load_process"))
    health.ask(do="connect", name="health", target=lineup.vecdb.target, method=servers.HEALTH, requests=str(empty))
    found: Found = {}
    for queries in (1, min(plan.batch, len(lineup.data.queries))):
        name = f"{queries} a call"
        lineup.say(f"{plan.overload:g} times the rate of exact searches, {name}")
        requests = servers.search_requests(
            lineup.data.queries, plan.limit, queries, search_pb2.SearchParams(exact=True)
        )  # fmt: skip
        lineup.connect(
            name,
            lineup.vecdb.target,
            servers.SEARCH,
            servers.write_requests(lineup.folder / f"exact-{queries}", requests),
            connections=_CONNECTIONS_PER_CORE * (plan.cores or os.cpu_count() or 1),
        )
        found[name] = _overloaded(lineup, name, health)
    return found


def _overloaded(lineup: Lineup, name: str, health: ModuleProcess) -> Found:
    plan, pid = lineup.plan, lineup.vecdb.pid
    capacity = lineup.load.ask(do="closed", name=name, clients=plan.clients[0], seconds=plan.seconds)["per_second"]
    arguments = {"do": "opened", "rate": plan.overload * capacity, "timeout": plan.deadline_s}
    echoed = lineup.load.ask(name="echo", seconds=min(_ECHO_S, plan.overload_seconds), pid=lineup.echo.pid, **arguments)
    before = state(pid)
    answers: dict[str, Any] = {}

    def ask_health() -> None:
        answers.update(health.ask(do="opened", name="health", rate=_HEALTH_RATE, seconds=plan.overload_seconds))

    beside = threading.Thread(target=ask_health)
    beside.start()
    with Watch(pid) as watch:
        loaded = lineup.load.ask(name=name, seconds=plan.overload_seconds, **arguments)
    beside.join()
    return {
        "capacity": capacity,
        "goodput": loaded["n"] / plan.overload_seconds / capacity,
        "load": loaded,
        "echo": echoed,
        "health": answers,
        "before": before,
        "most": watch.most,
        "after": state_when_idle(pid, before),
    }


def state(pid: int) -> dict[str, int]:
    """Resident bytes, threads and descriptors of a process and those that it started, added up; pages that they share
    count in each.
    """
    found = {"resident_bytes": 0, "threads": 0, "descriptors": 0}
    for one in (pid, *_children(pid)):
        status = Path(f"/proc/{one}/status").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in status if line.startswith(("VmRSS", "Threads"))}
        found["resident_bytes"] += sizes["VmRSS"] << 10
        found["threads"] += sizes["Threads"]
        found["descriptors"] += len(os.listdir(f"/proc/{one}/fd"))
    return found


def _children(pid: int) -> list[int]:
    """Processes that any thread of a process started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text(encoding="ascii").split()]


def state_when_idle(pid: int, before: dict[str, int]) -> dict[str, int]:
    """The state once threads and descriptors are as few as before, or after ten seconds."""
    ends = time.monotonic() + _SETTLE_S
    while True:
        now = state(pid)
        if time.monotonic() > ends or all(now[name] <= before[name] for name in ("threads", "descriptors")):
            return now
        time.sleep(0.1)


class Watch:
    """A thread that notes the maximum of each figure of `state` within a `with` block."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.most = state(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.2):
            now = state(self._pid)
            self.most = {name: max(value, now[name]) for name, value in self.most.items()}
