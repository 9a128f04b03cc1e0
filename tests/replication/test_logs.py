"""The log under partitions, damage, two writers, trimming; and what is refused."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.replication.copies import WAIT_S, assert_same, brought_up, follower_of, log_of, sequence_of
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import entry, epochs, following, link, shipping, snapshot
from vecdb.replication.objects import Bucket

VECTORS = np.random.default_rng(2).normal(size=(64, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    monkeypatch.setattr(limits, "log_poll_s", 0.002)
    monkeypatch.setattr(shipping, "_RETRY_LAST_S", 0.01)
    monkeypatch.setattr(following, "_RETRY_LAST_S", 0.01)
    monkeypatch.setattr(snapshot, "_RETRY_S", 0.01)
    yield


@pytest.fixture
def url(url_of: Callable[[str], str]) -> str:
    return url_of("memory")


class Network:
    """Between this process and the store: `away` names the directories that do not reach it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.away: set[str] = set()
        self.refused = threading.Event()
        network, real = self, open_bucket

        def opened(url: str, **options: Any) -> Bucket:
            bucket, who = real(url, **options), [""]

            class Through:
                def __getattr__(self, name: str) -> Any:
                    found = getattr(bucket, name)
                    if not callable(found):
                        return found

                    def call(*args: Any, **given: Any) -> Any:
                        if who[0] in network.away:
                            network.refused.set()
                            raise vecdb.Unavailable("the store cannot be reached")
                        return found(*args, **given)

                    return call

            made: Any = Through()
            made.__dict__["is_of"] = lambda name: who.__setitem__(0, name)
            return made

        patch.setattr(link, "open_bucket", opened)

    def cut(self, name: str, thing: Any) -> None:
        bucket = getattr(thing, "bucket", None) or thing._bucket
        bucket.is_of(name)
        self.refused.clear()
        self.away.add(name)

    def mend(self, name: str) -> None:
        self.away.discard(name)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


def filled(path: Path, url: str) -> Database:
    writer = open_database(path, log=url, maintenance=False)
    if not writer.collections():
        writer.create_collection("docs", 8, "l2", vecdb.Flat()).upsert(range(30), VECTORS[:30])
    assert log_of(writer).flush(WAIT_S)
    log_of(writer).snapshots.wait()
    return writer


def put(writer: Database, *numbers: int) -> None:
    writer["docs"].upsert(numbers, VECTORS[[number % 64 for number in numbers]])


# -- the store is away -----------------------------------------------------------------------------


def test_commits_wait_while_the_store_is_away_and_go_on_in_order(tmp_path: Path, url: str, network: Network) -> None:
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        network.cut("writer", log_of(writer))
        for number in range(20):
            put(writer, number, number + 40)
        assert network.refused.wait(WAIT_S) and not log_of(writer).flush(0.0)
        assert "cannot be reached" in log_of(writer).facts()["trouble"]
        network.mend("writer")
        brought_up(writer, copy)
        assert_same(writer, copy)
        assert log_of(writer).facts()["epoch"] == 1 and log_of(writer).facts()["trouble"] is None


def test_too_many_commits_that_wait_give_way_to_a_snapshot(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "log_waiting_bytes", 8_000)
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        for _ in range(2):
            before = log_of(writer).facts()["epoch"]
            network.cut("writer", log_of(writer))
            for number in range(60):
                put(writer, number)
            assert log_of(writer)._lost and log_of(writer)._waiting_memory == 0
            put(writer, 1_000)  # nobody holds it: the next one is recorded behind it
            network.mend("writer")
            brought_up(writer, copy)
            put(writer, 1_001)
            brought_up(writer, copy)
            assert_same(writer, copy)
            assert log_of(writer).facts()["epoch"] == before + 1
        copy.close()
        with open_database(tmp_path / "new", follow=url) as new:
            assert_same(writer, new)


