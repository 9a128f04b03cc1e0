"""A tenant that is dropped with its records: what only it may see goes, what others may see stays; beside a dict."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import limits
from vecdb.embedded.open import open_database

DIM = 4


def listed(docs: Any) -> dict[tuple[str, Any], list[str]]:
    return {(one.owner, one.id): one.tenants for batch in docs.iter() for one in batch}


@pytest.mark.parametrize("rows_a_commit", [3, 8_192])
@pytest.mark.parametrize("ids", ["ints", "strings"])
def test_what_others_may_see_stays(rows_a_commit: int, ids: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "tenant_drop_rows", rows_a_commit)
    rng, names = random.Random(rows_a_commit), ["a", "b", "c", "d"]
    key = (lambda n: n) if ids == "ints" else (lambda n: f"id{n}")
    known: dict[tuple[str, Any], set[str]] = {}
    with open_database(":memory:", maintenance=False) as db:
        docs = db.create_collection("docs", DIM, "l2")
        for step in range(400):
            owner, one, tenants = rng.choice(["", "a", "b"]), key(rng.randrange(60)), set(rng.sample(names, 2))
            match rng.choice(["put", "put", "put", "fields", "grant", "revoke", "delete", "vacuum", "drop"]):
                case "put":
                    docs.upsert([one], np.full((1, DIM), step), tenants=[[*tenants]], owner=owner)
                    known[owner, one] = tenants
                case "fields" if (owner, one) in known:
                    docs.update(one, fields={"step": step}, owner=owner)
                case "grant" if (owner, one) in known:
                    docs.grant(one, [*tenants], owner=owner)
                    known[owner, one] |= tenants
                case "revoke" if (owner, one) in known and tenants <= set(docs.tenants()):
                    docs.revoke(one, [*tenants], owner=owner)
                    known[owner, one] -= tenants
                case "delete":
                    docs.delete(one, owner=owner)
                    known.pop((owner, one), None)
                case "vacuum" if step % 7 == 0:
                    docs.vacuum()
                case "drop" if step % 3 == 0:
                    gone = rng.choice(names)
                    if gone not in set(docs.tenants()):
                        continue
                    alone = [place for place, seen in known.items() if seen == {gone}]
                    assert docs.drop_tenant(gone, records=True) == len(alone)
                    for place in alone:
                        del known[place]
                    for seen in known.values():
                        seen.discard(gone)
                    assert gone not in set(docs.tenants())
            assert docs.count() == len(known)
        assert listed(docs) == {place: sorted(seen) for place, seen in known.items()}
        assert db.check() == []


def test_a_repeated_call_gets_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "tenant_drop_rows", 10)
    with open_database(":memory:", maintenance=False) as db:
        docs = db.create_collection("docs", DIM, "l2")
        docs.upsert(range(35), np.ones((35, DIM)), tenants="t")
        docs.grant([1, 2], "u")
        assert [docs.drop_tenant("t", records=True, request_id="once") for _ in range(2)] == [33, 33]
        with pytest.raises(vecdb.NotFound, match="has no tenant 't'"):
            docs.drop_tenant("t", records=True)
        assert (docs.count(), docs.count(tenant="u"), docs.get(1).tenants) == (2, 2, ["u"])
