"""Overload: many times what the server can do, at a fixed rate, for a minute, with health checks beside it.

What is let in should be answered within its deadline, what is not should be told so at once; health answers; memory
stays bounded; and afterwards no thread, descriptor or transaction is left behind. What is asked is small on the wire
and heavy on the server, a scan of all vectors: many large messages at once would wait for their connection instead.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from vecdb.v1 import search_pb2

from ..contestants import messages
from ..process import Module
from . import servers
from .field import Field, Found

_HEALTH_RATE = 20.0
_SETTLE_S = 10.0


def overload(field: Field) -> Found:
    plan, pid = field.plan, field.vecdb.pid
    exact = search_pb2.SearchParams(exact=True)
    heavy = servers.write_requests(
        field.folder / "heavy", servers.search_requests(field.data.queries, plan.limit, params=exact)
    )
    field.connect("heavy", field.vecdb.target, servers.SEARCH, heavy)
    empty = field.folder / "empty"
    messages.write(empty, [b""])
    health = field.add(Module("health", "serving.generator"))
    health.ask(do="connect", name="health", target=field.vecdb.target, method=servers.HEALTH, requests=str(empty))
    capacity = field.load.ask(do="closed", name="heavy", clients=plan.clients[0], seconds=plan.seconds)["per_second"]
    before = state(pid)
    answers: dict[str, Any] = {}

    def ask_health() -> None:
        answers.update(health.ask(do="opened", name="health", rate=_HEALTH_RATE, seconds=plan.overload_seconds))

    beside = threading.Thread(target=ask_health)
    beside.start()
    with Watch(pid) as watch:
        said = field.load.ask(
            do="opened", name="heavy", rate=plan.overload * capacity, seconds=plan.overload_seconds,
            timeout=plan.deadline_s,
        )  # fmt: skip
    beside.join()
    late = said["refused"].get("DEADLINE_EXCEEDED", 0)
    return {
        "capacity": capacity,
        "load": said,
        "health": answers,
        "accepted_in_time": said["n"] / max(1, said["n"] + late),
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
