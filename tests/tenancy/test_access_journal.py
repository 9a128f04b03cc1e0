"""Goal: what waits in the journal is seen by every read as if it were in the tables, whatever a fold has done."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vecdb
from tests.support.corpus import clustered
from vecdb import limits
from vecdb.api.database import Database
from vecdb.commit.journal_merge import merge_requests
from vecdb.commit.pending import PendingChanges
from vecdb.embedded.open import open_database
from vecdb.errors import Corruption, LimitExceeded, Locked, Unavailable
from vecdb.storage.disk import manifest
from vecdb.storage.kv import keys, record_format
from vecdb.tenancy.access_journal import NO_CHANGES, AccessDelta, AccessJournal, _last_words
from vecdb.tenancy.access_tables import AccessTables
from vecdb.tenancy.pairs import NO_PAIRS, RowTenantPairs, numbers_of, pack, rows_of

ROOT = Path(__file__).resolve().parents[2]
N = 60
VECTORS = clustered(N, 8)
NAMES = ["a", "b", "c", "d"]


def made(db: Database, kind: Any = None) -> tuple[Any, dict[int, set[str]]]:
    """Records in the tables, nothing in the journal, and the model of them."""
    docs = db.create_collection("docs", 8, "l2", kind or vecdb.Flat())
    docs.create_tenant(NAMES)
    model = {one: {NAMES[one % 2], NAMES[one % 3]} for one in range(N)}
    docs.insert(range(N), VECTORS, tenants=[sorted(model[one]) for one in range(N)])
    assert waiting(docs) == 0
    return docs, model


def waiting(docs: Any) -> int:
    """Pairs in the journal, read from the newest state."""
    with docs._backend.state.reading() as (txn, generation, state):
        return generation.journal.changes(txn, state.journal).pair_count


def agrees(docs: Any, model: dict[int, set[str]]) -> None:
    """Every way to ask who sees what."""
    assert {one.id: set(one.tenants) for part in docs.iter() for one in part} == model
    records = docs.get(range(N))
    assert [None if one is None else set(one.tenants) for one in records] == [model.get(one) for one in range(N)]
    for name in docs.tenants():
        mine = sorted(one for one, held in model.items() if name in held)
        assert sorted(docs.search(VECTORS[0], N, tenant=name).ids.tolist()) == mine, name
        assert sorted(one.id for part in docs.iter(tenant=name) for one in part) == mine, name
        assert docs.count(tenant=name) == docs.stats(tenant=name)["records"] == len(mine), name
    union = [name for name in NAMES[:2] if name in docs.tenants()]
    if union:
        assert docs.count(tenant=union) == sum(1 for held in model.values() if held & set(union))


def follows(other: AccessJournal, docs: Any) -> None:
    """What another process has read of the journal, now and then, is what this one has in memory."""
    with docs._backend.state.reading() as (txn, generation, state):
        assert told(other.changes(txn, state.journal)) == told(generation.journal.changes(txn, state.journal))


def write(docs: Any, model: dict[int, set[str]], rng: np.random.Generator) -> None:
    """One write of any kind that changes who sees what."""
    there = sorted(model)
    chosen = [int(one) for one in rng.choice(there, min(len(there), int(rng.integers(1, 9))), replace=False)]
    live = [name for name in NAMES if name in docs.tenants()]
    name, draw = str(rng.choice(live or NAMES)), rng.random()
    if draw < 0.35:
        docs.grant(chosen, name)
        for one in chosen:
            model[one].add(name)
    elif draw < 0.65 and live:
        docs.revoke(chosen, name)
        for one in chosen:
            model[one].discard(name)
    elif draw < 0.75:
        docs.delete(chosen[:3])
        for one in chosen[:3]:
            del model[one]
    elif draw < 0.85:
        chosen = rng.choice(N, 3, replace=False).tolist()
        docs.upsert(chosen, VECTORS[chosen])  # lists stay
        for one in chosen:
            model.setdefault(one, set())
    elif draw < 0.95:
        chosen = rng.choice(N, 3, replace=False).tolist()
        docs.upsert(chosen, VECTORS[chosen], tenants=[name])
        model.update({one: {name} for one in chosen})
    elif live:
        docs.drop_tenant(name)
        for held in model.values():
            held.discard(name)


# -- reads over it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("entry_pairs", [1 << 14, 5], ids=["all to the journal", "much to the tables at once"])
@pytest.mark.parametrize("seed", range(6))
def test_writes_between_any_two_steps_of_a_fold_have_the_last_word(
    db: Database, monkeypatch: pytest.MonkeyPatch, seed: int, entry_pairs: int
) -> None:
    monkeypatch.setattr(limits, "journal_entry_pairs", entry_pairs)
    monkeypatch.setattr(limits, "merge_pairs", 3)
    rng = np.random.default_rng(seed)
    docs, model = made(db)
    follower = AccessJournal(db._backend.store, docs._backend.state.snapshot.generation.prefix, "docs")
    for _ in range(6):
        for _ in range(int(rng.integers(1, 5))):
            write(docs, model, rng)
        for step in merge_requests(docs._backend.state):
            if rng.random() < 0.03:
                break  # a fold that dies; the next begins anew
            assert docs._backend.writes.submit(step)
            if rng.random() < 0.4:
                write(docs, model, rng)
            if rng.random() < 0.3:
                follows(follower, docs)
            if rng.random() < 0.2:
                assert db.check() == []
                agrees(docs, model)
        if rng.random() < 0.2:
            docs.vacuum()
            follower = AccessJournal(db._backend.store, docs._backend.state.snapshot.generation.prefix, "docs")
        assert db.check() == []
        agrees(docs, model)
    docs._backend.writes.merge_journal()
    assert waiting(docs) == 0 and db.check() == []
    agrees(docs, model)


def test_a_fold_leaves_nothing_in_the_journal_and_everything_in_the_tables(db: Database) -> None:
    docs, model = made(db)
    assert (
        docs.revoke(range(0, N, 2), "a") == 30 and docs.grant(range(5), ["d"]) == 5 and docs.delete(range(50, N)) == 10
    )
    assert waiting(docs) > 0
    docs.optimize()
    with docs._backend.state.reading() as (txn, generation, state):
        assert state.journal is None and txn.stat(docs._backend.state.store.journal)["entries"] == 0
        tables = generation.journal.tables
        assert tables.lists_of(txn, np.arange(50, N)).tolist() == []
        held = tables.rows_of(txn, 4, N).tolist()
    assert held == [0, 1, 2, 3, 4]
    for one in range(0, N, 2):
        model[one].discard("a")
    for one in range(5):
        model[one].add("d")
    agrees(docs, {one: held for one, held in model.items() if one < 50})


def test_a_view_of_before_reads_the_journal_of_before(db: Database) -> None:
    docs, _ = made(db)
    docs.grant([1], "d")
    before = docs.iter(batch=10)
    first = next(before)
    docs.revoke([1, 11], {"d", "b"})
    docs._backend.writes.merge_journal()
    docs.grant([12], "d")
    seen = {one.id: one.tenants for part in (first, *before) for one in part}
    assert seen[1] == ["b", "d"] and "b" in seen[11] and "d" not in seen[12]
    assert docs.get(1).tenants == [] and docs.get(12).tenants == ["a", "d"]


def test_a_large_tenant_is_counted_without_reading_its_rows(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("docs", 8, "l2", index=vecdb.Flat())
    docs.upsert(range(3_000), VECTORS[np.arange(3_000) % len(VECTORS)])
    docs.create_tenant("large", records_max=2_008)
    docs.grant(range(2_000), "large")
    docs._backend.writes.merge_journal()  # type: ignore[attr-defined]
    docs.revoke([0, 1, 2, 3], "large")
    docs.grant([2, 3, 2_500, 2_501, 2_502], "large")  # two of them are in the table still
    docs.delete([10])
    with monkeypatch.context() as patched:
        patched.setattr(AccessTables, "rows_of", lambda *_: pytest.fail("all rows were read"))
        assert docs.count(tenant="large") == 2_000
        docs.grant(range(2_600, 2_608), "large")
        with pytest.raises(LimitExceeded, match="would have 2,009 records, its limit is 2,008"):
            docs.grant([2_700], "large")
    assert len(docs.search(VECTORS[0], 3_000, tenant="large")) == 2_008 and db.check() == []


def test_quotas_count_what_waits(db: Database) -> None:
    docs, _ = made(db)
    docs.create_tenant("small", records_max=3)
    docs.grant([1, 2, 3], "small")
    with pytest.raises(LimitExceeded, match="small"):
        docs.grant([4], "small")
    docs.revoke([1], "small")
    docs.grant([4], "small")
    docs.delete([2])
    docs.grant([5], "small")
    with pytest.raises(LimitExceeded, match="small"):
        docs.upsert([100], VECTORS[:1], tenants="small")
    assert docs.count(tenant="small") == 3 and db.check() == []


def test_a_group_that_is_aborted_leaves_nothing_in_memory(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs, _ = made(db)
    docs.grant([7], "d")
    whole = PendingChanges.finish

    def fails(self: PendingChanges, group: Any) -> None:
        whole(self, group)
        raise ValueError("of another kind")

    monkeypatch.setattr(PendingChanges, "finish", fails)
    with pytest.raises(ValueError, match="another kind"):
        docs.grant([8, 9], "d")
    monkeypatch.setattr(PendingChanges, "finish", whole)
    docs.revoke([7], "d")  # the commit that gets the number of the one that was aborted
    assert docs.count(tenant="d") == 0 and docs.get(8).tenants == ["a", "c"] and db.check() == []


@pytest.mark.parametrize("entry_pairs", [1 << 14, 0])
def test_what_is_granted_and_dropped_in_one_commit_leaves_nothing(
    db: Database, monkeypatch: pytest.MonkeyPatch, entry_pairs: int
) -> None:
    monkeypatch.setattr(limits, "journal_entry_pairs", entry_pairs)
    docs, model = made(db)
    writes, calls = docs._backend.writes, list[Any]()

    class Together:
        size_bytes, exclusive = 0, True

        def apply(self, group: Any) -> None:
            for call in calls:
                call.apply(group)

    with monkeypatch.context() as patch:
        patch.setattr(writes, "submit", lambda call, request_id=None: calls.append(call) or 0)
        docs.grant(range(9), "d")
        docs.revoke([1, 2], "d")
        docs.delete([3])
        docs.drop_tenant("d")
    writes.submit(Together())
    del model[3]
    for _ in range(2):
        agrees(docs, model)
        assert db.check() == [] and "d" not in docs.tenants()
        writes.merge_journal()


def test_the_journal_is_bounded_with_nobody_to_look_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "journal_pairs", 20)
    monkeypatch.setattr(limits, "merge_pairs", 7)
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs, model = made(db)
        rng, most = np.random.default_rng(1), 0
        for _ in range(60):
            write(docs, model, rng)
            most = max(most, waiting(docs))
        assert 20 < most < 4 * 20 + 30
        agrees(docs, model)
        assert db.check() == []


def test_many_small_entries_are_folded_too(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "journal_entries", 5)
    docs, _ = made(db)
    for _ in range(20):
        docs.grant([1], "d")
        docs.revoke([1], "d")
        with docs._backend.state.reading() as (_, _, state):
            assert state.journal is None or state.journal.entries <= 4 * 5 + 1
    assert docs.count(tenant="d") == 0


# -- across processes ------------------------------------------------------------------------------

_KILLED = """
import itertools, os, signal, sys
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.commit.journal_merge import merge_requests
limits.merge_pairs = 4
db = open_database(sys.argv[1], maintenance=False)
docs = db["docs"]
docs.revoke(range(0, 60, 2), "a")
docs.grant(range(0, 60, 5), "d")
docs.delete([0, 3])
for step in itertools.islice(merge_requests(docs._backend.state), int(sys.argv[2])):
    docs._backend.writes.submit(step)
