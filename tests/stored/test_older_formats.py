"""Goal: a database that code without changes of fields wrote is read and written, and gets the format that such code
refuses once a field was changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.embedded.open import open_database
from vecdb.storage.disk import manifest

NAMES = ("hnsw", "auto", "spann", "curator", "flat")
CHANGE = """
import sys
from vecdb.embedded.open import open_database
with open_database(sys.argv[1], maintenance=False) as db:
    for name in sys.argv[2].split():
        assert db.collection(name).update([1, 20], fields=[{"n": 5}, {"new": name}]) == 2
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("format_2.tar.gz")) as archive:
        archive.extractall(tmp_path / "db", filter="data")
    return tmp_path / "db"


def format_of(path: Path) -> int:
    return int(json.loads((path / manifest.NAME).read_text())["format_version"])


def fields(db: Any, name: str) -> list[dict[str, Any]]:
    """Of two records by get, by iter and by search: they must agree."""
    docs = db.collection(name)
    got = docs.get([1, 20], include_vectors=True)
    walked = {record.id: record.fields for batch in docs.iter() for record in batch}
    assert [walked[1], walked[20]] == [one.fields for one in got]
    for one in got:
        hits = docs.search(one.vector, 600, params=vecdb.SearchParams(exact=True))
        assert dict(zip(hits.ids.tolist(), hits.fields, strict=True))[one.id] == one.fields
    return [one.fields for one in got]


def changed(name: str) -> list[dict[str, Any]]:
    return [{"n": 5, "s": "t1"}, {"n": 20, "s": "t6", "new": name}]


BEFORE = [{"n": -1, "s": "t1"}, {"n": 20, "s": "t6"}]


def test_reading_writes_nothing_and_opening_for_writing_keeps_the_format(path: Path) -> None:
    with open_database(path, read_only=True) as db:
        assert not db._backend.store.is_complete
        assert fields(db, "hnsw") == BEFORE and db.check() == []
        db.backup(path.parent / "copy")
    vecdb.restore(path.parent / "copy", path.parent / "restored")
    for place in (path, path.parent / "restored"):
        with open_database(place, maintenance=False) as db:
            assert fields(db, "hnsw") == BEFORE and db.check() == []
        assert format_of(place) == 2
        with open_database(place, read_only=True) as db:
            assert db._backend.store.is_complete and fields(db, "hnsw") == BEFORE


def test_a_reader_that_opened_it_before_sees_what_another_process_changes(path: Path) -> None:
    with open_database(path, read_only=True) as db:
        assert all(fields(db, name) == BEFORE for name in ("hnsw", "flat"))
        assert not db._backend.store.is_complete
        subprocess.run([sys.executable, "-c", CHANGE, str(path), "hnsw flat auto"], check=True)
        for name in ("hnsw", "flat", "auto"):
            assert fields(db, name) == changed(name)
        assert db.check() == []
    assert format_of(path) == manifest.FIELD_CHANGES


def test_a_reader_that_opened_it_before_backs_up_what_another_process_changed(path: Path) -> None:
    with open_database(path, read_only=True) as db:
        subprocess.run([sys.executable, "-c", CHANGE, str(path), "hnsw"], check=True)
        db.backup(path.parent / "copy")
    vecdb.restore(path.parent / "copy", path.parent / "restored")
    with open_database(path.parent / "restored", read_only=True) as db:
        assert fields(db, "hnsw") == changed("hnsw") and db.check() == []


def test_handles_of_one_process_share_the_tables_that_the_writer_adds(path: Path) -> None:
    with open_database(path, read_only=True) as reader:
        assert fields(reader, "hnsw") == BEFORE
        with open_database(path, maintenance=False) as db:
            assert reader._backend.store is db._backend.store and db._backend.store.is_complete
            for name in NAMES:
                db.collection(name).update([1, 20], fields=[{"n": 5}, {"new": name}])
                assert fields(reader, name) == fields(db, name) == changed(name)
            db.vacuum()
            assert db.check() == []
            assert all(fields(reader, name) == fields(db, name) == changed(name) for name in NAMES)
        assert fields(reader, "auto") == changed("auto")


def test_one_of_the_tables_alone_is_as_good_as_none(path: Path) -> None:
    """A crash may come between the two."""
    with open_database(path, maintenance=False) as db:
        store = db._backend.store
        txn = store.begin_write()
        txn.drop(store.changed, delete=True)
        txn.commit()
    with open_database(path, read_only=True) as db:
        assert not db._backend.store.is_complete and fields(db, "hnsw") == BEFORE
    with open_database(path, maintenance=False) as db:
        assert db._backend.store.is_complete
        db.collection("hnsw").update([1, 20], fields=[{"n": 5}, {"new": "hnsw"}])
        assert fields(db, "hnsw") == changed("hnsw") and db.check() == []


