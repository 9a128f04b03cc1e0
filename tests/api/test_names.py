"""Collections are renamed and have aliases, the same whichever way the database is opened; beside a dict of names."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.embedded.open import open_database

DIM = 3


def made(db: Any, name: str, count: int = 1) -> Any:
    docs = db.create_collection(name, DIM, "l2")
    docs.upsert(range(count), np.arange(count * DIM).reshape(count, DIM))
    return docs


def test_a_renamed_collection_is_the_same_one(db: Any) -> None:
    docs = made(db, "old", 5)
    docs.create_tenant("t")
    db.set_alias("short", "old")
    db.rename_collection("old", "new")
    assert db.collections() == ["new"] and db.aliases() == {"short": "new"}
    found = db.collection("new")
    assert (found.name, found.config.name, found.stats()["name"], found.count()) == ("new", "new", "new", 5)
    with pytest.raises(vecdb.NotFound, match="collection 'new' has no tenant 'nobody'"):
        found.search([0.0] * DIM, tenant="nobody")
    with pytest.raises(vecdb.NotFound, match="no collection 'old'"):
        db.collection("old")
    made(db, "old", 2)  # the name is free
    assert (db.collection("old").count(), db.collection("new").count(), db.check()) == (2, 5, [])


def test_an_alias_is_switched_and_opens_what_it_stands_for(db: Any) -> None:
    made(db, "v1", 1), made(db, "v2", 2)
    db.set_alias("docs", "v1")
    first = db.collection("docs")
    assert (first.name, first.config.name, first.count()) == ("docs", "v1", 1)
    assert first.upsert(7, [1.0] * DIM) == 1 and db.collection("v1").count() == 2
    db.set_alias("docs", "v2")
    assert db.collection("docs").config.name == "v2" and db.aliases() == {"docs": "v2"}
    assert db.create_collection("docs", DIM, "l2", exist_ok=True).config.name == "v2"
    assert db.collections() == ["v1", "v2"]
    db.set_alias("more", "docs")
    assert db.aliases() == {"docs": "v2", "more": "v2"}
    db.drop_alias("more")
    db.drop_collection("v2")
    assert db.aliases() == {}, "an alias goes with its collection"
    with pytest.raises(vecdb.NotFound):
        db.collection("docs")


def test_names_that_are_taken_or_not_there_are_refused_and_nothing_changes(db: Any) -> None:
    made(db, "a"), made(db, "b")
    db.set_alias("x", "a")
    for call, error, words in (
        (lambda: db.rename_collection("a", "b"), vecdb.AlreadyExists, "collection 'b' exists"),
        (lambda: db.rename_collection("a", "x"), vecdb.AlreadyExists, "'x' is an alias of collection 'a'"),
        (lambda: db.rename_collection("x", "c"), vecdb.InvalidArgument, "is an alias of collection 'a'"),
        (lambda: db.rename_collection("none", "c"), vecdb.NotFound, "no collection 'none'"),
        (lambda: db.set_alias("b", "a"), vecdb.AlreadyExists, "collection 'b' exists"),
        (lambda: db.set_alias("y", "none"), vecdb.NotFound, "no collection 'none'"),
        (lambda: db.set_alias("a/b", "a"), vecdb.InvalidArgument, "not allowed"),
        (lambda: db.drop_alias("none"), vecdb.NotFound, "no alias 'none'"),
        (lambda: db.drop_alias("a"), vecdb.NotFound, "no alias 'a'"),
        (lambda: db.drop_collection("x"), vecdb.InvalidArgument, "to drop that, name it so"),
        (lambda: db.create_collection("x", DIM, "l2"), vecdb.AlreadyExists, "exists"),
        (lambda: db.create_collection("x", DIM + 1, "l2", exist_ok=True), vecdb.AlreadyExists, "dim 3"),
    ):
        with pytest.raises(error, match=words):
            call()
    assert (db.collections(), db.aliases(), db.check()) == (["a", "b"], {"x": "a"}, [])
    db.rename_collection("a", "a")


def test_the_alias_of_a_dropped_collection_is_a_free_name(db: Any) -> None:
    made(db, "v1", 2)
    db.set_alias("docs", "v1")
    assert db.collection("docs").count() == 2
    db.drop_collection("v1")
    assert made(db, "docs", 3).count() == db.collection("docs").count() == 3


def test_a_server_is_asked_by_the_alias_so_that_what_is_open_follows_a_switch(db: Any, way: str) -> None:
    made(db, "v1", 1), made(db, "v2", 2)
    db.set_alias("docs", "v1")
    docs = db.collection("docs")
    query = [0.0] * DIM
    assert [len(docs.search(query)) for _ in range(3)] == [1, 1, 1]  # the server keeps what it has read
    db.set_alias("docs", "v2")
    followed = 1 if way in ("disk", "memory", "threads") else 2
    assert [len(docs.search(query)) for _ in range(3)] == [followed] * 3
    assert len(next(iter(docs.search_stream([query])))) == followed


def test_an_open_embedded_collection_goes_on_under_its_new_name(db: Any, way: str) -> None:
    docs = made(db, "old", 3)
    db.rename_collection("old", "new")
    if way not in ("disk", "memory", "threads"):
        with pytest.raises(vecdb.NotFound, match="no collection 'old'"):
            docs.count()
    else:
        assert docs.upsert(9, [0.0] * DIM) == 1 and docs.config.name == "new" and db.collection("new").count() == 4


def test_names_outlive_the_process_and_are_seen_by_readers(tmp_path: Path) -> None:
    with open_database(tmp_path / "db") as db:
        made(db, "v1", 1), made(db, "v2", 2)
        db.set_alias("docs", "v1")
        with open_database(tmp_path / "db", read_only=True) as reader:
            docs = reader.collection("docs")
            db.rename_collection("v1", "first")
            assert (docs.count(), reader.collection("first").config.name, docs.config.name) == (1, "first", "first")
            with pytest.raises(vecdb.NotFound):
                reader.collection("v1")
            db.set_alias("docs", "v2")
            assert reader.collection("docs").count() == 2 and reader.aliases() == {"docs": "v2"}
        db.backup(tmp_path / "copy")
    vecdb.restore(tmp_path / "copy", tmp_path / "restored")
    for place in ("db", "restored"):
        with open_database(tmp_path / place) as db:
            assert (db.collections(), db.aliases(), db.check()) == (["first", "v2"], {"docs": "v2"}, [])
            assert db.collection("docs").count() == 2


def test_names_are_those_of_a_dict(tmp_path: Path) -> None:
    rng, names = random.Random(3), ["a", "b", "c", "d"]
    uids: dict[str, int] = {}
    known: dict[str, str] = {}
    with open_database(tmp_path / "db", durability="relaxed", maintenance=False) as db:
        for step in range(300):
            one, other = rng.choice(names), rng.choice(names)
            match rng.choice(["create", "rename", "alias", "unalias", "drop"]):
                case "create" if one not in uids and one not in known:
                    db.create_collection(one, DIM).upsert(0, [float(step + 1)] * DIM, {"step": step})
                    uids[one] = step
                case "rename" if one in uids and other not in uids and other not in known:
                    db.rename_collection(one, other)
                    uids[other] = uids.pop(one)
                    known = {alias: other if name == one else name for alias, name in known.items()}
                case "alias" if one in uids and other not in uids:
                    db.set_alias(other, one)
                    known[other] = one
                case "unalias" if one in known:
                    db.drop_alias(one)
                    del known[one]
                case "drop" if one in uids:
                    db.drop_collection(one)
                    del uids[one]
                    known = {alias: name for alias, name in known.items() if name != one}
            assert (db.collections(), db.aliases()) == (sorted(uids), dict(sorted(known.items())))
            for name in names:
                if name in uids or name in known:
                    assert db.collection(name).get(0).fields == {"step": uids[known.get(name, name)]}
        assert db.check() == []
