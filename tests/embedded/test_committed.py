"""Goal: no commit that was acknowledged is undone in silence, and no counter of the database is taken for another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vecdb
from vecdb.embedded.open import open_database
from vecdb.errors import Corruption
from vecdb.storage.disk import commit_mark
from vecdb.storage.kv import keys

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 2, "l2")
        for n in range(5):
            docs.upsert([n], [[1, n]])
    return tmp_path / "db"


def newest_meta(path: Path) -> int:
    """Offset of the meta page that LMDB takes."""
    raw = (path / "lmdb" / "data.mdb").read_bytes()
    numbers = [int.from_bytes(raw[page + 16 + 128 : page + 16 + 136], "little") for page in (0, PAGE)]
    return PAGE * numbers.index(max(numbers))


def flip(file: Path, offset: int, bit: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[offset] ^= 1 << bit
    file.write_bytes(raw)


# of a meta page: magic, version, and the transaction number
@pytest.mark.parametrize("offset", [16, 20, 16 + 128, 16 + 129])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_meta_page_that_was_flipped_undoes_no_commit_in_silence(path: Path, offset: int, read_only: bool) -> None:
    page = newest_meta(path)
    raw = (path / "lmdb" / "data.mdb").read_bytes()
    for bit in range(8):
        flip(path / "lmdb" / "data.mdb", page + offset, bit)
        try:
            with open_database(path, read_only=read_only, maintenance=False) as db:
                assert db["docs"].count() == 5
        except Corruption as error:
            assert str(path) in str(error)
        (path / "lmdb" / "data.mdb").write_bytes(raw)


def test_who_wants_to_go_on_without_the_lost_commit_can(path: Path) -> None:
    raw, page = bytearray((path / "lmdb" / "data.mdb").read_bytes()), newest_meta(path)
    raw[page + 16 + 128 : page + 16 + 136] = bytes(8)
    (path / "lmdb" / "data.mdb").write_bytes(raw)
    with pytest.raises(Corruption, match=r"commit 5, commit 6 was acknowledged.*remove .*COMMITTED"):
        vecdb.open(path)
    (path / commit_mark.NAME).unlink()
    with open_database(path, maintenance=False) as db:
        assert db["docs"].count() == 4 and db.check() == []
        db["docs"].upsert([9], [[1, 9]])
    assert commit_mark.read(path) == 6


@pytest.mark.parametrize(("durability", "lag"), [("full", 0), ("relaxed", 1)])
def test_the_mark_is_never_ahead_of_what_a_power_cut_leaves(path: Path, durability: str, lag: int) -> None:
    with open_database(path, durability=durability, maintenance=False) as db:
        for n in range(3):
            db["docs"].upsert([n], [[1, n]])
            assert commit_mark.read(path) == db.stats()["sequence"] - lag


def test_a_damaged_mark_says_nothing(path: Path) -> None:
    whole = (path / commit_mark.NAME).read_bytes()
    places = [(at, bit) for at in range(len(whole)) for bit in (0, 7)]
    wounds = [bytes((*whole[:at], whole[at] ^ 1 << bit, *whole[at + 1 :])) for at, bit in places]
    for raw in [*wounds, whole[:-1], b"", whole + b"x"]:
        (path / commit_mark.NAME).write_bytes(raw)
        assert commit_mark.read(path) in (0, 6)
    with open_database(path, maintenance=False) as db:
        assert db["docs"].count() == 5
    assert (path / commit_mark.NAME).read_bytes()[: len(whole)] == whole


def change_state(path: Path, change: Callable[[Any, Any], None]) -> None:
    """Change LMDB's table of states past everything that watches over it."""
    with open_database(path, maintenance=False) as db:
        store = db._backend.store  # type: ignore[attr-defined]
        txn = store.begin_write()
        change(txn, store.state)
        txn.commit()


@pytest.mark.parametrize("key", [keys.SEQUENCE, keys.UID_NEXT, b"counters"])
def test_a_flipped_bit_of_a_counter_is_corruption(path: Path, key: bytes) -> None:
    with open_database(path, maintenance=False) as db:
        store = db._backend.store  # type: ignore[attr-defined]
        with store.read() as txn:
            value = bytes(txn.get(key, db=store.state))
        for bit in range(8 * len(value)):
            txn = store.begin_write()
            flipped = (int.from_bytes(value, "little") ^ 1 << bit).to_bytes(len(value), "little")
            txn.put(key, flipped, db=store.state)
            txn.commit()
            assert "counters" in db.check()[0], bit
        txn = store.begin_write()
        txn.put(key, value, db=store.state)
        txn.commit()
        assert db.check() == []
    wrong = bytes((value[0] ^ 1, *value[1:]))
    change_state(path, lambda txn, state: txn.put(key, wrong, db=state))
    for read_only in (True, False):
        with pytest.raises(Corruption, match="counters"):
            open_database(path, read_only=read_only, maintenance=False)


def test_a_database_of_before_the_counters_had_a_checksum_opens(path: Path) -> None:
    change_state(path, lambda txn, state: txn.delete(b"counters", db=state))
    with open_database(path, read_only=True) as db:
        assert db.check() == []
    with open_database(path, maintenance=False) as db:
        assert db["docs"].count() == 5 and db.check() == []
        db["docs"].upsert([7], [[1, 7]])
        db.create_collection("one", 2)
        db.create_collection("two", 2)
    # and the older version may have written since
    change_state(path, lambda txn, state: txn.delete(b"counters", db=state))
    change_state(path, lambda txn, state: txn.put(keys.SEQUENCE, (1).to_bytes(8, "little"), db=state))
    with pytest.raises(Corruption, match="counters say commit 1"):
        vecdb.open(path)