# -- changed fields, as they were first written ------------------------------------------------------


def written() -> dict[int, dict[str, Any]]:
    """The oracle: id -> fields, after the writes that format_3.tar.gz saw, in order."""
    there: dict[int, dict[str, Any]] = {i: {"n": i, "s": f"t{i % 7}"} for i in range(200)}
    for i in range(50):
        there[i]["n"] = -i
    for i in range(40, 60):
        del there[i]["n"]
        there[i]["new"] = [i, {"x": 1.5}]
    del there[3], there[45], there[46]
    return there | {46: {"again": 1}}


def test_changed_fields_of_the_first_code_that_wrote_them(tmp_path: Path) -> None:
    with tarfile.open(Path(__file__).with_name("format_3.tar.gz")) as archive:
        archive.extractall(tmp_path / "db", filter="data")
    for read_only in (True, False):
        with open_database(tmp_path / "db", read_only=read_only, maintenance=False) as db:
            docs, there = db.collection("docs"), written()
            walked = {record.id: record.fields for batch in docs.iter() for record in batch if not record.owner}
            assert walked == there and list(walked) == list(there)
            assert docs.get(7, owner="ann").fields == {"who": "ann", "more": True}
            assert db.check() == []
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs, sequence = db.collection("docs"), db.collection("docs").stats()["sequence"]
        assert docs.update(range(50), fields=[{"n": 0}] * 50, request_id="first") == 50
        assert docs.update(range(20), fields=[{"n": 0}] * 20, request_id="second") == 20
        assert docs.stats()["sequence"] == sequence, "requests of then are not carried out again"
        docs.update([0, 59], fields=[{"n": 1}, {"n": 2}])
        db.vacuum()
        there[0]["n"], there[59]["n"] = 1, 2
        walked = {record.id: record.fields for batch in docs.iter() for record in batch if not record.owner}
        assert walked == there and list(walked) == list(there) and db.check() == []
    assert format_of(tmp_path / "db") == manifest.FIELD_CHANGES


# -- records without vectors, as they were first written ---------------------------------------------


def test_records_without_vectors_of_the_first_code_that_wrote_them(tmp_path: Path) -> None:
    vectors = np.random.default_rng(4).integers(-9, 9, size=(60, 4)).astype("float32") + 0.5
    there: dict[int, Any] = {at: None if at % 4 == 0 else vectors[at].tolist() for at in range(60)}
    there |= {0: vectors[0].tolist(), 1: None}
    del there[8], there[9]
    with tarfile.open(Path(__file__).with_name("format_4.tar.gz")) as archive:
        archive.extractall(tmp_path / "db", filter="data")
    assert format_of(tmp_path / "db") == manifest.BARE_RECORDS
    for read_only in (True, False):
        with open_database(tmp_path / "db", read_only=read_only, maintenance=False) as db:
            docs = db.collection("docs")
            walked = {one.id: one for page in docs.iter(include_vectors=True) for one in page if not one.owner}
            assert {n: None if one.vector is None else one.vector.tolist() for n, one in walked.items()} == there
            assert {n: one.fields["n"] for n, one in walked.items()} == {n: 44 if n == 4 else n for n in there}
            found = docs.search(vectors[0], 100).ids.tolist()
            assert sorted(found) == [n for n, vector in sorted(there.items()) if vector is not None]
            assert docs.count() == len(there) + 1 and docs.count(tenant="a") == 2
            assert docs.search(vectors[0], 9, tenant="a").ids.tolist() == [0] and docs.metadata == {"by": "format 4"}
            assert docs.get(5, owner="ann").fields == {"who": "ann"} and db.check() == []
            assert db.collection("open").dim == 0 and db.collection("open").get("x").fields == {"n": 1}
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs, sequence = db.collection("docs"), db.collection("docs").stats()["sequence"]
        some = [None if at % 4 == 0 else vectors[at] for at in range(60)]
        assert docs.upsert(range(60), some, [{"n": at} for at in range(60)], request_id="first") == 60
        assert docs.stats()["sequence"] == sequence, "requests of then are not carried out again"
        db.collection("open").upsert(["y"], [[1.0, 2.0]])
        db.vacuum()
        assert docs.count() == len(there) + 1 and db.collection("open").count() == 2 and db.check() == []
