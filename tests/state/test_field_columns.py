"""Goal: columns follow every commit, survive a reopen and damage, and are not made twice.

Oracle: brute force over the records, which are read back from the database.
"""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import limits
from vecdb.api.collection import Collection
from vecdb.embedded.open import open_database
from vecdb.filters.forms import to_filter
from vecdb.filters.tree import Node
from vecdb.state import field_columns

N = 3_000
FILTERS = [
    "lang = 'en' and year < 2010",
    "tags contains 't3' or score > 0.9",
    "lang != 'de'",
    "author.name like 'a%' and year is not null",
]


def fields_of(row: int) -> dict[str, Any]:
    made: dict[str, Any] = {"lang": ["en", "de", "fr"][row % 3], "score": (row * 37 % 1_000) / 1_000}
    if row % 5:
        made["year"] = 1_990 + row % 36
    if row % 2:
        made["tags"] = [f"t{row % 7}", "all"]
    if row % 4 == 0:
        made["author"] = {"name": ["ann", "bob"][row % 8 == 0]}
    return made


def filled(db: Any) -> Collection:
    docs: Collection = db.create_collection("docs", 4, "l2")
    vectors = np.random.default_rng(0).standard_normal((N, 4)).astype(np.float32)
    for start in range(0, N, 500):
        part = range(start, start + 500)
        docs.upsert(part, vectors[start : start + 500], fields=[fields_of(row) for row in part])
    return docs


def ids_found(docs: Collection, node: Node) -> list[int]:
    backend: Any = docs._backend
    snapshot, allowed = backend.searcher.rows_for((), node)
    return sorted(snapshot.generation.ids.take(allowed.rows.astype(np.int64), padded=False).tolist())


def agrees(docs: Collection) -> None:
    from vecdb.filters.evaluate import matches

    records = {one.id: one.fields for page in docs.iter() for one in page}
    for text in FILTERS:
        node = to_filter(text)
        assert node is not None
        assert ids_found(docs, node) == sorted(i for i, fields in records.items() if matches(node, fields)), text


def test_columns_follow_writes_changes_deletes_vacuum_and_a_reopen(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = filled(db)
        agrees(docs)
        docs.update(range(0, 900, 3), fields=[{"year": 2_050, "lang": None}] * 300)
        docs.delete(range(100, 200))
        docs.upsert(range(50), np.ones((50, 4), np.float32), fields=[{"lang": "en", "year": 1_999}] * 50)
        agrees(docs)
        db.vacuum()
        agrees(docs)
        docs.update([10, 11], fields=[{"tags": ["t3"]}, {"author": {"name": "ada"}}])
    with open_database(tmp_path / "db", maintenance=False) as db:
        agrees(db.collection("docs"))


def test_a_reading_process_follows_the_writer(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = filled(db)
        reader = open_database(tmp_path / "db", read_only=True)
        try:
            copy = reader.collection("docs")
            agrees(copy)
            docs.update(range(0, 600, 2), fields=[{"lang": "fr"}] * 300)
            docs.delete(range(1_000, 1_100))
            agrees(copy)
            db.vacuum()
            agrees(copy)
        finally:
            reader.close()


def test_sealed_columns_are_opened_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        agrees(filled(db))
    [sealed] = list((tmp_path / "db" / "collections").glob("*/columns.*"))
    decoded = []
    monkeypatch.setattr(field_columns, "decode_fields", lambda raw: decoded.append(raw) or {})
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.collection("docs")
        node = to_filter(FILTERS[0])
        assert node is not None
        expected = [i for i in range(N) if i % 3 == 0 and i % 5 and 1_990 + i % 36 < 2_010]
        assert ids_found(docs, node) == expected and not decoded
    monkeypatch.undo()
    whole = sealed.read_bytes()
    sealed.write_bytes(whole[:5_000] + b"\xff" + whole[5_001:])
    with open_database(tmp_path / "db", maintenance=False) as db:
        [problem] = db.check()
        assert "columns." in problem
        agrees(db.collection("docs"))  # made again from the records


def test_columns_are_counted_and_belong_to_a_backup(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = filled(db)
        agrees(docs)
        counted = docs.stats()["columns"]
        assert counted["rows"] == N and counted["bytes_ram"] > N and counted["paths"] >= 5
        docs.optimize()
        db.backup(tmp_path / "copy")
    vecdb.restore(tmp_path / "copy", tmp_path / "restored")
    with open_database(tmp_path / "restored", maintenance=False) as db:
        agrees(db.collection("docs"))


def test_a_reading_process_opens_the_columns_that_are_sealed_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = filled(db)
        docs.optimize()
        columns = docs._backend.jobs.columns  # type: ignore[attr-defined]
        columns.seal()
        reader = open_database(tmp_path / "db", read_only=True)
        try:
            copy = reader.collection("docs")
            docs.upsert([N], np.ones((1, 4), np.float32), fields=[{"lang": "en", "year": 2_000}])
            columns.extend()
            columns.seal()  # removes the file that was there when the reader opened
            decoded = []
            decode = field_columns.decode_fields
            monkeypatch.setattr(field_columns, "decode_fields", lambda raw: decoded.append(raw) or decode(raw))
            node = to_filter(FILTERS[0])
            assert node is not None
            assert N in ids_found(copy, node) and not decoded
        finally:
            reader.close()


def test_columns_are_sealed_again_after_many_changes_not_after_each(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = filled(db)
        columns = docs._backend.jobs.columns  # type: ignore[attr-defined]
        columns.extend()
        columns.seal()
        sealed = 0
        for row in range(0, N // 2, 50):
            docs.update(range(row, row + 50), fields=[{"lang": "fr"}] * 50)
            docs.count(filter="lang = 'fr'")
            if columns.seal_is_due():
                columns.seal()
                sealed += 1
        assert sealed == 3, "an eighth of 3,000 rows is 375: 400 changes, three times in 1,500"
        agrees(docs)


def test_records_are_looked_at_a_batch_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "columns_max", 1)
    monkeypatch.setattr(field_columns, "_BATCH_ROWS", 100)
    monkeypatch.setattr(field_columns, "_CHANGED_ROWS", 64)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = filled(db)
        agrees(docs)
        docs.update(range(0, 900, 3), fields=[{"year": 2_050, "lang": None}] * 300)
        agrees(docs)
        alive: weakref.WeakSet[Any] = weakref.WeakSet()
        most = 0

        class Fields(dict[str, Any]):
            """A dict that is told of when it goes."""

            __hash__ = object.__hash__  # type: ignore[assignment]

        decode = field_columns.decode_fields

        def counted(raw: Any) -> dict[str, Any]:
            nonlocal most
            made = Fields(decode(raw))
            alive.add(made)
            most = max(most, len(alive))
            return made

        monkeypatch.setattr(field_columns, "decode_fields", counted)
        node = to_filter("score > 0.5 and year < 2000 and tags contains 't1'")
        assert node is not None
        assert ids_found(docs, node)
        assert 0 < most <= 100
