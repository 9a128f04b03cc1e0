"""The history tells two states of one database apart that have the same number, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from vecdb.embedded.open import open_database
from vecdb.storage.kv import history
from vecdb.storage.kv.history import History
from vecdb.storage.kv.store import Store


def history_of(database: Path) -> tuple[int, History]:
    with open_database(database, read_only=True) as db:
        store: Store = db._backend.store  # type: ignore[attr-defined]
        with store.read() as txn:
            return db.stats()["sequence"], history.read(store, txn)


def write(database: Path, *values: int) -> None:
    with open_database(database, maintenance=False) as db:
        docs = db.create_collection("docs", 2, "l2", exist_ok=True)
        for value in values:
            docs.upsert(value, [value, 1])


def test_copies_that_part_agree_up_to_there(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 2)
    parted, before = history_of(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name in ("a", "b"):
        write(tmp_path / name, 3)
        write(tmp_path / name, 4)
    (n, a), (m, b) = history_of(tmp_path / "a"), history_of(tmp_path / "b")
    assert n == m == parted + 2 == a.last == b.last and before.last == parted
    for sequence in range(1, parted + 1):
        assert a.token_of(sequence) == b.token_of(sequence) == before.token_of(sequence) is not None
    for sequence in (parted + 1, parted + 2):
        assert a.token_of(sequence) != b.token_of(sequence)
    assert a.token_of(parted + 1) != a.token_of(parted + 2)  # another process
    assert a.token_of(0) is a.token_of(n + 1) is None


def test_a_process_that_only_looks_leaves_no_session(tmp_path: Path) -> None:
    write(tmp_path / "a", 1)
    before = history_of(tmp_path / "a")
    with open_database(tmp_path / "a", maintenance=False) as db:
        assert db["docs"].count() == 1
    assert history_of(tmp_path / "a") == before


def test_what_an_older_version_wrote_is_nobodys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a", 1)
    with monkeypatch.context() as older:
        older.setattr(history.HistoryWriter, "note", lambda *_: None)
        write(tmp_path / "a", 2, 3)
    sequence, found = history_of(tmp_path / "a")
    assert found.last == sequence - 2 and found.token_of(sequence) is None is not found.token_of(found.last)
    write(tmp_path / "a", 4)
    _, found = history_of(tmp_path / "a")
    assert found.token_of(sequence + 1) is not None
    assert found.token_of(sequence) is None  # between the sessions


def test_a_damaged_note_says_nothing_and_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = history.HistoryWriter.note

    def damaged(self: Any, store: Store, txn: Any, sequence: int) -> None:
        put(self, store, txn, sequence)
        raw = bytearray(txn.get(b"history", db=store.state))
        raw[-1] ^= 1
        txn.put(b"history", bytes(raw), db=store.state)

    with monkeypatch.context() as broken:
        broken.setattr(history.HistoryWriter, "note", damaged)
        write(tmp_path / "a", 1)
    assert history_of(tmp_path / "a")[1] == History()
    write(tmp_path / "a", 2)
    sequence, found = history_of(tmp_path / "a")
    assert found.token_of(sequence) is not None and found.token_of(sequence - 1) is None


def test_only_the_newest_sessions_are_kept(tmp_path: Path) -> None:
    for value in range(history._SESSIONS_MAX + 5):
        write(tmp_path / "a", value)
    sequence, found = history_of(tmp_path / "a")
    assert len(found.sessions) == history._SESSIONS_MAX and found.token_of(1) is None
    assert len({found.token_of(sequence - n) for n in range(history._SESSIONS_MAX)}) == history._SESSIONS_MAX
