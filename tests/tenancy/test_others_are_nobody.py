"""What a tenant asks about records of others is answered as if they were not there, after the same work: the same
tables looked at as often, and no record of others read. Oracle: the same question about ids that nobody has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.tenant_records import VECTORS
from vecdb import VecdbError
from vecdb.api.database import Database
from vecdb.errors import Corruption
from vecdb.state import record_blocks, record_reader
from vecdb.storage.kv import record_format
from vecdb.tenancy.access_tables import AccessTables

N = 200


@pytest.fixture
def docs(db: Database) -> Any:
    """Even ids up to 2 N: every tenth is a's, the others are b's. Odd ids and those beyond are nobody's."""
    made = db.create_collection("docs", 8, "l2")
    lists = [["a"] if i % 10 == 0 else ["b"] for i in range(N)]
    made.upsert(range(0, 2 * N, 2), VECTORS[:N], fields=[{"text": "x" * i} for i in range(N)], tenants=lists)
    made.grant([20, 40], "b")  # in the journal
    made.revoke([60], "a")
    return made


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each table was looked at, and how many rows or bytes were read there."""
    counts: Counter[str] = Counter()

    def counted(place: Any, name: str, size: Callable[..., int]) -> None:
        original = getattr(place, name)

        def call(*arguments: Any, **named: Any) -> Any:
            found = original(*arguments, **named)
            counts[name] += 1
            counts[f"{name}, size"] += size(arguments, found)
            return found

        monkeypatch.setattr(place, name, call)

    counted(record_reader, "record_block_at", lambda given, found: 1)
    counted(record_blocks, "_raw_blocks", lambda given, found: sum(len(raw) for _, raw in found))
    counted(record_reader, "rows_of_ids", lambda given, found: len(given[3]))
    counted(record_reader, "verify_vectors", lambda given, found: len(given[1]))
    counted(record_format, "decode_access", lambda given, found: sum(map(len, given[0])))
    counted(AccessTables, "has", lambda given, found: len(given[3]))
    counted(AccessTables, "lists_of", lambda given, found: len(given[2]))
    return counts


THEIRS = [i for i in range(0, 2 * N, 2) if i % 20 and i not in (20, 40)][:50] + [60]
NOBODYS = [i + 1 for i in THEIRS]
BEYOND = [i + 10_000 for i in THEIRS]

ASKED: dict[str, Callable[[Any, list[int]], Any]] = {
    "get": lambda docs, ids: docs.get(ids, tenant="a"),
    "get with vectors": lambda docs, ids: docs.get(ids, tenant="a", include_vectors=True),
    "get one": lambda docs, ids: docs.get(ids[0], tenant="a"),
    "get of a union": lambda docs, ids: docs.get(ids, tenant=["a", "c"]),
    "mixture": lambda docs, ids: docs.search_mixture(ids, 3, tenant="a"),
    "mixture of histories": lambda docs, ids: docs.search_mixture([0], 3, histories=[ids, ids], tenant="a"),
    "get by owner": lambda docs, ids: docs.get(ids, owner="b", tenant="a"),
}


def asked(docs: Any, work: Counter[str], question: str, ids: list[int]) -> tuple[str, dict[str, int]]:
    work.clear()
    try:
        answer = repr(ASKED[question](docs, ids))
    except VecdbError as error:
        answer = f"{type(error).__name__}: {error}".replace(f"record {ids[0]} ", "record X ")
    return answer, dict(work)


@pytest.mark.parametrize("question", ASKED)
def test_records_of_others_take_the_work_of_records_that_do_not_exist(
    docs: Any, work: Counter[str], question: str
) -> None:
    docs.create_tenant("c")
    asked(docs, work, question, NOBODYS)  # caches are filled
    theirs, nobodys, beyond = (asked(docs, work, question, ids) for ids in (THEIRS, NOBODYS, BEYOND))
    assert theirs == nobodys == beyond
    assert not theirs[1].get("record_block_at") and not theirs[1].get("decode_access")


def test_a_tenant_gets_its_own_records_and_what_was_granted_and_nothing_that_was_revoked(docs: Any) -> None:
    mine = set(range(0, 2 * N, 20)) - {60}
    found = docs.get(range(2 * N), tenant="a")
    assert {one.id for one in found if one is not None} == mine
    assert {one.id for one in docs.get(range(2 * N), tenant=["b"]) if one is not None} >= {20, 40}
    everything = docs.get(range(2 * N), tenant=["a", "b"], include_vectors=True)
    assert {one.id for one in everything if one is not None} == set(range(0, 2 * N, 2)) - {60}
    assert all(np.array_equal(one.vector, VECTORS[one.id // 2]) for one in everything if one is not None)


def test_a_row_that_is_listed_for_a_tenant_that_its_own_list_does_not_name_is_corruption(
    docs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AccessTables, "has", lambda self, txn, number, rows: np.ones(len(rows), bool))
    with pytest.raises(Corruption, match="listed for a tenant that its access list does not name"):
        docs.get([2], tenant="a")
