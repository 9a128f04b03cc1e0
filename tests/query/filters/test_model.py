"""Goal: whatever is stored and asked, a filter lets through what evaluate.matches says of the records, and searches
return exactly min(limit, matches) hits with true distances: for every kind of index, among tenants, after deletes,
overwrites, a vacuum and a reopening.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vecdb
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.errors import InvalidArgument
from vecdb.filters import evaluate
from vecdb.filters.tree import And, Compare, Contains, In, IsNull, Like, Node, Not, Or, Prefix

DIM, IDS = 4, 60
KINDS: dict[str, Any] = {
    "flat": vecdb.Flat(),
    "hnsw": vecdb.Hnsw(m=6, ef_construction=40),
    "spann": vecdb.Spann(head_ratio=0.25),
    "curator": vecdb.Curator(leaf_rows=8),
}
TABLE = np.random.default_rng(5).integers(-9, 10, (64, DIM)).astype(np.float32)
DAY, TIME = dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 3, 4)

scalars = st.one_of(
    st.sampled_from([0, 1, 2, -3, 2**53 + 1, 0.5, 1.0, -0.0, float("inf"), float(2**53), True, False]),
    st.sampled_from(["", "a", "ab", "b", "ü", "2020-01-02", b"a", DAY, TIME, TIME.replace(tzinfo=dt.UTC)]),
)
values = st.one_of(st.none(), scalars, st.lists(scalars, max_size=3))
records = st.fixed_dictionaries(
    {},
    optional={
        "a": values, "b": st.integers(0, 3), "tags": st.lists(st.sampled_from("xyz"), max_size=3),
        "m": st.dictionaries(st.sampled_from(["x", "y"]), values, max_size=2), "d.e": st.integers(0, 1),
    },
)  # fmt: skip
paths = st.sampled_from(["a", "b", "tags", "m.x", "m.y", "m", "d.e", "none"])
several = st.lists(scalars, max_size=4).map(tuple)
leaves = st.one_of(
    st.builds(Compare, paths, st.sampled_from(["==", "==", "<", "<=", ">", ">="]), scalars),
    st.builds(In, paths, several),
    st.builds(IsNull, paths),
    st.builds(Prefix, paths, st.sampled_from(["", "a", "2020"])),
    st.builds(Like, paths, st.sampled_from(["%", "a%", "_b", "%-%"])),
    st.builds(Contains, paths, several, st.booleans()),
)
nodes = st.recursive(
    leaves,
    lambda some: st.one_of(
        st.lists(some, max_size=3).map(lambda terms: And(tuple(terms))),
        st.lists(some, max_size=3).map(lambda terms: Or(tuple(terms))),
        some.map(Not),
    ),
    max_leaves=6,
)
writes = st.lists(
    st.tuples(st.lists(st.integers(0, IDS - 1), min_size=1, max_size=25, unique=True), records, st.integers(0, 63)),
    min_size=2,
    max_size=5,
)


class Twin:
    """A collection and the dict of what it should hold: fields, vector and whether tenant t sees it, by id."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.db = open_database(folder, durability="relaxed", maintenance=False)
        self.docs = self.db.create_collection("docs", DIM, "l2", KINDS[kind])
        self.model: dict[int, tuple[dict[str, Any], np.ndarray, bool]] = {}

    def upsert(self, chosen: list[int], fields: dict[str, Any], at: int) -> None:
        some = [fields if number % 3 else {"b": number % 4} for number in chosen]
        vectors = TABLE[[(at + number) % 64 for number in chosen]]
        lists = [["t"] if number % 2 else [] for number in chosen]
        self.docs.upsert(chosen, vectors, some, tenants=lists)
        for number, one, vector in zip(chosen, some, vectors, strict=True):
            self.model.pop(number, None)  # a new row: it comes last
            self.model[number] = one, vector, bool(number % 2)

    def update(self, node: Node, change: dict[str, Any]) -> None:
        chosen = self.matching(node)
        assert self.docs.update(filter=node, fields=change) == len(chosen)
        for number in chosen:
            fields, vector, seen = self.model[number]
            kept = {name: value for name, value in (fields | change).items() if value is not None}
            self.model[number] = kept, vector, seen
        found = [(one.id, one.fields) for part in self.docs.iter(7) for one in part]
        assert found == [(number, one[0]) for number, one in self.model.items()], "in the order that they had"

    def reopen(self) -> None:
        self.db.close()
        self.db = open_database(self.folder, durability="relaxed", maintenance=False)
        self.docs = self.db["docs"]

    def matching(self, node: Node, tenant: str | None = None) -> list[int]:
        return [
            number
            for number, (fields, _, seen) in self.model.items()
            if evaluate.matches(node, fields) and (tenant is None or seen)
        ]

    def types_of(self, path: str) -> set[str]:
        found = (evaluate.value_at(fields, path) for fields, _, _ in self.model.values())
        return {_type_of(value) for value in found if value is not None}

    def refuses(self, node: Node) -> bool:
        """Whether counting is refused, as it may be only where no value of a field has the order that is asked for."""
        try:
            self.docs.count(filter=node)
            return False
        except InvalidArgument:
            with pytest.raises(InvalidArgument):
                evaluate.check_orders(node, self.types_of)
            return True

    def check(self, node: Node, query: int) -> None:
        if self.refuses(node):
            return
        for tenant in (None, "t"):
            expected = self.matching(node, tenant)
            assert self.docs.count(filter=node, tenant=tenant) == len(expected)
            assert [one.id for one in self.docs.get(filter=node, tenant=tenant)] == expected, "in row order"
            for limit in (1, 4, IDS + 1):
                for params in (None, vecdb.SearchParams(exact=True)):
                    self.check_hits(node, query, tenant, expected, limit, params)
        assert self.docs.get(sorted(self.model), filter=node) == [
            self.docs.get(number) if number in set(self.matching(node)) else None for number in sorted(self.model)
        ]

    def check_hits(
        self, node: Node, query: int, tenant: str | None, expected: list[int], limit: int, params: Any
    ) -> None:
        hits = self.docs.search(TABLE[query], limit, filter=node, tenant=tenant, params=params)
        assert len(hits) == min(limit, len(expected)) == len(set(hits.ids.tolist()))
        assert set(hits.ids.tolist()) <= set(expected)
        true = [float(((self.model[number][1] - TABLE[query]) ** 2).sum()) for number in hits.ids.tolist()]
        assert hits.distances.tolist() == true == sorted(true)
        if params is not None or limit > len(expected):
            best = sorted(float(((self.model[number][1] - TABLE[query]) ** 2).sum()) for number in expected)
            assert true == best[:limit]

    def check_batch(self, some: list[Node]) -> None:
        asked: list[Any] = [None, *(node for node in some if not self.refuses(node)), None]
        asked = [*asked, *asked[1:-1]]
        queries = TABLE[: len(asked)]
        hits = self.docs.search(queries, 5, filter=asked, params=vecdb.SearchParams(exact=True))
        for at, node in enumerate(asked):
            alone = self.docs.search(queries[at], 5, filter=node, params=vecdb.SearchParams(exact=True))
            assert hits[at].ids.tolist() == alone.ids.tolist() and hits.counts[at] == len(alone)
            assert hits[at].fields == alone.fields

    def check_facts(self, node: Node) -> None:
        everything = self.refuses(node)
        chosen = list(self.model) if everything else self.matching(node)
        given = None if everything else node
        for path in ("a", "b", "tags", "m.x"):
            counts: Counter[tuple[type, Any]] = Counter()
            for number in chosen:
                value = evaluate.value_at(self.model[number][0], path)
                several = value if isinstance(value, list) else [] if isinstance(value, dict) else [value]
                counts.update({(type(one), one) for one in several if one is not None})
            found = self.docs.facets(path, given)
            assert {(type(value), value): count for value, count in found.items()} == dict(counts), path
            sizes = list(self.docs.facets(path, given).values())
            assert sizes == sorted(sizes, reverse=True)
            distinct = self.docs.distinct(path, given)
            assert {(type(one), one) for one in distinct} == set(counts) and len(distinct) == len(counts)
        numbers = [fields["b"] for fields, _, _ in (self.model[one] for one in chosen) if "b" in fields]
        assert self.docs.min("b", given) == min(numbers, default=None)
        assert self.docs.max("b", given) == max(numbers, default=None)
        known = self.docs.fields()
        for path in ("a", "b", "tags", "m", "m.x", "d.e", "none"):
            types = self.types_of(path)
            count = sum(evaluate.value_at(fields, path) is not None for fields, _, _ in self.model.values())
            assert known.get(path, {"types": [], "count": 0}) == {
                "types": [name for name in evaluate.TYPES if name in types], "count": count,
            }  # fmt: skip


