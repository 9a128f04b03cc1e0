"""A backup is the state of one commit, restores to the same answers, and one damaged byte in it is an error."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, GRAPH, clustered
from vecdb import limits
from vecdb.embedded.backup import CHECKSUMS
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, NotFound, Unavailable


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


def test_a_collection_without_a_dim_comes_along(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        notes = db.create_collection("notes", metric="l2")
        notes.upsert(["a", "b", "c"], fields=[{"n": n} for n in range(3)])
        notes.delete("b")
        db.backup(tmp_path / "backup")
    vecdb.restore(tmp_path / "backup", tmp_path / "restored")
    with open_database(tmp_path / "restored", maintenance=False) as new:
        assert new.check() == [] and new["notes"].dim == 0
        assert [one.fields for one in new["notes"].get(["a", "c"])] == [{"n": 0}, {"n": 2}]
        new["notes"].upsert("d", [1, 2, 3])
        assert new["notes"].count() == 3 and new["notes"].search([1, 2, 3], 5).ids.tolist() == ["d"]


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


# -- what others give ----------------------------------------------------------------------------------


def listed(backup: Path, name: str, entry: tuple[int, str] | None) -> None:
    """Change the list of checksums; None takes the name out of it."""
    told = json.loads((backup / CHECKSUMS).read_text())
    told["files"].pop(name, None)
    if entry is not None:
        told["files"][name] = entry
    (backup / CHECKSUMS).write_text(json.dumps(told))


ROWS = "collections/00000001/rows.0"


def sum_of(raw: bytes) -> tuple[int, str]:
    return len(raw), hashlib.sha256(raw).hexdigest()


def a_pipe(backup: Path, victim: Path) -> None:
    os.mkfifo(backup / "collections" / "00000001" / "more")
    listed(backup, "collections/00000001/more", (0, "0" * 64))


def a_link_without_end(backup: Path, victim: Path) -> None:
    (backup / ROWS).unlink()
    (backup / ROWS).symlink_to("/dev/zero")


def a_link_elsewhere(backup: Path, victim: Path) -> None:
    (backup / ROWS).unlink()
    (backup / ROWS).symlink_to(victim)
    listed(backup, ROWS, sum_of(victim.read_bytes()))


def a_folder_elsewhere(backup: Path, victim: Path) -> None:
    (backup / "collections").rename(victim.parent / "elsewhere")
    (backup / "collections").symlink_to(victim.parent / "elsewhere")


def a_giant(backup: Path, victim: Path) -> None:
    with open(backup / ROWS, "wb") as file:
        file.truncate(1 << 42)
    listed(backup, ROWS, (1 << 42, "0" * 64))


def a_giant_that_is_not_listed_so(backup: Path, victim: Path) -> None:
    with open(backup / ROWS, "wb") as file:
        file.truncate(1 << 42)


def a_name_elsewhere(backup: Path, victim: Path) -> None:
    listed(backup, "../victim", sum_of(victim.read_bytes()))


def another_name(backup: Path, victim: Path) -> None:
    (backup / "LOCK").write_text("1")
    listed(backup, "LOCK", sum_of(b"1"))


def a_file_too_many(backup: Path, victim: Path) -> None:
    (backup / "collections" / "00000001" / "more").write_text("x")
    listed(backup, "collections/00000001/more", sum_of(b"x"))


def a_shorter_file(backup: Path, victim: Path) -> None:
    raw = (backup / ROWS).read_bytes()[:-16]
    (backup / ROWS).write_bytes(raw)
    listed(backup, ROWS, sum_of(raw))


def a_list_without_the_rows(backup: Path, victim: Path) -> None:
    listed(backup, ROWS, None)


def a_list_without_lmdb(backup: Path, victim: Path) -> None:
    listed(backup, "lmdb/data.mdb", None)


def a_list_of_nothing(backup: Path, victim: Path) -> None:
    (backup / CHECKSUMS).write_text('{"format": 1, "files": {}}')


def a_deep_list(backup: Path, victim: Path) -> None:
    (backup / CHECKSUMS).write_text('{"format": 1, "files": ' + "[" * 200_000 + "]" * 200_000 + "}")


def a_list_that_is_a_pipe(backup: Path, victim: Path) -> None:
    (backup / CHECKSUMS).unlink()
    os.mkfifo(backup / CHECKSUMS)


CRAFTED = [
    a_pipe, a_link_without_end, a_link_elsewhere, a_folder_elsewhere, a_giant, a_giant_that_is_not_listed_so,
    a_name_elsewhere, another_name, a_file_too_many, a_shorter_file, a_list_without_the_rows, a_list_without_lmdb,
    a_list_of_nothing, a_deep_list, a_list_that_is_a_pipe,
]  # fmt: skip


@pytest.mark.parametrize("craft", CRAFTED, ids=lambda one: one.__name__)
def test_a_backup_that_somebody_crafted_is_refused_before_it_does_harm(
    copied: Path, tmp_path: Path, craft: Callable[[Path, Path], None]
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"a secret of this machine")
    craft(copied, victim)
    with pytest.raises((Corruption, Unavailable)):
        vecdb.restore(copied, tmp_path / "restored")
    assert victim.read_bytes() == b"a secret of this machine"
    assert not [one.name for one in tmp_path.iterdir() if one.name.startswith("restored")]


@pytest.mark.parametrize("what", ["folder", "link", "file"])
def test_what_lies_beside_the_target_is_left_alone(copied: Path, tmp_path: Path, what: str) -> None:
    beside = [tmp_path / "new.tmp", tmp_path / "backup2.tmp", tmp_path / "new.tmp-abc", tmp_path / "backup2.tmp-abc"]
    for one in beside:
        if what == "folder":
            one.mkdir()
            (one / "mine").write_text("mine")
        elif what == "link":
            (tmp_path / "elsewhere").mkdir(exist_ok=True)
            one.symlink_to(tmp_path / "elsewhere")
        else:
            one.write_text("mine")
    vecdb.restore(copied, tmp_path / "new")
    with open_database(tmp_path / "new", maintenance=False) as db:
        db.backup(tmp_path / "backup2")
    for one in beside:
        if what == "folder":
            assert (one / "mine").read_text() == "mine"
        elif what == "link":
            assert one.is_symlink() and list((tmp_path / "elsewhere").iterdir()) == []
        else:
            assert one.read_text() == "mine"


def test_two_backups_of_one_name_at_once_are_one(copied: Path, tmp_path: Path) -> None:
    told: list[str] = []
    both = threading.Barrier(2)
    with open_database(tmp_path / "db", maintenance=False) as db:

        def back_up() -> None:
            both.wait()
            try:
                db.backup(tmp_path / "same")
                told.append("made")
            except AlreadyExists:
                told.append("exists")

        threads = [threading.Thread(target=back_up) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(told) == ["exists", "made"]
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith("same")] == ["same"]
    vecdb.restore(tmp_path / "same", tmp_path / "restored")


def test_what_a_killed_backup_left_goes_with_the_next_of_its_name(copied: Path, tmp_path: Path) -> None:
    from vecdb.replication.backups.temporary import TemporaryFolder
    from vecdb.storage.disk import filesystem

    left, at_work = (TemporaryFolder(tmp_path, f"{name}.tmp-") for name in ("again", "again"))
    filesystem.unlock(left.lock_fd)
    with open_database(tmp_path / "db", maintenance=False) as db:
        db.backup(tmp_path / "again")
    assert not left.path.exists() and at_work.path.exists()
    filesystem.unlock(at_work.lock_fd)


def test_a_backup_into_the_database_itself_is_refused(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as database:
        before = sorted(path.name for path in (tmp_path / "db").rglob("*"))
        with pytest.raises(InvalidArgument, match="lies within the database"):
            database.backup(tmp_path / "db" / "inside")
        assert sorted(path.name for path in (tmp_path / "db").rglob("*")) == before