docs.revoke([5], "d")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("done", [0, 1, 12, 20, 33, 100])
def test_a_kill_anywhere_in_a_fold_loses_nothing(tmp_path: Path, done: int) -> None:
    path = tmp_path / "db"
    with open_database(path, maintenance=False) as db:
        _, model = made(db)
    for one in range(0, N, 2):
        model[one].discard("a")
    for one in range(0, N, 5):
        model[one].add("d")
    model[5].discard("d")
    model = {one: held for one, held in model.items() if one not in (0, 3)}
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path), str(done)], cwd=ROOT, check=False)
    assert killed.returncode == -signal.SIGKILL
    for read_only in (True, False):
        with open_database(path, maintenance=False, read_only=read_only) as db:
            agrees(db["docs"], model)
            assert db.check() == []
    with open_database(path, maintenance=False) as db:
        db["docs"]._backend.writes.merge_journal()
        db.backup(tmp_path / "copy")
        assert db.check() == []
        agrees(db["docs"], model)
    vecdb.restore(tmp_path / "copy", tmp_path / "restored")
    with open_database(tmp_path / "restored", maintenance=False) as db:
        agrees(db["docs"], model)


def test_a_database_of_the_format_before_is_upgraded_when_somebody_says_so(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with open_database(path, maintenance=False) as db:
        _, model = made(db)
        txn = db._backend.store.begin_write()
        txn.drop(db._backend.store.journal, delete=True)
        txn.commit()
    told = json.loads((path / manifest.NAME).read_text())
    (path / manifest.NAME).write_text(json.dumps(told | {"format_version": 1}))
    for read_only in (True, False):
        with pytest.raises(Unavailable, match=r"format 1.*vecdb upgrade"):
            open_database(path, read_only=read_only)
    assert vecdb.upgrade(path) and not vecdb.upgrade(path)
    assert json.loads((path / manifest.NAME).read_text()) == told
    with open_database(path, maintenance=False) as db:
        with pytest.raises(Locked):
            vecdb.upgrade(path)
        agrees(db["docs"], model)
        assert db["docs"].revoke([1], "b") == 1 and db.check() == []
    with open_database(path, read_only=True) as db:
        assert db["docs"].get(1).tenants == []


# -- damage ----------------------------------------------------------------------------------------


def hurt(docs: Any, change: Callable[[bytes], bytes | None], sequence: int) -> None:
    store, key = docs._backend.state.store, keys.row_key(docs._backend.state.snapshot.generation.prefix, sequence)
    txn = store.begin_write()
    raw = change(txn.get(key, db=store.journal))
    assert txn.delete(key, db=store.journal) if raw is None else txn.put(key, raw, db=store.journal)
    txn.commit()


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda raw: raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [*map(flipped, (0, 4, 8, 16, 24, 32, -1 % 40)), lambda raw: None, lambda raw: raw[:-8], lambda raw: raw[:9],
     lambda raw: record_format.encode_journal(1, np.array([1 << 32 | 4]), np.array([3 << 32 | 1]))],
    ids=["version", "crc", "sequence", "granted", "a pair", "another", "the last byte", "lost", "cut", "short",
         "of another commit"],
)  # fmt: skip
def test_damage_of_an_entry_is_loud_everywhere_and_found(tmp_path: Path, damage: Any) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs, _ = made(db)
        docs.revoke([1, 3], "b")
        last = db._backend._committer.sequence  # type: ignore[attr-defined]
        docs.grant([2], "d")
        hurt(docs, damage, last)
    for read_only in (True, False):
        with open_database(tmp_path / "db", maintenance=False, read_only=read_only) as db:
            docs = db["docs"]
            for ask in (
                lambda docs: docs.get(1),
                lambda docs: docs.search(VECTORS[0], 5, tenant="b"),
                lambda docs: docs.count(tenant="b"),
                lambda docs: list(docs.iter()),
                lambda docs: list(docs.iter(tenant="a")),
            ):
                with pytest.raises(Corruption, match="journal"):
                    ask(docs)
            if not read_only:
                for change in (
                    lambda docs: docs.grant([1], "b"),
                    lambda docs: docs.delete([1]),
                    lambda docs: docs.optimize(),
                ):
                    with pytest.raises(Corruption, match="journal"):
                        change(docs)
            assert any("journal" in problem for problem in db.check())
            assert len(docs.search(VECTORS[0], N)) == N


