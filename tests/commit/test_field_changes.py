"""Goal: a change of fields alone takes no row: the record stays where it is, and every reader sees its new fields."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT
from tests.support.threads import together
from vecdb import limits
from vecdb.commit.committer import CommitGroup
from vecdb.embedded.open import open_database
from vecdb.errors import Corruption, LimitExceeded, Unavailable, VecdbError
from vecdb.filters.expression import F
from vecdb.storage.disk import manifest
from vecdb.storage.kv import keys

VECTORS = np.random.default_rng(3).normal(size=(4_000, 8)).astype(np.float32)


def made(db: Any, n: int = 300, index: Any = None, **more: Any) -> tuple[Any, dict[int, dict[str, Any]]]:
    """(collection, its model: id -> fields)."""
    docs = db.create_collection("docs", 8, "l2", index, **more)
    fields = [{"n": i, "s": f"text {i}"} for i in range(n)]
    docs.upsert(range(n), VECTORS[:n], fields)
    return docs, dict(enumerate(fields))


def update(docs: Any, model: dict[int, dict[str, Any]], ids: Any, changes: list[dict[str, Any]]) -> None:
    assert docs.update(ids, fields=changes) == len(changes)
    for one, change in zip(ids, changes, strict=True):
        merged = {**model[one], **change}
        model[one] = {name: value for name, value in merged.items() if value is not None}


def agrees(docs: Any, model: dict[int, dict[str, Any]]) -> None:
    """By get, by iter and by search, the order of iter that of the model's keys."""
    assert [one and one.fields for one in docs.get(list(model))] == list(model.values())
    walked = [record for batch in docs.iter(64) for record in batch]
    assert [record.id for record in walked] == list(model)
    assert [record.fields for record in walked] == list(model.values())
    hits = docs.search(VECTORS[:3], 50, params=EXACT)
    for ids, fields in zip(hits.ids.tolist(), hits.fields, strict=True):
        assert fields == [model[one] for one in ids]


def changes_of(docs: Any) -> Any:
    return docs._backend.state.snapshot.state.field_changes


def format_of(path: Path) -> int:
    return int(json.loads((path / manifest.NAME).read_text())["format_version"])


class Together:
    """Requests that share one commit, whatever else is queued. errors : what they raised."""

    size_bytes = 0
    exclusive = True

    def __init__(self, requests: list[Any]) -> None:
        self.requests = requests
        self.errors: list[VecdbError] = []

    def apply(self, group: CommitGroup) -> None:
        for request in self.requests:
            try:
                request.apply(group)
            except VecdbError as error:
                self.errors.append(error)


def in_one_commit(docs: Any, *calls: Callable[[], Any]) -> list[VecdbError]:
    writes, requests = docs._backend.writes, []
    writes.submit = lambda request: requests.append(request) or 0
    try:
        for call in calls:
            call()
    finally:
        del writes.submit
    together = Together(requests)
    writes.submit(together)
    return together.errors


@pytest.mark.parametrize("index", [vecdb.Flat(), vecdb.Hnsw(m=4, ef_construction=24)], ids=["flat", "hnsw"])
def test_a_thousand_updates_take_no_row_and_leave_the_graph_as_it_is(tmp_path: Path, index: Any) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs, model = made(db, 3_000, index)
        docs.optimize()
        before, answers = docs.stats(), docs.search(VECTORS[:20], 10)
        for start in (0, 500, 1_000):
            ids = np.random.default_rng(start).permutation(3_000)[:1_000].tolist()
            update(docs, model, ids, [{"n": -one, "new": start} for one in ids])
        after = docs.stats()
        same = ("rows", "live", "deleted", "indexed_rows", "tail_rows", "sealed_rows", "index_stats", "generation")
        assert {name: after[name] for name in same} == {name: before[name] for name in same}
        assert after["sequence"] == before["sequence"] + 3
        now = docs.search(VECTORS[:20], 10)
        assert np.array_equal(now.ids, answers.ids) and np.array_equal(now.distances, answers.distances)
        agrees(docs, model)
        assert db.check() == []
    with open_database(tmp_path / "db", maintenance=False) as db:
        agrees(db["docs"], model)
        assert db["docs"].stats()["sealed_rows"] == before["sealed_rows"] and db.check() == []
    with open_database(tmp_path / "db", read_only=True) as db:
        agrees(db["docs"], model)


def test_fields_that_a_collection_never_had(db: Any) -> None:
    docs = db.create_collection("docs", 8, "l2")
    docs.upsert(range(5), VECTORS[:5])
    assert docs.update([3], fields=[{"a": [1, {"b": None}]}]) == 1
    assert [one.fields for one in docs.get(range(5))] == [{}, {}, {}, {"a": [1, {"b": None}]}, {}]
    assert docs.search(VECTORS[3], 1).fields == [{"a": [1, {"b": None}]}]


