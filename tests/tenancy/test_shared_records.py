"""Records that one tenant owns and others see: they count for the owner's quota, and who sees them may leave. Oracle: a
dict of owner and tenants of each record, kept beside it through random changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.tenant_records import VECTORS, seen
from vecdb.api.database import Database
from vecdb.errors import InvalidArgument, LimitExceeded, NotFound


@pytest.fixture
def docs(db: Database) -> Any:
    """giver owns 0 to 9 and shares them with small, which may have three records; 100 is nobody's own, and small's."""
    made = db.create_collection("docs", 8, "l2")
    made.create_tenant("small", records_max=3)
    made.upsert(range(10), VECTORS[:10], tenants={"giver", "small"}, owner="giver")
    made.upsert([100], VECTORS[:1], tenants=["small"])
    return made


def facts(docs: Any, name: str) -> tuple[int, int]:
    found = docs.stats(tenant=name)
    return found["records"], found["records_shared"]


def test_what_others_share_does_not_fill_a_quota(docs: Any) -> None:
    assert facts(docs, "small") == (11, 10) and facts(docs, "giver") == (10, 0)
    docs.upsert([101, 102], VECTORS[:2], tenants={"small", "x"}, owner="small")
    for more in (
        lambda: docs.upsert([103], VECTORS[:1], tenants=["small"]),
        lambda: docs.upsert([103], VECTORS[:1], tenants=["small"], owner="small"),
    ):
        with pytest.raises(LimitExceeded, match="tenant 'small' would have 4 records, its limit is 3"):
            more()
    docs.upsert([10], VECTORS[:1], tenants={"giver", "small"}, owner="giver")
    assert docs.grant([101], "giver", owner="small") == 1
    assert facts(docs, "small") == (14, 11) and facts(docs, "giver") == (12, 1)


def test_the_givers_own_quota_counts_what_it_shares(docs: Any) -> None:
    docs.create_tenant("giver", records_max=10, exist_ok=True)
    with pytest.raises(LimitExceeded, match="tenant 'giver' would have 11 records, its limit is 10"):
        docs.upsert([10], VECTORS[:1], tenants={"giver", "small"}, owner="giver")


def test_a_tenant_leaves_what_others_share_with_it(docs: Any) -> None:
    docs.upsert([3], VECTORS[3:4], tenants=["small"])  # of nobody, with the same id
    docs.upsert([3], VECTORS[3:4], tenants={"other", "small"}, owner="other")
    assert seen(docs, "small") == sorted([*range(10), 3, 3, 100])
    assert docs.revoke([3, 4], "small", owner=None) == 3  # two owners' 3, and 4
    assert seen(docs, "small") == sorted({*range(10), 100} - {4})
    assert docs.get(3, owner="giver").tenants == ["giver"] and docs.get(3).tenants == ["small"]
    assert facts(docs, "small") == (10, 8)
    for ids, error, said in (
        ([3], NotFound, "no record 3 that others share with the tenant"),
        ([5, 77], NotFound, "no record 77"),
        ([100], NotFound, "no record 100 that others share"),
        (["a"], InvalidArgument, "int ids"),
    ):
        with pytest.raises(error, match=said):
            docs.revoke(ids, "small", owner=None)
    with pytest.raises(InvalidArgument, match="keeps its own records"):
        docs.revoke([5], "giver", owner=None)
    with pytest.raises(InvalidArgument, match="about one tenant"):
        docs.revoke([5], ["small", "giver"], owner=None)
    with pytest.raises(NotFound, match="no tenant 'nobody'"):
        docs.revoke([5], "nobody", owner=None)
    assert facts(docs, "small") == (10, 8) and docs.check() == []


def test_leaving_under_a_request_id_happens_once(docs: Any) -> None:
    assert docs.revoke([3], "small", owner=None, request_id="r") == 1
    docs.grant([3], "small", owner="giver")
    assert docs.revoke([3], "small", owner=None, request_id="r") == 1
    assert docs.get(3, owner="giver").tenants == ["giver", "small"]


def test_ids_that_are_strings_are_left_too(db: Database) -> None:
    docs = db.create_collection("strings", 8, "l2")
    docs.upsert(["a", "ü", "c"], VECTORS[:3], tenants=[["q", "g"]] * 3, owner="g")
    assert docs.revoke(["ü", "a", "a"], "q", owner=None) == 2
    assert seen(docs, "q") == ["c"]
    with pytest.raises(NotFound, match=r"'.xfc'"):
        docs.revoke(["c", "ü"], "q", owner=None)


def test_what_was_shared_before_it_was_counted_leaves_without_harm(docs: Any) -> None:
    """A database of an earlier version has no count: its records are taken as the receiver's own, never fewer."""
    from vecdb.storage.kv import keys, record_format
    from vecdb.tenancy import tenant_names

    backend = docs._backend

    class Forget:
        size_bytes, exclusive = 0, True

        def apply(self, group: Any) -> None:
            uid = backend.state.entry.uid
            number, found = tenant_names.tenant_named(group.store, group.txn, uid, b"small", "docs")
            key = keys.tenant_numbers(uid) + number.to_bytes(8, "big")
            group.txn.put(key, record_format.encode_tenant(found._replace(shared=0)), db=group.store.tenants)
            group.changed = True

    backend.writes.submit(Forget())
    assert facts(docs, "small") == (11, 0)
    with pytest.raises(LimitExceeded):
        docs.upsert([101], VECTORS[:1], tenants=["small"])
    docs.upsert([10], VECTORS[:1], tenants={"giver", "small"}, owner="giver")
    assert facts(docs, "small") == (12, 1)
    docs.delete(range(11), owner="giver")
    assert facts(docs, "small") == (1, 0)
    docs.upsert([101, 102], VECTORS[:2], tenants=["small"])


