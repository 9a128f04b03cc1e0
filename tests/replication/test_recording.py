"""Transactions that are recorded: what is noted makes the same changes elsewhere, and costs nothing where no log is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import vecdb
from tests.support.replication.copies import WAIT_S, backend_of, log_of
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.errors import Corruption, Unavailable
from vecdb.replication.log import entry
from vecdb.replication.log.applying import _apply
from vecdb.replication.log.recording import DATABASES, RecordingTransaction
from vecdb.storage.kv import keys
from vecdb.storage.kv.store import Store

VECTORS = np.random.default_rng(8).normal(size=(64, 8)).astype(np.float32)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        made.append(Store(tmp_path / name, read_only=False, durability="none", alone=True))
    yield made[0], made[1]
    for store in made:
        store.close()


def entries(store: Store) -> dict[bytes, list[Any]]:
    with store.read() as txn:
        return {name: list(txn.cursor(db=database)) for name, database in store.databases.items()}


def test_operations_of_any_kind_make_the_same_entries(stores: tuple[Store, Store]) -> None:
    """Against LMDB itself: random changes through a recorded transaction, and what was noted, done to another."""
    one, other = stores
    rng = np.random.default_rng(3)
    for _ in range(60):
        noted: list[Any] = []

        def done(recorded: RecordingTransaction, noted: list[Any] = noted) -> Any:
            noted += recorded.operations
            return lambda made: None

        txn = RecordingTransaction(one.begin_write(), one, done)
        for _ in range(int(rng.integers(1, 30))):
            name = DATABASES[int(rng.integers(len(DATABASES)))]
            database, key = one.databases[name], b"k%d" % rng.integers(12)
            value = int(rng.integers(6)).to_bytes(8, "little")
            cursor, draw = txn.cursor(db=database), rng.random()
            if draw < 0.3:
                txn.put(key, value, db=database)
            elif draw < 0.5:
                cursor.putmulti([(key, value), (b"k%d" % rng.integers(12), value)])
            elif draw < 0.65:
                txn.delete(key, db=database)
            elif cursor.set_range(key):
                while rng.random() < 0.7 and cursor.delete(dupdata=bool(rng.random() < 0.3)):
                    pass
        if rng.random() < 0.2:
            txn.abort()
            assert not noted
            continue
        txn.commit()
        through = msgspec.msgpack.decode(msgspec.msgpack.encode(noted), type=list[entry.Operation])
        repeated = other.begin_write()
        _apply(repeated, [other.databases[name] for name in DATABASES], through, "here")
        repeated.commit()
        assert entries(one) == entries(other)
    assert sum(map(len, entries(one).values())) > 50


def test_without_a_log_transactions_are_lmdbs_own(tmp_path: Path) -> None:
    with open_database(tmp_path / "db") as db:
        store = backend_of(db).store
        assert store.log is None
        txn = store.begin_write()
        assert type(txn).__module__.startswith("lmdb") or type(txn).__name__ == "Transaction"
        txn.abort()


def test_a_row_file_that_no_state_names_any_more_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    with open_database(tmp_path / "db", log=f"file://{tmp_path}/bucket", maintenance=False) as db:
        docs = db.create_collection("docs", 8, index=vecdb.Flat())
        docs.upsert(range(20), VECTORS[:20])
        docs.delete(range(10))
        docs.vacuum()
        db.create_collection("other", 8).upsert([1], VECTORS[:1])
        db.drop_collection("other")
        docs.upsert([50], VECTORS[:1])
        assert log_of(db).flush(WAIT_S)
        log_of(db).snapshots.wait()
        store: Any = backend_of(db).store
        assert list(store.log._files._row_files) == ["collections/00000001/rows.1"]


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "collections/00000001/../../x", "lmdb/data.mdb", ""])
def test_a_range_leads_nowhere_but_into_a_collection(path: str) -> None:
    with pytest.raises(Corruption, match="no file of a database"):
        entry.check_range(entry.FileRange(path, 0, 1, 0, b"x"), "here")


def test_an_object_of_another_version_is_told_from_a_damaged_one() -> None:
    raw = entry.encode(entry.EpochEnd("d", 1, 2, 3, True, "w"))
    assert entry.decode(raw, "here") == entry.EpochEnd("d", 1, 2, 3, True, "w")
    with pytest.raises(Unavailable, match="upgrade vecdb"):
        entry.decode(raw[:4] + b"\x09" + raw[5:], "here")
    for place in range(16, len(raw)):
        with pytest.raises(Corruption, match="here: damaged"):
            entry.decode(raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :], "here")


def test_every_database_of_lmdb_has_a_name_in_the_log() -> None:
    assert tuple(keys.DATABASES) == DATABASES
