"""A backup is the state of one commit, restores to the same answers, and one damaged byte in it is an error."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, GRAPH, clustered
from vecdb import limits
from vecdb.embedded.backup import CHECKSUMS
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, Corruption, NotFound


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(limits, "flat_rows_max", 10)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 4, "l2", GRAPH)
        docs.upsert(range(200), clustered(200, 4), [{"n": n} for n in range(200)])
        docs.delete(range(20))
        docs.optimize()
        db.create_collection("empty", 3)
        db.backup(tmp_path / "backup")
    return tmp_path / "backup"


def test_a_backup_restores_to_the_same_answers(copied: Path, tmp_path: Path) -> None:
    vecdb.restore(copied, tmp_path / "restored")
    with open_database(tmp_path / "db", read_only=True) as old, open_database(tmp_path / "restored") as new:
        assert new.check() == [] and new.collections() == ["docs", "empty"]
        for params in (None, EXACT):
            a, b = (one["docs"].search(np.ones((3, 4)), 200, params=params) for one in (old, new))
            assert np.array_equal(a.ids, b.ids) and np.array_equal(a.distances, b.distances) and a.fields == b.fields
        new["docs"].upsert(1, [1, 1, 1, 1])
        assert old["docs"].count() == 180 and new["docs"].count() == 181
    with pytest.raises(AlreadyExists, match="exists"):
        vecdb.restore(copied, tmp_path / "restored")
    with open_database(tmp_path / "db") as db, pytest.raises(AlreadyExists, match="exists"):
        db.backup(copied)


def test_one_damaged_byte_anywhere_is_corruption_and_no_target(copied: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    before = digests(copied)
    assert len(before) >= 6
    for name in before:
        file = copied / name
        whole = file.read_bytes()
        if name == CHECKSUMS:
            places = [at for at, byte in enumerate(whole) if chr(byte).isalnum()]
        else:
            places = list(range(len(whole)))
        for at in {places[0], places[-1], *rng.choice(places, 4).tolist()}:
            file.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
            with pytest.raises(Corruption, match=r"(?s).*"):
                vecdb.restore(copied, tmp_path / "restored")
            assert not (tmp_path / "restored").exists() and not (tmp_path / "restored.tmp").exists(), name
        for cut in (whole[:-1], whole + b"\0"):
            file.write_bytes(cut)
            if name != CHECKSUMS:
                with pytest.raises(Corruption):
                    vecdb.restore(copied, tmp_path / "restored")
        if name != CHECKSUMS:
            file.unlink()
            with pytest.raises(Corruption, match="missing"):
                vecdb.restore(copied, tmp_path / "restored")
        file.write_bytes(whole)
    assert digests(copied) == before
    vecdb.restore(copied, tmp_path / "restored")
    (copied / CHECKSUMS).unlink()
    with pytest.raises(NotFound, match="no backup"):
        vecdb.restore(copied, tmp_path / "other")


def test_a_backup_taken_while_writing_is_the_state_of_one_commit(tmp_path: Path) -> None:
    done = threading.Event()
    with open_database(tmp_path / "db", durability="relaxed") as db:
        docs = db.create_collection("docs", 4, "l2")
        docs.upsert([0, 1], [[0, 1, 1, 1]] * 2, [{"n": 0}] * 2)

        def write() -> None:
            n = 1
            while not done.is_set():
                docs.upsert([0, 1, n + 1], [[n, 1, 1, 1]] * 3, [{"n": n}] * 3)  # 0 and 1 always carry the same n
                n += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            acknowledged = []
            for at in range(4):
                acknowledged.append(docs.get(0).fields["n"])
                db.backup(tmp_path / f"backup-{at}")
        finally:
            done.set()
            thread.join()
    for at in range(4):
        vecdb.restore(tmp_path / f"backup-{at}", tmp_path / f"restored-{at}")
        with open_database(tmp_path / f"restored-{at}") as db:
            assert db.check() == []
            zero, one = db["docs"].get([0, 1])
            n = zero.fields["n"]
            assert zero.fields == one.fields and n >= acknowledged[at]
            assert db["docs"].count() == n + 2 and db["docs"].search([n, 1, 1, 1], 1).distances[0] == 0


def test_a_collection_that_is_made_before_the_first_lock_is_locked_too(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        db.create_collection("one", 4)
        locks = db._backend._maintenance_locks()  # type: ignore[attr-defined]
        db.create_collection("two", 4)
        assert len(list(locks)) == 2