@pytest.mark.parametrize("seed", range(3))
def test_the_count_of_shared_records_is_right_whatever_happens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names, owners = ["a", "b", "c"], ["", "a", "b"]
    model: dict[tuple[str, int], set[str]] = {}

    def some() -> list[int]:
        return rng.choice(12, int(rng.integers(1, 5)), replace=False).tolist()

    def tenants() -> set[str]:
        return set(rng.choice(names, int(rng.integers(1, 4)), replace=False).tolist())

    with vecdb.open(":memory:") as db:
        docs = db.create_collection("docs", 8, "l2")
        docs.create_tenant(names)
        for step in range(80):
            owner, ids, given = owners[rng.integers(3)], some(), tenants()
            there = [i for i in ids if (owner, i) in model]
            match int(rng.integers(8)):
                case 0 | 1:
                    docs.upsert(ids, VECTORS[: len(ids)], tenants=given, owner=owner)
                    model.update({(owner, i): set(given) for i in ids})
                case 2:
                    docs.upsert(ids, VECTORS[: len(ids)], tenants=given, owner=owner, keep_tenants=True)
                    model.update({(owner, i): model.get((owner, i), set()) | given for i in ids})
                case 3:
                    docs.upsert(ids, VECTORS[: len(ids)], owner=owner)
                    model.update({(owner, i): model.get((owner, i), set()) for i in ids})
                case 4:
                    docs.delete(ids, owner=owner)
                    for i in there:
                        del model[owner, i]
                case 5 if there:
                    docs.grant(there, given, owner=owner)
                    for i in there:
                        model[owner, i] |= given
                case 6 if there:
                    docs.revoke(there, given, owner=owner)
                    for i in there:
                        model[owner, i] -= given
                case 7 if there:
                    docs.update(there, VECTORS[: len(there)], owner=owner)
            if step % 40 == 39:
                name = names[rng.integers(3)]
                docs.drop_tenant(name)
                docs.create_tenant(name, records_max=1_000)
                for seen_by in model.values():
                    seen_by.discard(name)
                db.vacuum()
            for name in names:
                mine = [key for key, seen_by in model.items() if name in seen_by]
                shared = [key for key in mine if key[0] not in ("", name)]
                assert facts(docs, name) == (len(mine), len(shared)), (step, name)
        assert db.check() == []
