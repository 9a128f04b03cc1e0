"""Long work in threads of its own: who started it may leave and come back.

    running -> done | failed | stopped        one job of each key at a time; its last one is remembered

Threads: any thread may start, read and stop jobs.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

from vecdb.errors import VecdbError

_KEPT_MAX = 64  # jobs that have ended
_LAST_WAIT_S = 10.0


class Job:
    """Work that runs, and what came of it. `result` is what it returned, `error` why it did not."""

    def __init__(self, key: Hashable, title: str, unit: str, *, stoppable: bool) -> None:
        self.id = secrets.token_urlsafe(9)
        self.key = key
        self.title = title
        self.unit = unit
        self.stoppable = stoppable
        self.state = "running"
        self.done = 0
        self.total: int | None = None
        self.result: Any = None
        self.error: str | None = None
        self.started = time.time()
        self.seconds: float | None = None
        self.thread: threading.Thread | None = None
        self._stop = threading.Event()

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    def stop(self) -> None:
        if self.stoppable:
            self._stop.set()

    def stopped(self) -> bool:
        return self._stop.is_set()

    @property
    def running(self) -> bool:
        return self.state == "running"

    def shown(self) -> dict[str, Any]:
        """For a page that asks how far it is."""
        now = time.time() - self.started if self.seconds is None else self.seconds
        return {
            "id": self.id, "title": self.title, "unit": self.unit, "state": self.state, "done": self.done,
            "total": self.total, "seconds": now, "error": self.error, "stoppable": self.stoppable,
        }  # fmt: skip


Work = Callable[[Job], Any]


class Jobs:
    """The jobs of one console."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[Hashable, Job] = {}

    def start(self, key: Hashable, title: str, work: Work, *, unit: str = "", stoppable: bool = False) -> Job:
        """Begin work(job), or join what runs under this key."""
        with self._lock:
            known = self._jobs.get(key)
            if known is not None and known.running:
                return known
            job = Job(key, title, unit, stoppable=stoppable)
            self._jobs.pop(key, None)
            self._jobs[key] = job
            ended = [one for one, found in self._jobs.items() if not found.running]
            for one in ended[: max(0, len(ended) - _KEPT_MAX)]:
                del self._jobs[one]
        job.thread = threading.Thread(target=_run, args=(job, work), name=f"console: {title[:40]}", daemon=True)
        job.thread.start()
        return job

    def of(self, key: Hashable) -> Job | None:
        with self._lock:
            return self._jobs.get(key)

    def by_id(self, id: str) -> Job | None:
        with self._lock:
            return next((job for job in self._jobs.values() if job.id == id), None)

    def result(self, key: Hashable) -> Any:
        """What the last job of the key found; None where there is none, or it failed."""
        job = self.of(key)
        return None if job is None or job.state != "done" else job.result

    def forget(self, key: Hashable) -> None:
        with self._lock:
            job = self._jobs.get(key)
            if job is not None and not job.running:
                del self._jobs[key]

    def close(self) -> None:
        """Ask all to stop, and wait for them a while."""
        with self._lock:
            running = [job for job in self._jobs.values() if job.running]
        for job in running:
            job.stop()
        for job in running:
            if job.stoppable and job.thread is not None:
                job.thread.join(_LAST_WAIT_S)


def _run(job: Job, work: Work) -> None:
    state = "failed"
    try:
        job.result = work(job)
        state = "done"  # also where it was stopped and found something until then
    except VecdbError as error:
        state = "stopped" if job.stopped() else "failed"
        job.error = None if job.stopped() else f"{error.code}: {error}"
    except Exception as error:
        job.error = f"a defect of vecdb, {type(error).__name__}: {error}"
    finally:
        job.seconds = time.time() - job.started
        job.state = state
