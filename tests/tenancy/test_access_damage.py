"""Damaged access lists: what would show a tenant more than is granted to it is loud in a search and found by check."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.tenant_records import VECTORS, seen
from vecdb import limits
from vecdb.api.database import Database
from vecdb.errors import Corruption
from vecdb.storage.kv import keys, record_format


def damage_members_added(docs: Any, put: Any, prefix: bytes) -> None:
    put("members", keys.row_key(prefix, 1), (8).to_bytes(8, "little"))


def damage_members_of_a_stranger(docs: Any, put: Any, prefix: bytes) -> None:
    put("members", keys.row_key(prefix, 9), (8).to_bytes(8, "little"))


def damage_members_beyond(docs: Any, put: Any, prefix: bytes) -> None:
    put("members", keys.row_key(prefix, 1), (10).to_bytes(8, "little"))


def damage_access_bit(docs: Any, put: Any, prefix: bytes) -> None:
    [raw] = record_format.encode_access(np.array([1], np.uint64), np.array([1]))
    put("access", keys.row_key(prefix, 0), raw[:-8] + b"\2" + raw[-7:])


def damage_access_missing(docs: Any, put: Any, prefix: bytes) -> None:
    put("access", keys.row_key(prefix, 0), None)


def damage_access_swapped(docs: Any, put: Any, prefix: bytes) -> None:
    [raw] = record_format.encode_access(np.array([2], np.uint64), np.array([1]))
    put("access", keys.row_key(prefix, 0), raw)


def damage_name_elsewhere(docs: Any, put: Any, prefix: bytes) -> None:
    put("tenants", keys.tenant_names(1) + b"acme", (2).to_bytes(8, "little"))


def damage_tenant_bit(docs: Any, put: Any, prefix: bytes) -> None:
    raw = record_format.encode_tenant(record_format.Tenant(1, 0, b"acme"))
    put("tenants", keys.row_key(keys.tenant_numbers(1), 1), raw[:-1] + b"E")


def damage_tenant_missing(docs: Any, put: Any, prefix: bytes) -> None:
    put("tenants", keys.row_key(keys.tenant_numbers(1), 1), None)


LOUD = [
    damage_members_added, damage_members_beyond, damage_access_bit, damage_access_missing, damage_access_swapped,
    damage_name_elsewhere, damage_tenant_bit, damage_tenant_missing,
]  # fmt: skip


def hurt(shared: Any, damage: Callable[[Any, Any, bytes], None]) -> None:
    state = shared._backend.state
    txn = state.store.begin_write()

    def put(name: str, key: bytes, value: bytes | None) -> None:
        database = state.store.databases[name.encode()]
        assert txn.delete(key, db=database) if value is None else txn.put(key, value, db=database)

    damage(shared, put, state.snapshot.generation.prefix)
    txn.commit()


@pytest.mark.parametrize("damage", LOUD, ids=lambda damage: damage.__name__)
def test_damage_that_would_show_a_tenant_anything_else_is_loud_and_found(
    shared: Any, db: Database, damage: Any
) -> None:
    assert db.check() == []
    hurt(shared, damage)
    with pytest.raises(Corruption):
        seen(shared, "acme")
    with pytest.raises(Corruption):
        list(shared.iter(tenant=["acme"]))
    assert db.check() != []
    assert len(shared.search(VECTORS[0], 400)) == 10 and seen(shared, "beta") == [3, 4, 5, 6, 7]


def test_rows_that_a_tenant_lost_are_found_by_check(shared: Any, db: Database) -> None:
    def lose(docs: Any, put: Any, prefix: bytes) -> None:
        put("members", keys.row_key(prefix, 1), None)

    hurt(shared, lose)
    assert any("row 0 has tenant 1, which does not have the row" in problem for problem in db.check())


def test_rows_of_a_tenant_that_is_not_there_are_found_by_check(shared: Any, db: Database) -> None:
    hurt(shared, damage_members_of_a_stranger)
    assert any("tenant 9 has rows, and does not exist" in problem for problem in db.check())


def test_a_list_of_a_dead_row_is_found_by_check(shared: Any, db: Database) -> None:
    shared.delete([0])
    shared._backend.writes.merge_journal()
    [raw] = record_format.encode_access(np.array([1], np.uint64), np.array([1]))
    hurt(shared, lambda docs, put, prefix: put("access", keys.row_key(prefix, 0), raw))
    assert any("dead or not there" in problem for problem in db.check())


def test_check_goes_on_past_a_tenant_whose_rows_are_damaged(shared: Any, db: Database) -> None:
    hurt(shared, damage_members_beyond)
    hurt(shared, damage_members_of_a_stranger)
    found = db.check()
    assert any("tenant 1 has row 10" in problem for problem in found), found
    assert any("tenant 9 has rows, and does not exist" in problem for problem in found), found


def test_check_takes_few_bytes_for_a_pair_of_record_and_tenant(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("wide", 8, "l2", index=vecdb.Flat())
    docs.upsert(range(600), VECTORS[np.arange(600) % len(VECTORS)], tenants=[f"tenant {i}" for i in range(256)])
    docs.revoke(range(0, 600, 7), "tenant 3")
    assert db.check() == []
    monkeypatch.setattr(limits, "block_rows_max", 32)  # lists are read in as many pieces as those of a large collection
    tracemalloc.start()
    try:
        assert docs.check() == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 * 600 * 256
