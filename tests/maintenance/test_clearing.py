"""Goal: a clear removes all records in one commit and keeps what the collection is; searches that began before go on,
other processes follow, and nothing of the old records is left on disk. Beside a dict, over every kind of index.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.commit.committer import CommitGroup
from vecdb.embedded.open import open_database
from vecdb.errors import NotFound, Unavailable
from vecdb.maintenance import clearing
from vecdb.storage.disk.row_file import Rows
from vecdb.storage.kv import keys

KINDS = [None, vecdb.Flat(), vecdb.Hnsw(m=8), vecdb.Spann(), vecdb.Curator()]
RNG = np.random.default_rng(2)
VECTORS = RNG.normal(size=(300, 8)).astype(np.float32)


def check_against(docs: Any, twin: dict[int, Any]) -> None:
    assert docs.count() == len(docs) == len(twin)
    assert {one.id: one.fields for page in docs.iter() for one in page} == twin
    hits = docs.search(VECTORS[0], 10)
    assert len(hits.ids) == min(10, len(twin)) and set(hits.ids.tolist()) <= set(twin)
    assert docs.count(filter="n >= 100") == sum(one["n"] >= 100 for one in twin.values())
    assert docs.check() == []


@pytest.mark.parametrize("index", KINDS, ids=str)
def test_a_clear_beside_a_dict(tmp_path: Path, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vecdb.limits, "flat_rows_max", 100)
    path = tmp_path / "db"
    with open_database(path, durability="relaxed", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2", index)
        assert docs.clear() == 0
        for first in (0, 150):
            ids = range(first, first + 150)
            twin: dict[int, Any] = {n: {"n": n} for n in ids}
            docs.upsert(ids, VECTORS[ids.start : ids.stop], list(twin.values()), tenants="t")
            docs.update(first, fields={"n": -1})
            twin[first] = {"n": -1}
            docs.delete([first + 1])
            twin.pop(first + 1)
            docs.optimize()
            check_against(docs, twin)
            assert docs.count(tenant="t") == 149
            with open_database(path, read_only=True) as reader:
                seen = reader["docs"]
                assert seen.count() == 149
                assert docs.clear() == 149
                check_against(seen, {})
            check_against(docs, {})
            assert (docs.count(tenant="t"), list(docs.tenants())) == (0, ["t"])
            assert docs.stats()["rows"] == 0 and docs.config.index == index and docs.config.id_kind == "int"
            assert docs.add(VECTORS[:2], [{"n": 1}, {"n": 2}]) == [0, 1]
            check_against(docs, {0: {"n": 1}, 1: {"n": 2}})
            assert docs.clear() == 2 and docs.clear() == 0
    with open_database(path) as db:
        docs = db["docs"]
        check_against(docs, {})
        docs.upsert(range(300), VECTORS, [{"n": n} for n in range(300)])
        docs.optimize()
        check_against(docs, {n: {"n": n} for n in range(300)})


def test_nothing_of_the_old_records_is_left(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2")
        other = db.create_collection("other", 8, "l2")
        for one in (docs, other):
            one.upsert(range(300), VECTORS, [{"n": n} for n in range(300)], tenants="t")
        backend: Any = docs._backend  # type: ignore[attr-defined]
        state, before = backend.state, backend.state.snapshot.generation.prefix
        docs.clear()
        with state.store.read() as txn:
            for name in keys.BY_GENERATION:
                cursor = txn.cursor(db=state.store.databases[name])
                assert not (cursor.set_range(before) and bytes(cursor.key()).startswith(before)), name
        assert len(list(state.folder.glob("rows.*"))) == 1
        assert other.count() == 300 and other.check() == []


def test_a_search_that_began_before_goes_on(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(range(300), VECTORS)
        pages = docs.iter(100)
        assert len(next(pages)) == 100
        docs.clear()
        assert [len(page) for page in pages] == [100, 100]
        assert docs.count() == 0


def test_a_clear_that_is_repeated_removes_nothing_more(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(range(300), VECTORS)
        assert docs.clear(request_id="r") == 300
        docs.upsert(range(7), VECTORS[:7])
        assert docs.clear(request_id="r") == 300 and docs.count() == 7
        assert docs.check() == [] and db.check() == []
        docs.upsert(range(9), VECTORS[:9])
        docs.vacuum()
        assert docs.count() == 9 and docs.check() == []


def test_who_only_reads_clears_nothing_and_a_tuned_width_stays(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2", vecdb.Hnsw())
        docs.upsert(range(300), VECTORS)
        docs.optimize()
        docs.tune(VECTORS[:20])
        width = docs.stats()["tuned_ef"]
        with open_database(tmp_path / "db", read_only=True) as reader, pytest.raises(Unavailable, match="reading only"):
            reader["docs"].clear()
        docs.clear()
        assert docs.stats()["tuned_ef"] == width
        db.drop_collection("docs")
        with pytest.raises(NotFound):
            docs.clear()


@pytest.mark.parametrize("failing", ["row file", "folder", "commit"])
def test_a_clear_that_fails_changes_nothing(tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space left")

    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2")
        twin: dict[int, Any] = {n: {"n": n} for n in range(300)}
        docs.upsert(range(300), VECTORS, list(twin.values()))
        with monkeypatch.context() as patch:
            if failing == "row file":
                patch.setattr(Rows, "create", fail)
            elif failing == "folder":
                patch.setattr(clearing.filesystem, "sync_dir", fail)
            else:
                patch.setattr(CommitGroup, "finish", fail)
            with pytest.raises(Unavailable):
                docs.clear()
        check_against(docs, twin)
        docs.delete([5])
        twin.pop(5)
        docs.vacuum()  # makes a generation of the number that failed
        check_against(docs, twin)
        assert docs.clear() == 299
        check_against(docs, {})
    with open_database(tmp_path / "db") as db:
        check_against(db["docs"], {})