def test_owners_keep_their_records_and_their_fields(db: Any) -> None:
    docs = db.create_collection("docs", 8, "l2")
    for owner in ("", "ann", "bob"):
        docs.upsert([1, 2], VECTORS[:2], [{"who": owner}] * 2, owner=owner)
    docs.update([2], fields=[{"x": 1}], owner="ann")
    docs.update([2], fields=[{"who": None}], owner="")
    assert docs.get(2, owner="ann").fields == {"who": "ann", "x": 1} and docs.get(2).fields == {}
    assert docs.get(2, owner="bob").fields == {"who": "bob"} and docs.get(1, owner="ann").fields == {"who": "ann"}
    db.vacuum()
    assert docs.get(2, owner="ann").fields == {"who": "ann", "x": 1} and docs.get(2).fields == {}
    assert sorted(record.owner for batch in docs.iter() for record in batch) == ["", "", "ann", "ann", "bob", "bob"]


def test_writes_over_changed_records(db: Any) -> None:
    docs, model = made(db)
    update(docs, model, range(0, 300, 3), [{"n": None}] * 100)
    docs.delete(range(30))
    docs.upsert([33, 400], VECTORS[:2], [{"z": 1}, {"z": 2}])
    docs.update([36], VECTORS[5:6])
    docs.update([39], VECTORS[6:7], [{"n": 7}])
    for one in range(30):
        del model[one]
    for one, fields in ((33, {"z": 1}), (400, {"z": 2}), (36, model[36]), (39, {**model[39], "n": 7})):
        model.pop(one, None)
        model[one] = fields  # written last, so last in order
    agrees(docs, model)
    assert db.check() == []
    update(docs, model, [33, 36, 39, 42], [{"again": 1}] * 4)
    agrees(docs, model)
    db.vacuum()
    agrees(docs, model)
    assert db.check() == []


def test_requests_of_one_commit_see_one_another(db: Any) -> None:
    docs, model = made(db)
    rows = docs.stats()["rows"]
    errors = in_one_commit(
        docs,
        lambda: docs.update([7, 8], fields=[{"a": 1}] * 2),
        lambda: docs.upsert([500, 501], VECTORS[:2], [{"n": 500}, {}]),
        lambda: docs.upsert([600], VECTORS[2:3]),
        lambda: docs.update([7, 500, 501, 600], fields=[{"b": 2}, {"n": None}, {"c": 3}, {"d": 4}]),
        lambda: docs.update([1, 999], fields=[{"lost": 1}] * 2),
        lambda: docs.update([600], VECTORS[3:4], [{"e": 5}]),
        lambda: docs.update([8], fields=[{"a": None}]),
        lambda: docs.delete([9]),
    )
    assert [error.code for error in errors] == ["NOT_FOUND"]
    model[7] |= {"a": 1, "b": 2}
    del model[9]
    model |= {500: {}, 501: {"c": 3}, 600: {"d": 4, "e": 5}}
    agrees(docs, model)
    assert changes_of(docs).rows == 2 and docs.stats()["rows"] == rows + 4
    assert db.check() == []


