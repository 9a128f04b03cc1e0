"""A writer that can be replaced answers reads only while it knew lately that nobody has: cut off from the bucket it
stops, before any revoke of the one that took over has returned. Clock and cuts are made here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.replication.copies import WAIT_S, log_of, sequence_of
from vecdb import limits
from vecdb.embedded.open import open_database, promote
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import following, lease, link, shipping

VECTORS = np.random.default_rng(7).normal(size=(64, 4)).astype(np.float32)
STALENESS_S = 1_000.0  # of the clock below: threads never see it pass by themselves


class Clock:
    """What the lease takes for time. It passes while somebody sleeps, or is told to."""

    def __init__(self) -> None:
        self.now = 5_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Cut:
    """A bucket that can be cut off. behind : called once what was asked is answered, before the answer arrives.
    cuts_answer : the next object is created, and the network is cut before the answer arrives.
    """

    def __init__(self, bucket: Any) -> None:
        self.bucket = bucket
        self.cut = self.cuts_answer = False
        self.behind: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bucket, name)

    def _ask(self, call: Callable[[], Any], *, lost: bool = False) -> Any:
        if self.cut:
            raise vecdb.Unavailable("the network is cut")
        found, behind = call(), self.behind
        if behind is not None:
            self.behind = None
            behind()
        if lost:
            self.cut, self.cuts_answer = True, False
            raise vecdb.Unavailable("the answer was lost")
        return found

    def get(self, key: str) -> bytes | None:
        return self._ask(lambda: self.bucket.get(key))  # type: ignore[no-any-return]

    def create(self, key: str, data: bytes) -> str:
        return self._ask(lambda: self.bucket.create(key, data), lost=self.cuts_answer)  # type: ignore[no-any-return]


class Places:
    """An old writer with a lease, a copy that takes over, and their clock."""

    def __init__(self, folder: Path, url: str, clock: Clock, cuts: list[Cut]) -> None:
        self.folder, self.url, self.clock = folder, url, clock
        self._opened: list[Any] = []
        self.old = self.write("old")
        self.cuts = cuts[:]
        docs = self.old.create_collection("docs", 4, "l2", vecdb.Flat())
        docs.upsert(range(20), VECTORS[:20], [{"n": 0}] * 20, tenants=[["t"]] * 20)
        log_of(self.old).snapshots.wait()
        open_database(folder / "new", follow=url).close()
        self.docs = docs

    def write(self, name: str, **options: Any) -> Any:
        options = {"durability": "remote", "staleness_s": STALENESS_S, "lease": True, "maintenance": False} | options
        self._opened.append(open_database(self.folder / name, log=self.url, **options))
        return self._opened[-1]

    def cut(self, *, cut: bool = True) -> None:
        for one in self.cuts:
            one.cut = cut

    def take_over(self) -> Any:
        promote(self.folder / "new", self.url)
        return self.write("new")

    def look(self, db: Any = None) -> None:
        found = log_of(self.old if db is None else db).lease
        assert found is not None
        found.look()

    def close(self) -> None:
        self.cut(cut=False)
        for one in self._opened:
            one.close()


@pytest.fixture
def places(url_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    clock, cuts = Clock(), []
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    monkeypatch.setattr(limits, "log_poll_s", 0.002)
    monkeypatch.setattr(limits, "log_ahead_s", 0.0)
    monkeypatch.setattr(limits, "log_look_s", 1e6)  # the lease alone looks
    monkeypatch.setattr(shipping, "_RETRY_LAST_S", 0.01)
    monkeypatch.setattr(following, "_RETRY_LAST_S", 0.01)
    monkeypatch.setattr(lease, "now", clock)
    monkeypatch.setattr(shipping, "wait", clock.sleep)
    monkeypatch.setattr(link, "open_bucket", lambda *a, **o: cuts.append(Cut(open_bucket(*a, **o))) or cuts[-1])
    made = Places(tmp_path, url_of("file"), clock, cuts)
    yield made
    made.close()


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except vecdb.Unavailable as error:
        assert "does not answer from the past" in str(error)
        return True
    return False


READS: dict[str, Callable[[Any], Any]] = {
    "search": lambda docs: docs.search(VECTORS[0], 3),
    "search of a tenant": lambda docs: docs.search(VECTORS[0], 3, tenant="t"),
    "batch": lambda docs: docs.search(VECTORS[:5], 3),
    "filter": lambda docs: docs.search(VECTORS[0], 3, filter="n = 0"),
    "mixture": lambda docs: docs.search_mixture(positives=[1], limit=3),
    "stream": lambda docs: list(docs.search_stream(VECTORS[:2], limit=3)),
    "get": lambda docs: docs.get([1, 2]),
    "matching": lambda docs: docs.get(filter="n = 0", limit=2),
    "count": lambda docs: docs.count(),
    "count of a tenant": lambda docs: docs.count(tenant="t"),
    "iter": lambda docs: list(docs.iter(5)),
    "in": lambda docs: 1 in docs,
    "facets": lambda docs: docs.facets("n"),
    "extremes": lambda docs: docs.max("n"),
    "tenants": lambda docs: list(docs.tenants()),
    "stats": lambda docs: docs.stats(),
    "evaluate": lambda docs: docs.evaluate(VECTORS[:3], limit=3),
}


def test_a_writer_that_is_cut_off_reads_no_more_and_goes_on_once_it_knows_again(places: Places) -> None:
    docs, old = places.docs, places.old
    places.cut()
    places.clock.now += STALENESS_S - 1
    assert not any(refused(lambda read=read: read(docs)) for read in READS.values())
    places.look()
    places.clock.now += 1
    assert [name for name, read in READS.items() if not refused(lambda read=read: read(docs))] == []
    assert refused(old.collections) and refused(lambda: old["docs"])
    facts = old.stats()["log"]
    assert not facts["answers"] and not facts["replaced"] and "the network is cut" in facts["trouble"]
    assert facts["lease"] == {"staleness_s": STALENESS_S, "confirmed_s": STALENESS_S}
    with pytest.raises(vecdb.Unavailable, match="may or may not be in the log"):  # of the store, not of the lease
        docs.upsert([1], VECTORS[:1])
    places.cut(cut=False)
    places.look()
    assert not any(refused(lambda read=read: read(docs)) for read in READS.values())
    assert old.stats()["log"]["answers"]


def test_what_changes_the_database_needs_no_lease(places: Places, tmp_path: Path) -> None:
    """The log refuses it itself: a build of hours is not lost since the lease was away for a moment."""
    docs = places.docs
    docs.delete(range(5))
    places.clock.now += STALENESS_S
    assert refused(docs.count)
    other = places.old.create_collection("other", 4)
    for call in (docs.optimize, docs.vacuum, lambda: docs.grant([7], "u"), lambda: docs.set_metadata({"a": 1})):
        places.clock.now += STALENESS_S  # a commit of before has renewed it
        assert refused(docs.count)
        call()
    assert not refused(docs.count)
    places.clock.now += STALENESS_S
    places.old.backup(tmp_path / "backup")
    places.old.rename_collection("other", "another")
    assert not refused(other.count)


def test_a_commit_renews_it_from_when_it_was_sent(places: Places) -> None:
    places.clock.now += STALENESS_S - 1
    places.cuts[0].behind = lambda: places.clock.sleep(STALENESS_S - 1)  # its answer takes long
    places.docs.upsert([50], VECTORS[:1])
    assert not refused(places.docs.count)
    places.clock.now += 1
    assert refused(places.docs.count)


@pytest.mark.parametrize("later", [0, 5])
def test_a_revoke_of_the_next_writer_returns_when_the_one_before_has_stopped(later: int, places: Places) -> None:
    """The old one asks, the store tells that nobody took over, and the answer is under way while somebody does."""
    old, at = places.docs, places.clock.now
    found: dict[str, Any] = {}

    def meanwhile() -> None:
        places.cut()
        taken = places.take_over()
        new = taken["docs"]
        found["first"] = [one.fields["n"] for one in new.get(range(20))]
        new.upsert([3], VECTORS[3:4], [{"n": 1}])
        found["own"] = new.get(3).fields["n"], new.search(VECTORS[3], 1).ids.tolist()
        places.clock.now += later
        new.revoke([4], "t")
        places.look(taken)
        found["then"] = new.search(VECTORS[4], 20, tenant="t").ids.tolist()

    assert 4 in old.search(VECTORS[4], 20, tenant="t").ids
    asked = places.cuts[1]
    asked.behind = meanwhile
    places.look()
    assert found["first"] == [0] * 20 and found["own"] == (1, [3])
    assert 4 not in found["then"] and len(found["then"]) == 19
    assert places.clock.now == at + STALENESS_S + later
    assert refused(lambda: old.search(VECTORS[4], 20, tenant="t")) and refused(lambda: old.get(3))


def test_one_that_was_replaced_learns_it_by_its_lease(places: Places) -> None:
    places.take_over()
    assert not refused(places.docs.count)  # it has looked just now
    places.look()
    with pytest.raises(vecdb.Unavailable, match="fenced: another writer has taken over"):
        places.docs.count()
    with pytest.raises(vecdb.Unavailable, match="fenced: another writer has taken over"):
        places.docs.upsert([1], VECTORS[:1])


def test_an_object_of_its_own_that_it_finds_renews_nothing(places: Places) -> None:
    """Its commit is in the log, of which it hears nothing; another takes over behind it."""
    log = log_of(places.old)
    places.cuts[0].cuts_answer = True
    with pytest.raises(vecdb.Unavailable, match="may or may not be in the log"):
        places.docs.upsert([50], VECTORS[:1])
    before = sequence_of(places.old)
    new = places.take_over()
    assert new["docs"].get(50) is not None
    places.clock.now += STALENESS_S
    assert not log._nobody_has_taken_over(places.cuts[1])  # type: ignore[arg-type]
    places.cuts[0].cut = False
    ends = time.monotonic() + WAIT_S
    while sequence_of(places.old) == before:  # asked again, the store tells that it is there
        assert time.monotonic() < ends
        time.sleep(0.001)
    assert refused(places.docs.count)
    places.look()
    assert places.old.stats()["log"]["replaced"]


def test_a_thread_of_its_own_looks_again_and_again(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    places.close()
    monkeypatch.setattr(lease, "now", time.monotonic)
    asked = threading.Semaphore(0)

    class Counted(Cut):
        def get(self, key: str) -> bytes | None:
            asked.release()
            return super().get(key)

    monkeypatch.setattr(link, "open_bucket", lambda *a, **o: Counted(open_bucket(*a, **o)))
    with places.write("old", staleness_s=0.02):
        for _ in range(5):
            assert asked.acquire(timeout=WAIT_S)


def test_who_asks_for_none_has_none(places: Places, tmp_path: Path) -> None:
    with pytest.raises(vecdb.InvalidArgument, match="lease=True is for a database with a log"):
        open_database(tmp_path / "x", lease=True)
    with pytest.raises(vecdb.InvalidArgument, match="lease must be True or False"):
        open_database(tmp_path / "x", log=places.url, lease="yes")  # type: ignore[arg-type]
    with pytest.raises(vecdb.Locked, match="is open in this process already"):
        places.write("old", lease=False)
    places.close()
    for options in ({"lease": False}, {"staleness_s": None}):
        with places.write("old", **options) as db:
            places.clock.now += 2 * STALENESS_S
            assert db["docs"].count() == 20 and db.stats()["log"]["lease"] is None and db.stats()["log"]["answers"]
