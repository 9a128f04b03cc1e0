"""Goal: LMDB is opened only where its file is whole, reads are one committed state, and its errors come as ours."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

import vecdb
from tests.support.threads import together
from vecdb.errors import Corruption, Locked, Unavailable
from vecdb.storage.disk import filesystem
from vecdb.storage.kv import store as store_module
from vecdb.storage.kv.store import READERS, Store


def filled(folder: Path) -> Path:
    folder.mkdir()
    store = Store(folder, read_only=False, durability="none")
    for at in range(3):
        txn = store.begin_write()
        for number in range(300):
            txn.put(f"{at}-{number}".encode(), bytes(500), db=store.blocks)
        txn.commit()
    store.sync()
    store.close()
    return folder / "data.mdb"


def test_a_file_truncated_at_any_page_is_refused_not_mapped(tmp_path: Path) -> None:
    data = filled(tmp_path / "lmdb")
    whole = data.read_bytes()
    used = Store(tmp_path / "lmdb", read_only=True, durability="full")
    pages = used.info()["used_bytes"] // 4096
    used.close()
    assert pages > 50
    for page in [*range(2, 12), *range(12, pages, 9), pages - 1]:
        data.write_bytes(whole[: page * 4096 + 100] if page < pages - 1 else whole[: page * 4096])
        with pytest.raises(Corruption, match="truncated"):
            Store(tmp_path / "lmdb", read_only=True, durability="full")
    for length in (0, 10, 100):
        data.write_bytes(whole[:length])
        with pytest.raises(Corruption, match="meta page"):
            Store(tmp_path / "lmdb", read_only=True, durability="full")
    data.write_bytes(whole)
    Store(tmp_path / "lmdb", read_only=True, durability="full").close()


def test_a_file_with_neither_meta_page_is_refused(tmp_path: Path) -> None:
    data = filled(tmp_path / "lmdb")
    raw = bytearray(data.read_bytes())
    for at in (16, 4096 + 16):
        raw[at] ^= 1
    data.write_bytes(raw)
    with pytest.raises(Corruption, match="neither meta page"):
        Store(tmp_path / "lmdb", read_only=False, durability="full")


def test_a_database_whose_lmdb_file_was_cut_is_refused_and_the_lock_released(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with vecdb.open(path) as db:
        db.create_collection("docs", 3, "l2").upsert(range(500), [[1, 2, 3]] * 500)
        used = db.stats()["lmdb"]["used_bytes"]  # the file may be longer: room kept for a full disk
    data = path / "lmdb" / "data.mdb"
    whole = data.read_bytes()
    data.write_bytes(whole[: used - 4096])
    for read_only in (False, True):
        with pytest.raises(Corruption, match=r"data\.mdb"):
            vecdb.open(path, read_only=read_only)
    data.write_bytes(whole)
    with vecdb.open(path) as db:
        assert db["docs"].count() == 500 and db.check() == []


def test_a_read_sees_one_state_while_writes_go_on(tmp_path: Path) -> None:
    filled(tmp_path / "lmdb")
    store = Store(tmp_path / "lmdb", read_only=False, durability="none")
    with store.read() as txn:
        write = store.begin_write()
        write.put(b"0-0", b"new", db=store.blocks)
        write.commit()
        assert txn.get(b"0-0", db=store.blocks) == bytes(500)
    with store.read() as txn:
        assert txn.get(b"0-0", db=store.blocks) == b"new"
    store.close()


def test_a_second_store_in_one_process_is_locked_out(tmp_path: Path) -> None:
    filled(tmp_path / "lmdb")
    store = Store(tmp_path / "lmdb", read_only=False, durability="none")
    with pytest.raises(Locked, match="this process has it open"):
        Store(tmp_path / "lmdb", read_only=True, durability="none")
    store.close()


def test_reading_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    filled(tmp_path / "lmdb")
    store = Store(tmp_path / "lmdb", read_only=False, durability="none")
    store.close()
    with pytest.raises(Unavailable), store.read():
        pass


def test_closing_waits_for_no_read_whose_end_an_interruption_broke_off(tmp_path: Path) -> None:
    for name in ("one", "two"):
        filled(tmp_path / name)
    own, other = (Store(tmp_path / name, read_only=False, durability="none") for name in ("one", "two"))
    broken_off = own.read()
    broken_off.__enter__()
    own.close()  # the thread that closes is not reading
    with pytest.raises(Unavailable, match="closed"), own.read():
        pass
    broken_off = other.read()
    broken_off.__enter__()
    closing = threading.Thread(target=other.close)
    closing.start()
    while not other._closed:
        pass
    assert closing.is_alive(), "it may still be reading"
    del broken_off
    closing.join(60)
    assert not closing.is_alive()


def test_a_copy_is_the_state_at_one_commit(tmp_path: Path) -> None:
    filled(tmp_path / "lmdb")
    store = Store(tmp_path / "lmdb", read_only=False, durability="none")
    (tmp_path / "copy").mkdir()
    store.copy(tmp_path / "copy")
    write = store.begin_write()
    write.put(b"later", b"x", db=store.blocks)
    write.commit()
    store.close()
    copy = Store(tmp_path / "copy", read_only=True, durability="full")
    with copy.read() as txn:
        assert txn.get(b"later", db=copy.blocks) is None
        assert txn.stat(copy.blocks)["entries"] == 900
    copy.close()


def test_a_copy_holds_every_entry_of_every_database_with_its_flags(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(store_module, "_COPY_BYTES", 20_000)  # many transactions
    monkeypatch.setattr(store_module, "_COPY_ENTRIES", 7)
    store = filled_and_emptied(tmp_path / "lmdb")
    txn = store.begin_write()
    for key, rows in ((b"one", 1), (b"few", 30), (b"pages", 5_000)):  # duplicates in a page, and in pages of their own
        for database in (store.members, store.tombs):
            entries = [(key, (3 * row).to_bytes(8, "little")) for row in range(rows)]
            txn.cursor(db=database).putmulti(entries)
    txn.put(b"large", bytes(100_000), db=store.access)
    txn.commit()
    (tmp_path / "copy").mkdir()
    store.copy(tmp_path / "copy")
    copy = Store(tmp_path / "copy", read_only=False, durability="none")
    assert copy.info()["used_bytes"] < store.info()["used_bytes"]
    with store.read() as here, copy.read() as there:
        for name, database in store.databases.items():
            assert list(there.cursor(db=copy.databases[name])) == list(here.cursor(db=database)), name
            assert copy.databases[name].flags(there) == database.flags(here), name
        cursor = there.cursor(db=copy.members)
        assert cursor.set_key(b"pages") and cursor.count() == 5_000
    txn = copy.begin_write()
    assert txn.delete(b"pages", (9).to_bytes(8, "little"), db=copy.members), "a copy can be written to"
    txn.commit()
    copy.close()
    store.close()


def compacted(store: Store) -> bool:
    with store.compacted_copy() as copy:
        return copy is not None and store.swap_for(copy)


def filled_and_emptied(path: Path) -> Store:
    """A store with a few hundred free pages and one entry in the catalog."""
    path.mkdir()
    store = Store(path, read_only=False, durability="full")
    for write in (True, False):
        txn = store.begin_write()
        for i in range(2000):
            key = i.to_bytes(4, "big")
            txn.put(key, bytes(1000), db=store.blocks) if write else txn.delete(key, db=store.blocks)
        txn.put(b"kept", b"value", db=store.catalog)
        txn.commit()
    return store


def test_shrinking_gives_free_pages_back_and_keeps_what_is_there(tmp_path: Path) -> None:
    store = filled_and_emptied(tmp_path / "lmdb")
    before = store.info()["used_bytes"]
    assert compacted(store)
    assert store.info()["used_bytes"] < before / 10
    with store.read() as txn:
        assert txn.get(b"kept", db=store.catalog) == b"value"
    txn = store.begin_write()
    txn.put(b"after", b"too", db=store.catalog)
    txn.commit()
    assert not compacted(store), "there is nothing left to give back"
    store.close()
    again = Store(tmp_path / "lmdb", read_only=True, durability="full")
    with again.read() as txn:
        assert txn.get(b"kept", db=again.catalog) == b"value" and txn.get(b"after", db=again.catalog) == b"too"
    again.close()


def test_a_copy_that_a_commit_made_old_takes_no_place(tmp_path: Path) -> None:
    store = filled_and_emptied(tmp_path / "lmdb")
    with store.compacted_copy() as copy:
        txn = store.begin_write()
        txn.put(b"between", b"copy and swap", db=store.catalog)
        txn.commit()
        assert copy is not None and not store.swap_for(copy)
    assert not (tmp_path / "lmdb" / "copy").exists()
    assert compacted(store), "the next copy has it"
    with store.read() as txn:
        assert txn.get(b"between", db=store.catalog) == b"copy and swap"
    store.close()


def test_reads_that_never_pause_do_not_keep_a_file_large(tmp_path: Path) -> None:
    """Each read ends when the other thread has begun one, so that always one is open: those that begin wait for the
    swap.
    """
    store = filled_and_emptied(tmp_path / "lmdb")
    begun, ended = [threading.Event(), threading.Event()], threading.Event()
    swapped: list[bool] = []

    def read(which: int) -> None:
        while not ended.is_set():
            with store.read() as txn:
                assert txn.get(b"kept", db=store.catalog) == b"value"
                begun[1 - which].clear()
                begun[which].set()
                begun[1 - which].wait(0.02)

    def swap() -> None:
        try:
            for which in begun:
                which.wait()
            swapped.append(compacted(store))
        finally:
            ended.set()

    together(lambda: read(0), lambda: read(1), swap)
    assert swapped == [True]
    store.close()


def test_a_read_that_goes_on_is_not_waited_for(tmp_path: Path) -> None:
    store = filled_and_emptied(tmp_path / "lmdb")
    with store.read() as txn:
        assert not compacted(store)
        assert txn.get(b"kept", db=store.catalog) == b"value"
    assert compacted(store)
    store.close()


def test_nothing_shrinks_under_another_process_or_an_iterator_at_rest(tmp_path: Path) -> None:
    store = filled_and_emptied(tmp_path / "lmdb")
    filesystem.touch(tmp_path / READERS)
    held = filesystem.lock_shared(tmp_path / READERS)  # as a reading process does; another descriptor is another holder
    assert not compacted(store)
    filesystem.close(held)
    with store.read() as txn, store.parked():
        assert not compacted(store)
    assert txn is not None and compacted(store)
    store.close()