def test_what_must_be_refused_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with open_database(path, maintenance=False) as db:
        docs, model = made(db)
        half = "x" * (limits.fields_bytes_max * 2 // 3)
        docs.upsert([0], VECTORS[:1], [{"big": half}])
        model.pop(0)
        model[0] = {"big": half}
        sequence = docs.stats()["sequence"]
        with pytest.raises(LimitExceeded, match="remove some with None"):
            docs.update([1, 0], fields=[{"n": 1}, {"more": half}])
        with pytest.raises(vecdb.NotFound):
            docs.update([1, 999], fields=[{"n": 1}] * 2)
        assert docs.stats()["sequence"] == sequence and format_of(path) == manifest.FORMAT_VERSION
        agrees(docs, model)


def test_the_first_change_raises_the_format_before_it_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with open_database(path, maintenance=False) as db:
        docs, model = made(db)
        docs.update([2], VECTORS[:1], [{"n": 1}])  # writes a row
        model.pop(2)
        model[2] = {"n": 1, "s": "text 2"}
        assert format_of(path) == manifest.FORMAT_VERSION and changes_of(docs) is None
        update(docs, model, [3], [{"n": 2}])
        assert format_of(path) == manifest.FIELD_CHANGES
        db.backup(tmp_path / "copy")
        assert format_of(tmp_path / "copy") == manifest.FIELD_CHANGES
        db.vacuum()
        assert format_of(path) == manifest.FIELD_CHANGES and changes_of(docs) is None
        update(docs, model, [3], [{"n": 4}])
        agrees(docs, model)
    vecdb.restore(tmp_path / "copy", tmp_path / "restored")
    with open_database(tmp_path / "restored", maintenance=False) as db:
        agrees(db["docs"], model | {3: {"n": 2, "s": "text 3"}})
        assert db.check() == [] and not vecdb.upgrade(tmp_path / "copy")


def test_a_backup_that_a_reading_process_makes_has_the_format_of_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with open_database(path, maintenance=False) as db, open_database(path, read_only=True) as reader:
        docs, model = made(db)
        update(docs, model, [3], [{"n": 2}])
        reader.backup(tmp_path / "copy")
    assert format_of(tmp_path / "copy") == manifest.FIELD_CHANGES


def test_a_full_disk_refuses_the_first_change_and_nothing_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs, model = made(db)

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(manifest, "write", full)
            with pytest.raises(Unavailable, match="no space left"):
                docs.update([1], fields=[{"n": 0}])
        agrees(docs, model)
        update(docs, model, [1], [{"n": 0}])
        agrees(docs, model)


# -- vacuum ----------------------------------------------------------------------------------------


def test_a_vacuum_puts_changes_into_the_blocks(db: Any) -> None:
    docs, model = made(db)
    update(docs, model, range(100), [{"n": None, "m": one} for one in range(100)])
    docs.delete(range(50, 150))
    for one in range(50, 150):
        del model[one]
    assert changes_of(docs).rows == 100
    db.vacuum()
    assert changes_of(docs) is None
    agrees(docs, model)
    store = docs._backend.state.store
    with store.read() as txn:
        assert [txn.stat(table)["entries"] for table in (store.changes, store.changed)] == [0, 0]
    assert db.check() == []


def test_changes_that_come_while_a_vacuum_copies_are_kept(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vecdb.maintenance import vacuum

    monkeypatch.setattr(vacuum, "_PIECE_ROWS", 32)
    monkeypatch.setattr(limits, "block_rows_max", 16)
    docs, model = made(db)
    update(docs, model, range(0, 300, 2), [{"before": one} for one in range(150)])
    copying, rng = vacuum.CopyRows.apply, np.random.default_rng(1)
    rounds = []

    def between(self: Any, group: Any) -> bool:
        done = copying(self, group)
        live = list(model)
        picked = rng.permutation(live)[:20].tolist()
        rounds.append((picked, [live[1], live[-1]]))
        return done

    def submit(request: Any) -> Any:
        result = honest(request)
        while rounds:
            picked, dead = rounds.pop()
            update(docs, model, picked, [{"during": len(model), "n": None}] * len(picked))
            docs.delete(dead)
            for one in dead:
                del model[one]
            docs.upsert([1_000 + len(model)], VECTORS[:1], [{"late": 1}])
            model[1_000 + len(model)] = {"late": 1}
            update(docs, model, [next(reversed(model))], [{"later": 2}])
        return result

    honest = docs._backend.writes.submit
    monkeypatch.setattr(vacuum.CopyRows, "apply", between)
    monkeypatch.setattr(docs._backend.writes, "submit", submit)
    db.vacuum()
    monkeypatch.undo()
    assert 0 < changes_of(docs).rows < 300 and docs.stats()["generation"] == 1
    agrees(docs, model)
    assert db.check() == []
    db.vacuum()
    assert changes_of(docs) is None
    agrees(docs, model)


# -- filters ---------------------------------------------------------------------------------------


def test_filters_meet_the_fields_of_each_commit(tmp_path: Path) -> None:
    """Columns follow changes in the writing process and in a reading handle; one that begins late reads them all."""
    rng = np.random.default_rng(4)
    path = tmp_path / "db"

    def matching(docs: Any, value: int) -> list[int]:
        snapshot, rows = docs._backend.searcher.rows_for((), F.n == value)
        return sorted(snapshot.generation.ids.take(rows.rows.astype(np.int64), padded=False).tolist())

    with open_database(path, maintenance=False) as db, open_database(path, read_only=True) as reader:
        docs, model = made(db)
        for step in range(30):
            live = list(model)
            picked = rng.permutation(live)[:20].tolist()
            update(docs, model, picked, [{"n": int(rng.integers(5)), "step": step} for _ in picked])
            if step % 4 == 1:
                docs.upsert([live[3], 1_000 + step], VECTORS[:2], [{"n": 1}, {"n": 2}])
                del model[live[3]]
                model |= {live[3]: {"n": 1}, 1_000 + step: {"n": 2}}
                docs.delete([live[5]])
                del model[live[5]]
            if step in (12, 25):
                db.vacuum()
            for value in range(5):
                wanted = sorted(one for one, fields in model.items() if fields["n"] == value)
                assert matching(docs, value) == matching(reader["docs"], value) == wanted
    with open_database(path, read_only=True) as late:
        for value in range(5):
            assert matching(late["docs"], value) == sorted(one for one, f in model.items() if f["n"] == value)


# -- damage ----------------------------------------------------------------------------------------


def hurt(docs: Any, table: str, number: int, change: Callable[[bytes], bytes | None]) -> None:
    state = docs._backend.state
    database, key = getattr(state.store, table), keys.row_key(state.snapshot.generation.prefix, number)
    txn = state.store.begin_write()
    raw = change(txn.get(key, db=database))
    assert txn.delete(key, db=database) if raw is None else txn.put(key, raw, db=database)
    txn.commit()


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw[:5], lambda raw: raw[:-1] + b"\0"])
def test_damaged_fields_are_loud_and_found(db: Any, change: Any) -> None:
    docs, model = made(db)
    update(docs, model, [5, 6], [{"n": "five"}, {"n": "six!"}])
    hurt(docs, "changes", 5, change)
    for ask in (lambda: docs.get(5), lambda: docs.search(VECTORS[5], 1), lambda: docs.update([5], fields=[{"a": 1}])):
        with pytest.raises(Corruption, match="row 5"):
            ask()
    assert docs.get(6).fields == model[6]
    assert any("row 5" in problem for problem in db.check())


