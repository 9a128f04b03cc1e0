"""Clients of a writer and of its copies that never stop, and what they must not see, whatever fails meanwhile.

Every write has a number, the record CLOCK the newest; the ledger knows when which was acknowledged, by the clock of
this machine, on which all servers run. Revoked records are of the tenant TENANT and have negative ids.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

import vecdb

CLOCK, TENANT = 0, "somebody"
VECTORS = np.random.default_rng(11).normal(size=(64, 8)).astype(np.float32)
CALL_S = 3.0  # that a call may take
PATIENCE_S = 90.0
_PAUSE_S = 0.1  # after each call: the machine has others to run, and a copy that begins reads an object for each write


class Ledger:
    """What was acknowledged, and what was seen that must not be. Any thread."""

    def __init__(self, staleness_s: float) -> None:
        self.staleness_s = staleness_s
        self.faults: list[str] = []
        self.seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._number = 0
        self._acknowledged: list[tuple[float, int]] = []  # when, and which
        self._revoked: list[tuple[float, int]] = []

    def next_number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def acknowledge(self, number: int) -> None:
        with self._lock:
            self._acknowledged.append((time.monotonic(), number))

    def revoke(self, number: int) -> None:
        with self._lock:
            self._revoked.append((time.monotonic(), number))

    def acknowledged(self) -> list[int]:
        with self._lock:
            return [number for _, number in self._acknowledged]

    def check_clock(self, who: str, begun: float, number: int, age_s: float) -> None:
        """A read that began then found this number, which may be so old."""
        with self._lock:
            known = bisect_right(self._acknowledged, (begun - age_s, -1))
            least = max((one for _, one in self._acknowledged[:known][-20:]), default=0)
        self.seen[f"reads of {who}"] += 1
        if number < least:
            self.fault(f"{who} answered {number}, {least} was acknowledged {age_s} s before")

    def check_tenant(self, who: str, begun: float, found: list[int]) -> None:
        with self._lock:
            gone = {number for when, number in self._revoked if when < begun}
        self.seen[f"tenant's reads of {who}"] += 1
        if shown := sorted(gone & set(found)):
            self.fault(f"{who} answered {shown}, revoked before")

    def fault(self, text: str) -> None:
        self.faults.append(f"{time.monotonic():.2f} {text}")


class Caller:
    """A thread that calls a server again and again. url : of the server, which may be away."""

    def __init__(self, ledger: Ledger, who: str, url: str) -> None:
        self.ledger, self.who = ledger, who
        self.done = 0
        self.refused: list[str] = []
        self.longest_s = 0.0
        self._url = url
        self._stop = threading.Event()
        self._db: Any = None
        self._thread = threading.Thread(target=self._run, name=f"{type(self).__name__} {who}", daemon=True)
        self._thread.start()

    def call(self, docs: Any) -> None:
        raise NotImplementedError

    def until(self, count: int, why: str) -> None:
        """Wait for so many more calls that were answered."""
        wanted = self.done + count
        self._wait(lambda: self.done >= wanted, f"{why}: {self.who} did not answer")

    def until_refused(self, words: str, why: str) -> None:
        """Wait for a refusal that says so, of now."""
        before = len(self.refused)
        self._wait(
            lambda: any(words in one for one in self.refused[before:]), f"{why}: {self.who} did not say {words!r}"
        )

    def _wait(self, true: Callable[[], bool], what: str) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not true():
            if time.monotonic() > ends:
                raise AssertionError(f"{what} in {PATIENCE_S} s: {self.refused[-3:]}, {self.ledger.faults}")
            time.sleep(0.01)

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._db is not None:
            self._db.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            try:
                if self._db is None:
                    self._db = vecdb.open(self._url, timeout=CALL_S)
                self.call(self._db.collection("docs"))
                self.done += 1
            except vecdb.VecdbError as error:
                self.refused.append(f"{error}")
            except Exception as error:
                self.ledger.fault(f"{self.who} raised {error!r}")
            self.longest_s = max(self.longest_s, time.monotonic() - begun)
            self._stop.wait(_PAUSE_S)


class Scribe(Caller):
    """Writes a number, and the clock with it."""

    replaced_at = float("inf")

    def call(self, docs: Any) -> None:
        number, begun = self.ledger.next_number(), time.monotonic()
        docs.upsert([number, CLOCK], VECTORS[[number % 64, 0]], [{"n": number}] * 2)
        if begun > self.replaced_at:
            self.ledger.fault(f"{self.who} acknowledged {number}, begun after it was replaced")
        self.ledger.acknowledge(number)


class Revoker(Caller):
    """Gives a record to the tenant, and takes it away."""

    def call(self, docs: Any) -> None:
        number = self.ledger.next_number()
        docs.upsert([-number], VECTORS[:1], tenants=[[TENANT]])
        docs.revoke([-number], TENANT)
        self.ledger.revoke(-number)


class Reader(Caller):
    """Reads the clock, and what the tenant sees. age_s : how old what it reads may be."""

    def __init__(self, ledger: Ledger, who: str, url: str) -> None:
        self.age_s = ledger.staleness_s
        super().__init__(ledger, who, url)

    def call(self, docs: Any) -> None:
        begun = time.monotonic()
        found = docs.get(CLOCK)
        self.ledger.check_clock(self.who, begun, 0 if found is None else found.fields["n"], self.age_s)
        begun = time.monotonic()
        ids = docs.search(VECTORS[0], 200, tenant=TENANT).ids.tolist()
        self.ledger.check_tenant(self.who, begun, ids)


class ReaderOfWriter(Reader):
    """The same of the one that writes, which has all that was acknowledged; from `replaced` on it is one of many."""

    def __init__(self, ledger: Ledger, who: str, url: str) -> None:
        super().__init__(ledger, who, url)
        self.age_s = 0.0

    def replaced(self) -> None:
        self.age_s, self.who = self.ledger.staleness_s, "a writer that was replaced"