@pytest.mark.parametrize("lost", ["begin", "end"])
@pytest.mark.parametrize("answer", [True, False])
def test_a_writer_whose_new_epoch_is_uncertain_goes_on_by_itself(
    lost: str, answer: bool, tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lost : the object that begins the next epoch or the one that ends the old.   answer : it is there, and the answer
    was lost.
    """
    monkeypatch.setattr(limits, "log_waiting_bytes", 8_000)
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        log, missed = log_of(writer), []
        create = log.bucket.create

        def creating(key: str, data: bytes) -> Any:
            number = {"begin": f"{entry.LOG}/{log._end.epoch + 1:08d}", "end": log._end.next_key}[lost]
            if log._lost or missed or not key.startswith(number):
                return create(key, data)
            missed.append(key)
            if answer:
                create(key, data)
            raise vecdb.Unavailable("nobody knows")

        network.cut("writer", log)
        for number in range(60):
            put(writer, number)
        log.bucket.__dict__["create"] = creating
        network.mend("writer")
        brought_up(writer, copy)
        put(writer, 1_001)
        brought_up(writer, copy)
        assert_same(writer, copy)
        facts = log.facts()
        assert missed and facts["writes"] and not facts["replaced"] and facts["trouble"] is None


def test_a_copy_that_is_cut_off_stops_answering_and_goes_on_when_it_is_back(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        docs = copy["docs"]
        assert len(docs.search(VECTORS[0], 3).ids) == 3
        network.cut("copy", follower_of(copy))
        assert network.refused.wait(WAIT_S)
        network.refused.clear()
        assert network.refused.wait(WAIT_S)  # whatever was under way has ended
        put(writer, 50)
        now = following.time.monotonic()
        monkeypatch.setattr(following.time, "monotonic", lambda: now + 1.5)
        for ask in (
            lambda: docs.search(VECTORS[0], 3),
            lambda: docs.search(VECTORS[:2], 3),
            lambda: docs.get([1]),
            lambda: docs.count(),
            lambda: list(docs.iter(5)),
            lambda: docs.count(filter="a == 1"),
            lambda: copy.collections(),
            lambda: docs.facets("a"),
        ):
            with pytest.raises(vecdb.Unavailable, match=r"does not answer from the past.*cannot be reached"):
                ask()
        assert copy.stats()["log"]["confirmed_s"] > 1.0
        monkeypatch.undo()
        network.mend("copy")


def test_a_copy_without_a_bound_answers_from_the_past(tmp_path: Path, url: str, network: Network) -> None:
    with filled(tmp_path / "w", url) as writer:
        with open_database(tmp_path / "c", follow=url, staleness_s=None) as copy:
            network.cut("copy", follower_of(copy))
            assert network.refused.wait(WAIT_S)
            put(writer, 50)
            follower_of(copy)._confirmed_at = -float("inf")
            assert copy["docs"].count() == 30


def test_no_snapshot_goes_beyond_the_log(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database closes while the store takes everything but commits."""
    monkeypatch.setattr(limits, "log_close_s", 0.2)
    with filled(tmp_path / "w", url) as writer:
        bucket, refused = log_of(writer).bucket, threading.Event()
        create = bucket.create

        def without_commits(key: str, data: bytes) -> str:
            if key.startswith(entry.LOG):
                refused.set()
                raise vecdb.Unavailable("not now")
            return create(key, data)

        monkeypatch.setattr(bucket, "create", without_commits)
        monkeypatch.setattr(limits, "snapshot_log_bytes", 0)
        ends = log_of(writer).facts()["sequence"]
        put(writer, 50)
        assert refused.wait(WAIT_S)
        log_of(writer).snapshots._start_if_due()
    assert max(sequence for _, sequence in epochs.snapshots(open_bucket(url))) <= ends
    monkeypatch.undo()
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        brought_up(writer, copy)
        assert_same(writer, copy)


# -- two writers -----------------------------------------------------------------------------------


def test_a_writer_that_was_replaced_is_refused_and_says_so(tmp_path: Path, url: str) -> None:
    filled(tmp_path / "w", url).close()
    shutil.copytree(tmp_path / "w", tmp_path / "twin")
    old = filled(tmp_path / "w", url)
    with filled(tmp_path / "twin", url) as new, open_database(tmp_path / "c", follow=url) as copy:
        put(new, 60)
        put(old, 61)  # acknowledged by its own disk, before it knows
        assert not log_of(old).flush(WAIT_S)
        with pytest.raises(vecdb.Unavailable, match="fenced: another writer has taken over"):
            put(old, 62)
        with pytest.raises(vecdb.Unavailable, match="fenced"):
            old.create_collection("more", 3)
        with pytest.raises(vecdb.Unavailable, match="fenced"):
            old["docs"].count()
        with open_database(tmp_path / "w", read_only=True) as own:
            assert own["docs"].count() == 31 and own["docs"].get(61) is not None
        brought_up(new, copy)
        assert_same(new, copy)
        assert copy["docs"].get(61) is None and copy["docs"].get(60) is not None
        old.close()
        with pytest.raises(vecdb.InvalidArgument, match="another directory has gone on"):
            put(new, 63, 64)
            put(new, 65)
            assert log_of(new).flush(WAIT_S)
            open_database(tmp_path / "w", log=url)


def test_a_log_is_of_one_database(tmp_path: Path, url: str) -> None:
    filled(tmp_path / "w", url).close()
    with pytest.raises(vecdb.InvalidArgument, match="the log of another database"):
        open_database(tmp_path / "other", log=url)
    with open_database(tmp_path / "own") as own:
        own.create_collection("docs", 3)
    with pytest.raises(vecdb.InvalidArgument, match="holds a database of its own"):
        open_database(tmp_path / "own", follow=url)


def test_of_two_that_begin_at_once_one_is_told(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "w", url).close()
    shutil.copytree(tmp_path / "w", tmp_path / "twin")
    real, others = epochs.find_end, []

    def found_by_both(bucket: Bucket) -> Any:
        end = real(bucket)
        if not others:
            others.append(None)
            others[0] = open_database(tmp_path / "twin", log=url)  # in between
        return end

    monkeypatch.setattr(epochs, "find_end", found_by_both)
    with pytest.raises(vecdb.Locked, match="begun to write the log"):
        open_database(tmp_path / "w", log=url)
    put(others[0], 5)
    others[0].close()


# -- what is not there any more --------------------------------------------------------------------


def test_a_log_is_trimmed_behind_its_snapshots_and_a_copy_that_was_away_begins_with_one(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "snapshot_log_bytes", 2_000)
    monkeypatch.setattr(limits, "log_trim_age_s", -10.0)  # the store's clock may count whole seconds
    bucket, keys = open_bucket(url), []
    with filled(tmp_path / "w", url) as writer:
        open_database(tmp_path / "c", follow=url).close()
        for number in range(90):
            put(writer, number)
            if number % 10 == 0:
                assert log_of(writer).flush(WAIT_S)
                log_of(writer).snapshots.wait()
        assert log_of(writer).flush(WAIT_S)
        log_of(writer).snapshots.wait()
        keys = [key for key, _ in bucket.list(entry.LOG)]
        assert entry.split_key(keys[0])[1] > 30 and len(epochs.snapshots(bucket)) <= limits.snapshots_kept + 1
        for where in ("c", "new"):
            with open_database(tmp_path / where, follow=url) as copy:
                brought_up(writer, copy)
                assert_same(writer, copy)
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        assert log_of(writer).facts()["snapshot"] is None  # it goes on: none is needed
        brought_up(writer, copy)
        assert_same(writer, copy)


def test_many_small_objects_make_a_snapshot_due(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "snapshot_log_objects", 20)
    with filled(tmp_path / "w", url) as writer:
        assert log_of(writer).flush(WAIT_S)
        log_of(writer).snapshots.wait()
        before = log_of(writer).snapshots.newest_here
        for number in range(25):
            put(writer, number)
            assert log_of(writer).flush(WAIT_S)
        log_of(writer).snapshots.wait()
        newest = log_of(writer).snapshots.newest_here
        assert before is not None and newest is not None and before < newest


def test_a_copy_notices_while_it_runs_that_the_log_behind_it_is_gone(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "snapshot_log_bytes", 2_000)
    monkeypatch.setattr(limits, "log_trim_age_s", -10.0)
    monkeypatch.setattr(limits, "log_trim_look_s", 0.0)
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        network.cut("copy", follower_of(copy))
        assert network.refused.wait(WAIT_S)
        for number in range(90):
            put(writer, number)
            if number % 10 == 0:
                assert log_of(writer).flush(WAIT_S)
                log_of(writer).snapshots.wait()
        network.mend("copy")
        brought_up(writer, copy)
        assert_same(writer, copy)


def test_a_copy_needs_a_log(tmp_path: Path, url: str) -> None:
    with pytest.raises(vecdb.NotFound, match="holds no log"):
        open_database(tmp_path / "c", follow=url)
    filled(tmp_path / "w", url).close()
    open_database(tmp_path / "c", follow=url).close()  # what was begun goes on


# -- damage ----------------------------------------------------------------------------------------


def test_a_damaged_entry_is_named_and_a_later_snapshot_helps(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = open_bucket(url)
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        brought_up(writer, copy)
        copy.close()
        put(writer, 40)
        assert log_of(writer).flush(WAIT_S)
        key = entry.log_key(1, sequence_of(writer))
        whole = bucket.get(key)
        assert whole is not None
        for damage in (whole[:-1], whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], whole[:10], b"something else"):
            bucket.put(key, damage)
            with open_database(tmp_path / "c", follow=url) as waiting:
                with pytest.raises(vecdb.Unavailable, match="does not answer from the past"):
                    waiting["docs"].count()
                assert key in waiting.stats()["log"]["trouble"]
                assert "damage" in waiting.stats()["log"]["trouble"]
        monkeypatch.setattr(limits, "snapshot_log_bytes", 0)
        put(writer, 41)
        assert log_of(writer).flush(WAIT_S)
        log_of(writer).snapshots.wait()
        with open_database(tmp_path / "c", follow=url) as again:
            brought_up(writer, again)
            assert_same(writer, again)


def test_a_snapshot_in_the_middle_of_an_object_is_gone_on_from(
    tmp_path: Path, url: str, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path / "w", url) as writer, open_database(tmp_path / "c", follow=url) as copy:
        network.cut("copy", follower_of(copy))
        assert network.refused.wait(WAIT_S)
        bucket, refused, mended = log_of(writer).bucket, threading.Event(), threading.Event()
        create, keeper, first = bucket.create, log_of(writer).snapshots, sequence_of(writer) + 1

        def without_commits(key: str, data: bytes) -> str:
            if key.startswith(entry.LOG) and not mended.is_set():
                refused.set()
                raise vecdb.Unavailable("not now")
            return create(key, data)

        monkeypatch.setattr(bucket, "create", without_commits)
        put(writer, 40)
        assert refused.wait(WAIT_S)
        put(writer, 41)
        put(writer, 42)  # which wait, and will share an object with what comes
        moment, seen = keeper._moment, threading.Event()

        def looked(txn: Any) -> Any:
            found = moment(txn)
            seen.set()
            return found

        monkeypatch.setattr(keeper, "_moment", looked)
        monkeypatch.setattr(keeper, "_due", True)
        keeper._start_if_due()
        assert seen.wait(WAIT_S)
        put(writer, 43)
        mended.set()
        assert log_of(writer).flush(WAIT_S)
        keeper.wait()
        assert epochs.snapshots(open_bucket(url))[-1] == (1, first + 2)
        shared = open_bucket(url).get(entry.log_key(1, first + 1))
        assert shared is not None and len(entry.decode(shared, "here").commits) == 3
        open_bucket(url).put(entry.log_key(1, first), b"damage")
        network.mend("copy")
        brought_up(writer, copy)
        assert_same(writer, copy)


def test_a_gap_is_not_passed_over(tmp_path: Path, url: str) -> None:
    bucket = open_bucket(url)
    with filled(tmp_path / "w", url) as writer:
        open_database(tmp_path / "c", follow=url).close()
        for number in (40, 41):
            put(writer, number)
            assert log_of(writer).flush(WAIT_S)
        last = sequence_of(writer)
        later = bucket.get(entry.log_key(1, last))
        assert later is not None
        bucket.put(entry.log_key(1, last - 1), later)
        with open_database(tmp_path / "c", follow=url) as copy:
            assert f"commit {last} comes after {last - 2}" in copy.stats()["log"]["trouble"]


def test_a_writer_that_was_put_back_and_went_on_otherwise_is_no_continuation(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "w", url).close()
    shutil.copytree(tmp_path / "w", tmp_path / "earlier")
    with filled(tmp_path / "w", url) as writer:
        put(writer, 40)
        put(writer, 41)
        with open_database(tmp_path / "c", follow=url) as copy:
            brought_up(writer, copy)
    with open_database(tmp_path / "earlier", maintenance=False) as other:  # the same number of commits, of other rows
        put(other, 50)
        put(other, 51)
    with pytest.raises(vecdb.InvalidArgument, match="have parted"):
        open_database(tmp_path / "earlier", log=url)
    monkeypatch.setattr(epochs, "has_parted", lambda *_: False)  # as where an older version has written
    with filled(tmp_path / "earlier", url) as other:
        with open_database(tmp_path / "c", follow=url) as copy:
            trouble = copy.stats()["log"]["trouble"]
            assert "has other rows there than this copy" in trouble
            with pytest.raises(vecdb.Unavailable, match="other rows"):
                copy["docs"].count()
        with open_database(tmp_path / "new", follow=url) as copy:
            brought_up(other, copy)
            assert_same(other, copy)


# -- what is refused -------------------------------------------------------------------------------


def test_a_copy_is_not_written(tmp_path: Path, url: str) -> None:
    with filled(tmp_path / "w", url):
        with open_database(tmp_path / "c", follow=url) as copy:
            with pytest.raises(vecdb.Unavailable, match="reading only"):
                put(copy, 1)
            with pytest.raises(vecdb.Unavailable):
                copy.create_collection("more", 3)
            with pytest.raises(vecdb.Locked):
                open_database(tmp_path / "c", follow=url)
            with open_database(tmp_path / "c", read_only=True) as reading:
                assert reading["docs"].count() == 30
        with pytest.raises(vecdb.Unavailable, match="is a copy that follows the log"):
            open_database(tmp_path / "c")


def test_a_backup_of_a_copy_is_restored_as_a_database_of_its_own(tmp_path: Path, url: str) -> None:
    with filled(tmp_path / "w", url) as writer:
        with open_database(tmp_path / "c", follow=url, staleness_s=None) as copy:
            brought_up(writer, copy)
            copy.backup(tmp_path / "backup")
        vecdb.restore(tmp_path / "backup", tmp_path / "own")
        with pytest.raises(vecdb.InvalidArgument, match="holds a database of its own"):
            open_database(tmp_path / "own", follow=url)
        with open_database(tmp_path / "own", log=f"{url}/own", maintenance=False) as own:
            assert_same(writer, own)
            put(own, 60)
            log_of(own).snapshots.wait()
            with open_database(tmp_path / "d", follow=f"{url}/own") as other:
                brought_up(own, other)
                assert_same(own, other)
        assert writer["docs"].get(60) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"log": "here"}, "must be the URL of a bucket"),
        ({"follow": 5}, "must be the URL of a bucket"),
        ({"log": "memory://a/b", "follow": "memory://a/b"}, "give one of them"),
        ({"follow": "memory://a/b", "staleness_s": 0}, "positive number"),
        ({"log": "memory://a/b", "read_only": True}, "process that writes"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=words):
        open_database(tmp_path / "w", **options)
    assert not (tmp_path / "w").exists()


def test_a_temporary_database_has_no_log(url: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match="goes when it is closed"):
        open_database(":memory:", log=url)