def _type_of(value: Any) -> str:
    if isinstance(value, dict):
        return "map"
    return type(value).__name__


@pytest.mark.parametrize("kind", KINDS)
def test_filters_mean_what_the_language_says(
    kind: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 16)

    @settings(max_examples=8, derandomize=True, database=None)
    @given(writes, st.lists(nodes, min_size=3, max_size=3), st.integers(0, 63), st.booleans(), records)
    def run(writes: Any, some: list[Node], query: int, columns: bool, change: dict[str, Any]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "columns_max", 1_024 if columns else 2)
            twin = Twin(tmp_path_factory.mktemp("model"), kind)
            twin.docs.create_tenant("t")
            for at, write in enumerate(writes):
                twin.upsert(*write)
                if at == 0:
                    twin.docs.optimize()
                twin.check(some[at % 3], query)
            gone = list(twin.model)[::4]
            twin.docs.delete(gone)
            for number in gone:
                del twin.model[number]
            twin.check(some[0], query)
            twin.db.vacuum()
            twin.check(some[1], query)
            twin.reopen()
            twin.check_batch(some)
            twin.check_facts(some[2])
            if not twin.refuses(some[0]):
                doomed = twin.matching(some[0], "t")
                assert twin.docs.delete(filter=some[0], tenant="t") == len(doomed)
                for number in doomed:
                    del twin.model[number]
            assert [one.id for part in twin.docs.iter(7) for one in part] == list(twin.model)
            if not twin.refuses(some[1]):
                twin.update(some[1], {"b": 9, "m": None, "tags": change.get("tags")})
            twin.check(some[1], query)
            assert twin.db.check() == []
            twin.db.close()

    run()
