"""durability="remote", and a copy that takes over."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.replication.copies import WAIT_S, assert_same, brought_up, log_of, sequence_of
from vecdb import limits
from vecdb.embedded.open import open_database, promote
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import entry, following, link, shipping
from vecdb.replication.log.recording import RecordingTransaction

VECTORS = np.random.default_rng(6).normal(size=(64, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    monkeypatch.setattr(limits, "log_poll_s", 0.002)
    monkeypatch.setattr(limits, "log_ahead_s", 0.0)
    monkeypatch.setattr(shipping, "_RETRY_LAST_S", 0.01)
    monkeypatch.setattr(following, "_RETRY_LAST_S", 0.01)
    yield


@pytest.fixture
def url(url_of: Callable[[str], str]) -> str:
    return url_of("file")


def remote(path: Path, url: str) -> Any:
    db = open_database(path, log=url, durability="remote", maintenance=False)
    if not db.collections():
        db.create_collection("docs", 8, "l2", vecdb.Hnsw()).upsert(range(20), VECTORS[:20])
    log_of(db).snapshots.wait()
    return db


def put(db: Any, number: int) -> None:
    db["docs"].upsert([number], VECTORS[number % 64][None])


# -- remote ----------------------------------------------------------------------------------------


def test_what_is_acknowledged_is_in_the_log(tmp_path: Path, url: str) -> None:
    bucket = open_bucket(url)
    with remote(tmp_path / "w", url) as db:
        assert db.stats()["durability"] == "remote"
        for number in range(20, 30):
            put(db, number)
            assert bucket.get(entry.log_key(1, sequence_of(db))) is not None
        db["docs"].delete(range(5))
        db["docs"].vacuum()
        assert log_of(db).facts()["waiting"] == 0
        with open_database(tmp_path / "c", follow=url) as copy:
            brought_up(db, copy)
            assert_same(db, copy)
    with remote(tmp_path / "w", url) as db:
        put(db, 50)
    with pytest.raises(vecdb.InvalidArgument, match="is for a database with a log"):
        open_database(tmp_path / "other", durability="remote")


def test_a_commit_that_only_the_log_has_is_completed_at_the_next_open(tmp_path: Path, url: str) -> None:
    remote(tmp_path / "w", url).close()
    for first_of_session in (True, False):
        pid = os.fork()
        if pid == 0:
            try:
                db = open_database(tmp_path / "w", log=url, durability="remote", maintenance=False)
                if not first_of_session:
                    put(db, 40)

                def die(self: RecordingTransaction) -> None:
                    self._done(self)
                    os._exit(77)

                RecordingTransaction.commit = die  # type: ignore[method-assign]
                put(db, 41 if first_of_session else 42)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 77
        with open_database(tmp_path / "w", read_only=True) as before:
            assert before["docs"].get(41 if first_of_session else 42) is None
        with remote(tmp_path / "w", url) as db, open_database(tmp_path / "c", follow=url) as copy:
            assert db["docs"].get(41 if first_of_session else 42) is not None and db.check() == []
            put(db, 43)
            brought_up(db, copy)
            assert_same(db, copy)


def test_a_tail_is_not_put_onto_another_state(tmp_path: Path, url: str) -> None:
    remote(tmp_path / "w", url).close()
    shutil.copytree(tmp_path / "w", tmp_path / "earlier")
    with remote(tmp_path / "w", url) as db:
        for number in range(40, 45):
            put(db, number)
    shutil.copy(tmp_path / "w" / "LOG", tmp_path / "earlier" / "LOG")
    shutil.copytree(tmp_path / "earlier", tmp_path / "parted")
    with open_database(tmp_path / "parted", maintenance=False) as db:
        put(db, 50)
    with pytest.raises(vecdb.InvalidArgument, match="have parted"):
        remote(tmp_path / "parted", url)
    with remote(tmp_path / "earlier", url) as db:  # it is behind, and takes what comes
        assert None not in db["docs"].get(list(range(40, 45))) and db.check() == []


class Lost:
    """A bucket that loses requests, or answers to them."""

    def __init__(self, bucket: Any) -> None:
        self.bucket = bucket
        self.before = self.after = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bucket, name)

    def create(self, key: str, data: bytes) -> str:
        if self.before:
            raise vecdb.Unavailable("the request was lost")
        made: str = self.bucket.create(key, data)
        if self.after:
            raise vecdb.Unavailable("the answer was lost")
        return made


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> list[Lost]:
    """The buckets of the logs that are opened."""
    made: list[Lost] = []
    monkeypatch.setattr(link, "open_bucket", lambda *a, **o: made.append(Lost(open_bucket(*a, **o))) or made[-1])
    return made


def put_once_it_goes(db: Any, number: int) -> None:
    ends = time.monotonic() + WAIT_S
    while True:
        try:
            return put(db, number)
        except vecdb.Unavailable:
            assert time.monotonic() < ends


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_write_whose_object_is_uncertain_is_not_acknowledged_and_the_next_open_tells(
    lost: str, tmp_path: Path, url: str, lossy: list[Lost]
) -> None:
    with remote(tmp_path / "w", url) as db:
        setattr(lossy[0], lost, True)
        with pytest.raises(vecdb.Unavailable, match="may or may not be in the log"):
            put(db, 50)
        assert db["docs"].get([50]) == [None]
    with remote(tmp_path / "w", url) as db, open_database(tmp_path / "c", follow=url) as copy:
        assert (db["docs"].get(50) is not None) == (lost == "after")
        put(db, 52)
        brought_up(db, copy)
        assert_same(db, copy)


@pytest.mark.parametrize("lost", ["before", "after"])
def test_a_writer_goes_on_by_itself_once_the_store_is_back(
    lost: str, tmp_path: Path, url: str, lossy: list[Lost]
) -> None:
    with remote(tmp_path / "w", url) as db, open_database(tmp_path / "c", follow=url) as copy:
        setattr(lossy[0], lost, True)
        for _ in range(2):  # made again under its id it is done once
            with pytest.raises(vecdb.Unavailable, match="may or may not be in the log"):
                db["docs"].upsert([50], VECTORS[:1], request_id="first")
        with pytest.raises(vecdb.Unavailable, match="nothing of this was written"):
            put(db, 51)
        assert db["docs"].get([50, 51]) == [None, None] and db.stats()["log"]["trouble"]
        setattr(lossy[0], lost, False)
        put_once_it_goes(db, 52)
        assert [one is not None for one in db["docs"].get([50, 51, 52])] == [True, False, True]
        before = sequence_of(db)
        assert db["docs"].upsert([50], VECTORS[:1], request_id="first") == 1 and sequence_of(db) == before
        assert db.stats()["log"]["trouble"] is None and db.check() == []
        brought_up(db, copy)
        assert_same(db, copy)


def test_who_would_clean_up_after_an_error_waits_until_the_store_tells(
    tmp_path: Path, url: str, lossy: list[Lost]
) -> None:
    with remote(tmp_path / "w", url) as db:
        db["docs"].delete(range(10))
        bucket, tried = lossy[0], threading.Semaphore(0)
        create = bucket.create

        def counted(key: str, data: bytes) -> str:
            tried.release()
            return create(key, data)

        bucket.create = counted  # type: ignore[method-assign]
        bucket.before = True
        vacuum = threading.Thread(target=db["docs"].vacuum)
        vacuum.start()
        for _ in range(5):
            assert tried.acquire(timeout=WAIT_S)
        assert vacuum.is_alive()
        with pytest.raises(vecdb.Unavailable, match="nothing of this was written"):
            put(db, 51)
        bucket.before = False
        vacuum.join(WAIT_S)
        put_once_it_goes(db, 52)
        assert db.check() == [] and len(db["docs"]) == 11 and db["docs"].stats()["rows"] == 11
    with remote(tmp_path / "w", url) as db:
        assert db.check() == [] and len(db["docs"]) == 11


def test_a_lost_answer_is_made_good_by_a_second_look(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, lossy: list[Lost]
) -> None:
    monkeypatch.setattr(limits, "log_ahead_s", WAIT_S)
    with remote(tmp_path / "w", url) as db:
        create, calls = lossy[0].create, []

        def once(key: str, data: bytes) -> str:
            calls.append(key)
            lossy[0].after = len(calls) == 1
            return create(key, data)

        lossy[0].create = once  # type: ignore[method-assign]
        put(db, 50)
        assert len(calls) == 2 and calls[0] == calls[1] and db["docs"].get(50) is not None


# -- a copy takes over -----------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["full", "remote"])
def test_a_copy_takes_over_and_the_old_writer_is_refused(durability: str, tmp_path: Path, url: str) -> None:
    old = open_database(tmp_path / "w", log=url, durability=durability, maintenance=False)
    old.create_collection("docs", 8, "l2", vecdb.Hnsw()).upsert(range(20), VECTORS[:20])
    assert log_of(old).flush(WAIT_S)
    log_of(old).snapshots.wait()
    for name in ("c", "d"):
        open_database(tmp_path / name, follow=url).close()
    put(old, 30)
    assert log_of(old).flush(WAIT_S)
    newest = sequence_of(old)
    assert promote(tmp_path / "c", url) == newest
    with open_database(tmp_path / "c", log=url, durability=durability, maintenance=False) as new:
        assert new["docs"].get(30) is not None
        put(new, 31)
        if durability == "remote":
            with pytest.raises(vecdb.Unavailable, match="fenced: another writer"):
                put(old, 32)
        else:
            put(old, 32)
            assert not log_of(old).flush(WAIT_S)
        with pytest.raises(vecdb.Unavailable, match="fenced: another writer"):
            put(old, 33)
        with open_database(tmp_path / "w", read_only=True) as own:
            assert (own["docs"].get(32) is None) == (durability == "remote")
        with open_database(tmp_path / "d", follow=url) as copy:
            brought_up(new, copy)
            assert_same(new, copy)
            assert copy["docs"].get([31, 32, 33])[1:] == [None, None]
    old.close()
    with pytest.raises(vecdb.InvalidArgument):  # it is no copy any more
        open_database(tmp_path / "c", follow=url)


@pytest.mark.parametrize("durability", ["full", "remote"])
def test_a_writer_that_was_replaced_learns_it_without_a_write_and_is_read_no_more(
    durability: str, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "log_look_s", 0.002)
    remote(tmp_path / "w", url).close()
    open_database(tmp_path / "c", follow=url).close()
    options: Any = {"log": url, "durability": durability, "maintenance": False}
    with open_database(tmp_path / "w", **options) as old:
        docs = old["docs"]
        for number in range(30, 40):  # what it writes itself does not look like another's
            put(old, number)
        promote(tmp_path / "c", url)
        changed = log_of(old)._changed
        with changed:
            assert changed.wait_for(lambda: log_of(old)._replaced, WAIT_S)
        with pytest.raises(vecdb.Unavailable, match="fenced: another writer has taken over"):
            docs.search(VECTORS[0], 3)
        assert old.stats()["log"]["replaced"] and "fenced" in old.stats()["log"]["trouble"]
    with open_database(tmp_path / "w", read_only=True) as own:
        assert own["docs"].get(39) is not None


def test_promoting_twice_or_what_is_no_copy_is_refused(tmp_path: Path, url: str) -> None:
    with remote(tmp_path / "w", url):
        copy = open_database(tmp_path / "c", follow=url)
        with pytest.raises(vecdb.Locked):
            promote(tmp_path / "c", url)
        copy.close()
        with pytest.raises(vecdb.NotFound, match="no copy at"):
            promote(tmp_path / "nothing", url)
        promote(tmp_path / "c", url)
        with pytest.raises(vecdb.InvalidArgument, match="a database of its own"):
            promote(tmp_path / "c", url)


def test_a_promotion_that_dies_is_done_again(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    remote(tmp_path / "w", url).close()
    open_database(tmp_path / "c", follow=url).close()
    shutil.copytree(tmp_path / "c", tmp_path / "d")

    class Died(Exception):
        pass

    def die(self: Any) -> None:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(following.CopyDirectory, "become_own", die)
        with pytest.raises(Died):
            promote(tmp_path / "c", url)
    promote(tmp_path / "c", url)
    with remote(tmp_path / "c", url) as new, open_database(tmp_path / "d", follow=url) as copy:
        put(new, 60)
        brought_up(new, copy)
        assert_same(new, copy)
