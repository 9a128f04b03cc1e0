"""A search sees the access lists of one commit, whatever is granted, revoked, vacuumed or reopened beside it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.tenant_records import VECTORS, seen
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.maintenance import vacuum
from vecdb.tenancy import tenant_cache

ROOT = Path(__file__).resolve().parents[2]


# -- one commit at a time --------------------------------------------------------------------------


def test_a_search_sees_one_commit_of_a_record_that_changes_hands(db: Database) -> None:
    docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
    docs.upsert(range(64), VECTORS[:64], tenants="a")
    docs.create_tenant("b")
    stop, wrong = threading.Event(), []

    def search() -> None:
        while not stop.is_set():
            mine, both = seen(docs, "a"), seen(docs, ["a", "b"])
            if len(mine) not in (0, 64) or both != list(range(64)):
                wrong.append((len(mine), len(both)))

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(60):
            docs.upsert(range(64), VECTORS[:64], tenants="ba"[turn % 2])
            assert len(seen(docs, "ba"[turn % 2])) == 64 and seen(docs, "ab"[turn % 2]) == []
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_calls_that_share_a_commit_are_seen_as_one(shared: Any) -> None:
    """The commit thread is held until four calls wait for it."""
    committer, held, go = shared._backend.writes._committer, threading.Event(), threading.Event()

    class Hold:
        size_bytes, exclusive = 0, True

        def apply(self, group: Any) -> None:
            held.set()
            go.wait()

    assert seen(shared, "acme") == [0, 1, 2, 3, 4]
    calls: list[Callable[[], Any]] = [
        lambda: committer.submit(Hold()),
        lambda: shared.grant([8, 9], "acme"),
        lambda: shared.revoke([0, 9], "acme"),
        lambda: shared.upsert([1, 2], VECTORS[:2], tenants=[["beta"], ["acme"]]),
        lambda: shared.grant([0, 1], ["late"]),
    ]
    threads = []
    for at, call in enumerate(calls):
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        held.wait()
        while len(committer._queue) < at:
            pass
    before = shared.stats()["sequence"]
    go.set()
    for thread in threads:
        thread.join()
    assert shared.stats()["sequence"] == before + 1
    assert seen(shared, "acme") == [2, 3, 4, 8] and seen(shared, "late") == [0, 1]
    assert seen(shared, "beta") == [1, 3, 4, 5, 6, 7] and shared.check() == []


def test_an_older_snapshot_finds_the_version_before_and_no_other(shared: Any) -> None:
    cache, first = shared._backend.state.snapshot.generation.tenants, shared._backend.state.snapshot.visibility
    assert cache.rows_at(("acme",), first).rows.tolist() == [0, 1, 2, 3, 4]
    shared.revoke([0], "acme")
    second = shared._backend.state.snapshot.visibility
    assert cache.rows_at(("acme",), first).rows.tolist() == [0, 1, 2, 3, 4]
    assert cache.rows_at(("acme",), second).rows.tolist() == [1, 2, 3, 4]
    shared.grant([9], "acme")
    assert cache.rows_at(("acme",), first) is None, "two changes ago: a newer view is to be taken"
    assert cache.rows_at(("acme",), second).rows.tolist() == [1, 2, 3, 4]
    shared.upsert([100], VECTORS[:1])
    assert cache.rows_at(("acme",), shared._backend.state.snapshot.visibility).rows.tolist() == [1, 2, 3, 4, 9]
    assert cache.rows_at(("acme", "beta"), first) is None
    assert cache.rows_at(("beta",), first).rows.tolist() == [3, 4, 5, 6, 7], "loaded later, the same since then"


def test_a_union_is_kept_while_none_of_its_parts_moves(shared: Any) -> None:
    cache = shared._backend.state.snapshot.generation.tenants

    def rows() -> Any:
        return cache.rows_at(("acme", "beta"), shared._backend.state.snapshot.visibility)

    kept = rows()
    shared.upsert([50], VECTORS[:1])
    assert rows() is kept
    shared.revoke([0], "acme")
    assert rows() is not kept and rows().rows.tolist() == [1, 2, 3, 4, 5, 6, 7]


def test_the_cache_holds_to_its_bound(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
    docs.upsert(range(400), VECTORS, tenants=[[f"t{number % 50}"] for number in range(400)])
    monkeypatch.setattr(limits, "tenant_cache_bytes", 10 * tenant_cache._ENTRY_BYTES)
    monkeypatch.setattr(limits, "tenant_unions_max", 3)
    for _ in range(3):
        for number in range(50):
            assert seen(docs, f"t{number}") == list(range(number, 400, 50))
            assert seen(docs, "t7") == list(range(7, 400, 50))
            assert len(seen(docs, [f"t{number}", f"t{(number + 1) % 50}"])) == 16
            facts = docs.stats()
            assert facts["tenant_cache_bytes"] <= limits.tenant_cache_bytes and facts["tenants_cached"] < 10
        docs.upsert(range(400), VECTORS)


def test_a_bitmap_is_kept_when_asked_for_twice_and_made_anew_when_rows_pass_it() -> None:
    from vecdb.index.row_set import RowSet

    grown: list[int] = []
    allowed = RowSet(np.array([0, 63, 64, 130], np.uint32), grown.append)
    first, second = allowed.bitmap(131), allowed.bitmap(131)
    assert np.array_equal(first, second) and len(grown) == 1 and allowed.bitmap(131) is second
    assert np.flatnonzero(np.unpackbits(second.view(np.uint8), bitorder="little")).tolist() == [0, 63, 64, 130]
    for row_count in range(131, 2_000, 7):
        assert len(allowed.bitmap(row_count)) * 64 >= row_count
    assert allowed.nbytes == 16 + sum(grown)
    assert len(RowSet(np.empty(0, np.uint32)).bitmap(0)) > 0, "an empty bitmap would allow everything"


# -- files and processes ---------------------------------------------------------------------------


def test_grants_revokes_drops_and_deletes_during_a_vacuum_are_in_the_new_generation(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vacuum, "_PIECE_ROWS", 20)
    monkeypatch.setattr(limits, "block_rows_max", 10)
    docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
    names = [f"t{number}" for number in range(6)]
    model = {one: {names[one % 5], names[one % 3]} for one in range(200)}
    docs.upsert(range(200), VECTORS[:200], tenants=[sorted(model[one]) for one in range(200)])
    docs.drop_tenant("t4")
    docs.delete(range(0, 200, 3))
    model = {one: held - {"t4"} for one, held in model.items() if one % 3}
    rng = np.random.default_rng(3)

    def meanwhile(done: int, rows: int) -> None:
        if done >= rows:
            return
        for name, change, meant in (("t1", docs.grant, set.add), ("t2", docs.revoke, set.discard)):
            chosen = rng.choice(sorted(model), 20).tolist()
            change(chosen, name)
            for one in chosen:
                meant(model[one], name)
        gone = rng.choice(sorted(model), 3, replace=False).tolist()
        docs.delete(gone)
        for one in gone:
            del model[one]
        again = rng.choice(sorted(model), 3, replace=False).tolist()
        docs.upsert(again, VECTORS[again], tenants=["new"])
        model.update({one: {"new"} for one in again})
        if "t3" in docs.tenants() and done > 100:
            docs.drop_tenant("t3")
            for held in model.values():
                held.discard("t3")

    docs.vacuum(progress=meanwhile)
    assert docs.stats()["generation"] == 1 and db.check() == []
    assert "t3" not in docs.tenants()
    for name in docs.tenants():
        assert seen(docs, name) == sorted(one for one, held in model.items() if name in held), name
    assert {record.id: set(record.tenants) for part in docs.iter() for record in part} == model


def test_reopening_and_a_backup_keep_tenants_and_quotas(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.create_tenant("small", records_max=7)
        docs.upsert(
            range(400),
            VECTORS,
            tenants=[["even"] if one % 2 == 0 else ["odd", "small"][: 1 + (one < 9)] for one in range(400)],
        )
        docs.drop_tenant("odd")
        db.backup(tmp_path / "copy")
    vecdb.restore(tmp_path / "copy", tmp_path / "restored")
    for name in ("db", "restored"):
        for read_only in (True, False):
            with open_database(tmp_path / name, maintenance=False, read_only=read_only) as db:
                docs = db["docs"]
                assert list(docs.tenants()) == ["even", "small"] and docs.stats(tenant="small")["records_max"] == 7
                assert seen(docs, "even") == list(range(0, 400, 2)) and seen(docs, "small") == [1, 3, 5, 7]
                assert docs.get(1).tenants == ["small"] and db.check() == []
        with open_database(tmp_path / name, maintenance=False) as db:
            assert db["docs"].create_tenant("odd") == 1 and seen(db["docs"], "odd") == []


def test_another_process_follows_grants_revokes_and_drops(tmp_path: Path) -> None:
    """Both databases are in one process here, each with what it has loaded; tests/model reads from another one."""
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.upsert(range(10), VECTORS[:10], tenants=[["a"], ["b"]] * 5)
    script = (
        "import sys, vecdb\n"
        "docs = vecdb.open(sys.argv[1], read_only=True)['docs']\n"
        "for line in sys.stdin:\n"
        "    try:\n"
        "        hits = docs.search([0.0] * 8, 400, tenant=line.split())\n"
        "        print(sorted(hits.ids.tolist()), flush=True)\n"
        "    except vecdb.NotFound:\n"
        "        print('NotFound', flush=True)\n"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "db")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip

    def ask(names: str) -> str:
        assert reader.stdin is not None and reader.stdout is not None
        print(names, file=reader.stdin, flush=True)
        return reader.stdout.readline().strip()

    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert ask("a") == "[0, 2, 4, 6, 8]" and ask("a b") == str(list(range(10)))
        docs.revoke([0], "a")
        assert ask("a") == "[2, 4, 6, 8]" and ask("a b") == str(list(range(1, 10)))
        docs.upsert([20], VECTORS[:1])
        assert ask("a") == "[2, 4, 6, 8]"
        docs.grant([20, 1], "a")
        docs.delete([2])
        assert ask("a") == "[1, 4, 6, 8, 20]"
        docs.vacuum()
        assert ask("a") == "[1, 4, 6, 8, 20]"
        docs.drop_tenant("a")
        assert ask("a") == "NotFound"
        docs.create_tenant("a")
        assert ask("a") == "[]" and ask("b") == "[1, 3, 5, 7, 9]"
    assert reader.stdin is not None
    reader.stdin.close()
    assert reader.wait(60) == 0


def test_a_revoke_that_returned_is_there_after_a_kill(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, numpy as np, vecdb\n"
        "db = vecdb.open(sys.argv[1])\n"
        "docs = db.create_collection('docs', 8, 'l2')\n"
        "docs.upsert(range(300), np.arange(2400.0).reshape(300, 8), tenants=['a', 'b'])\n"
        "docs.revoke(range(0, 300, 2), 'a')\n"
        "docs.drop_tenant('b')\n"
        "docs.grant([5], 'c')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "db")], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL, "the kill landed"
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db["docs"]
        assert seen(docs, "a") == list(range(1, 300, 2)) and list(docs.tenants()) == ["a", "c"]
        assert seen(docs, "c") == [5] and docs.get(5).tenants == ["a", "c"] and db.check() == []