# -- what it is made of ----------------------------------------------------------------------------

facts = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5), st.booleans()), max_size=12)


def changes_of(said: list[tuple[int, int, bool]]) -> tuple[AccessDelta, dict[tuple[int, int], bool]]:
    model = {(row, number): granted for row, number, granted in said}

    def pairs(granted: bool) -> RowTenantPairs:
        chosen = [pair for pair, there in model.items() if there == granted]
        return pack(np.array([row for row, _ in chosen], np.int64), np.array([n for _, n in chosen], np.uint64))

    return AccessDelta(pairs(True), pairs(False)), model


def told(changes: AccessDelta) -> dict[tuple[int, int], bool]:
    both = ((changes.granted, True), (changes.revoked, False))
    return {
        pair: there
        for pairs, there in both
        for pair in zip(rows_of(pairs).tolist(), numbers_of(pairs).tolist(), strict=True)
    }


@given(history=st.lists(facts, max_size=5), base=facts, rows=st.sets(st.integers(0, 6)))
def test_changes_agree_with_a_dict_in_which_the_last_word_counts(history: Any, base: Any, rows: set[int]) -> None:
    changes, model = NO_CHANGES, dict[tuple[int, int], bool]()
    raw = []
    for said in history:
        later, told_later = changes_of(said)
        denied = {pair: there for pair, there in told_later.items() if model.get(pair, there) != there}
        assert told(changes.denied_by(later)) == denied
        raw.append(
            record_format.decode_journal(record_format.encode_journal(3, later.granted, later.revoked), 3, "here")
        )
        changes, model = changes.then(later), model | told_later
    assert told(changes) == told(_last_words(raw)) == model and changes.pair_count == len(model)
    table = {pair for pair, there in changes_of(base)[1].items() if there}
    asked = np.array(sorted(rows), np.int64)
    lists = changes_of([(*pair, True) for pair in table if pair[0] in rows])[0].granted
    over = changes.over(lists, asked)
    true = {pair for pair in table | model.keys() if model.get(pair, pair in table)}
    assert set(told(AccessDelta(over))) == {pair for pair in true if pair[0] in rows}
    for number in range(1, 6):
        coming, going = changes.of_tenant(number)
        assert coming.tolist() == sorted(row for (row, n), there in model.items() if n == number and there)
        assert going.tolist() == sorted(row for (row, n), there in model.items() if n == number and not there)


def test_an_empty_entry_is_one() -> None:
    assert [
        len(part) for part in record_format.decode_journal(record_format.encode_journal(1, *[NO_PAIRS] * 2), 1, "here")
    ] == [
        0,
        0,
    ]