def test_fields_of_another_record_are_loud(db: Any) -> None:
    docs, model = made(db)
    update(docs, model, [5, 6], [{"n": "five"}, {"n": "six!"}])
    state = docs._backend.state
    with state.store.read() as txn:
        other = txn.get(keys.row_key(state.snapshot.generation.prefix, 6), db=state.store.changes)
    hurt(docs, "changes", 5, lambda _: other)
    with pytest.raises(Corruption, match="row 5"):
        docs.get(5)


def test_what_no_read_can_notice_is_found_by_check(db: Any) -> None:
    docs, model = made(db)
    update(docs, model, [5, 6], [{"n": "five"}, {"n": "six!"}])
    sequence = docs.stats()["sequence"]
    assert db.check() == []
    hurt(docs, "changes", 5, lambda _: None)
    assert any("the state counts" in problem for problem in db.check())
    update(docs, model, [5], [{"n": 7}])
    hurt(docs, "changed", sequence, lambda _: None)
    assert any("the state counts" in problem for problem in db.check())


# -- several at once ---------------------------------------------------------------------------------


def test_no_update_of_several_threads_is_lost_while_vacuums_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thread has a field of its own on records that all share; a reader sees each count only go up."""
    from vecdb.maintenance import vacuum

    monkeypatch.setattr(vacuum, "_PIECE_ROWS", 16)
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        docs, model = made(db, 60)
        last: list[dict[int, int]] = [{} for _ in range(3)]
        done, vacuumed = threading.Event(), list[int]()

        def write(thread: int) -> None:
            rng = np.random.default_rng(thread)
            for count in range(1, 2_000):
                if count > 35 and len(vacuumed) > 2:
                    return
                picked = rng.permutation(60)[: rng.integers(1, 20)].tolist()
                docs.update(picked, fields=[{f"t{thread}": count}] * len(picked))
                last[thread] |= dict.fromkeys(picked, count)

        def writers() -> None:
            try:
                together(*(lambda thread=thread: write(thread) for thread in range(3)))
            finally:
                done.set()

        def vacuums() -> None:
            while not done.is_set():
                db.vacuum()
                vacuumed.append(docs.stats()["generation"])

        def read() -> None:
            before: dict[int, dict[str, Any]] = {}
            with open_database(tmp_path / "db", read_only=True) as reader:
                while not done.is_set():
                    for hits in (reader["docs"].search(VECTORS[:1], 60, params=EXACT),):
                        now = dict(zip(hits.ids[0].tolist(), hits.fields[0], strict=True))
                    walked = {record.id: record.fields for batch in reader["docs"].iter() for record in batch}
                    for seen in (now, walked):
                        assert len(seen) == 60
                        for one, fields in seen.items():
                            assert all(
                                fields.get(name, 0) >= value
                                for name, value in before.get(one, {}).items()
                                if name[0] == "t"
                            )
                        before = seen

        together(writers, vacuums, read)
        for thread, counts in enumerate(last):
            for one, count in counts.items():
                model[one][f"t{thread}"] = count
        agrees(docs, model)
        assert db.check() == [] and docs.stats()["generation"] > 1
