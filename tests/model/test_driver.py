"""Goal: the same agreement over long seeded histories, another process reading along; metamorphic rules in exact mode.

The seed is printed; `VECDB_SEED=n` repeats a run.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.model import filtered
from tests.model.driver import SEED, Driver, Reader, drive
from tests.model.setups import DIM, IDS, Setup, index_of, vector_table
from tests.model.twin import Twin
from vecdb.embedded.open import open_database
from vecdb.filters.tree import In, Not

METRICS = ("l2", "cosine", "ip")
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("setup", "plan"),
    [
        (Setup("hnsw", "l2", memory=False), "graph"),
        # slow: three seconds each; metrics and types of vectors are in the histories of test_machine.py, too
        *(pytest.param(Setup("hnsw", metric, memory=False), "graph", marks=SLOW) for metric in ("cosine", "ip")),
        pytest.param(Setup("spann", "l2", memory=False), "lists", marks=SLOW),
        (Setup("spann-disk", "cosine", memory=False), "lists"),
        (Setup("curator", "cosine", memory=False), "tree"),
        pytest.param(Setup("curator-graph", "l2", memory=False), "graph", marks=SLOW),
        pytest.param(Setup("spann-disk", "ip", memory=False), "lists", marks=SLOW),
        pytest.param(Setup("spann-lossless", "l2", "int8", memory=False), "lists", marks=SLOW),
    ],
    ids=str,
)
def test_a_seeded_history_meets_every_kind_of_care(setup: Setup, plan: str) -> None:
    twin = drive(setup, 900, SEED)
    curator = setup.kind.startswith("curator")  # whose small tenants' own slots are all looked at
    scans = ["plan tree among tenants"] if curator else ["plan rows among tenants"]
    for what in (
        f"plan {plan}",
        f"{plan} and tail",
        "index steps",
        "repairs",
        "seals",
        "vacuums",
        "optimizes",
        "reopens",
        "updates",
        "updates of fields alone",
        "vacuums of changed fields",
        "grants",
        "revokes",
        "tenants dropped",
        "mixture",
        "mixture of several components",
        "mixture among tenants",
        "mixture of several components among tenants",
        "mixtures refused",
        "filters",
        "writes by filter",
        *scans,
        f"plan {plan} among tenants",
    ):
        assert twin.seen[what], f"{what} never happened: {twin.seen}"


def test_a_write_by_a_filter_that_all_records_match_changes_nothing() -> None:
    with contextlib.closing(Twin(Setup("auto", "l2"))) as twin:
        driver = Driver(twin, 1)
        for _ in range(60):
            driver.step()
        everything = Not(In("a", ()))
        assert filtered.written(twin, everything, lambda: twin.docs.delete(filter=everything)) is None
        filtered.update(twin, everything, {"a": 1})
        filtered.delete(twin, everything)
        assert twin.docs.count() == len(twin.model) > 0


@pytest.mark.parametrize(  # slow: two seconds each; the files of a tree with a graph are those of both
    "kind", ["spann-disk", "curator-graph", *(pytest.param(kind, marks=SLOW) for kind in ("hnsw", "curator", "spann"))]
)
def test_another_process_sees_each_commit_through_seals_and_vacuums(kind: str) -> None:
    drive(Setup(kind, "l2", memory=False), 150, SEED + 1, reader_every=5)


def test_another_process_follows_a_collection_dropped_and_made_anew() -> None:
    twin, reader = Twin(Setup("hnsw", "l2", memory=False)), Reader()
    for round in range(3):
        twin.upsert([1, 2, 3 + round], [4, 5, 6])
        reader.compare(twin, 4, 2)
        twin.drop_and_create()
        reader.compare(twin, 4, 2)
    reader.close()
    twin.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "setup",
    [
        Setup("hnsw", "l2", memory=False),
        Setup("auto", "cosine", "float16", "str", memory=False),
        Setup("hnsw", "ip", "int8"),
        Setup("hnsw", "jaccard", "bits"),
        Setup("spann", "l2", "float16", memory=False),
        Setup("spann-disk", "cosine", "uint8", memory=False),
        Setup("spann-some", "ip"),
        Setup("curator", "cosine", memory=False),
        Setup("curator", "ip", "int8"),
        Setup("curator-graph", "cosine", memory=False),
    ],
    ids=str,
)
def test_a_history_of_twenty_thousand_operations(setup: Setup) -> None:
    drive(setup, 20_000, SEED + 2, reader_every=0 if setup.memory else 500)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["hnsw", "spann", "spann-disk", "curator", "curator-graph"])
@pytest.mark.parametrize("metric", METRICS)
def test_a_history_of_a_million_operations(kind: str, metric: str) -> None:
    drive(Setup(kind, metric, memory=False), 1_000_000, SEED + 3, reader_every=10_000)


@pytest.mark.parametrize(
    ("setup", "steps"),
    [
        (Setup("hnsw-learned", "l2", awkward=True), 200),
        (Setup("spann", "ip", "int8", awkward=True), 150),
        *(
            pytest.param(Setup(kind, metric, dtype, memory=False, awkward=True), 20_000, marks=pytest.mark.slow)
            for kind, metric, dtype in [
                ("hnsw-learned", "l2", "float32"),
                ("hnsw-learned", "ip", "float16"),
                ("hnsw-learned", "cosine", "uint8"),
                ("spann", "ip", "float32"),
                ("spann-disk", "l2", "int8"),
                ("curator", "cosine", "float32"),
                ("curator", "l2", "float16"),
            ]
        ),
    ],
    ids=str,
)
def test_values_of_every_scale_and_copies_keep_their_recall(setup: Setup, steps: int) -> None:
    twin = drive(setup, steps, SEED + 4)
    assert twin.nearest >= 0.95 * twin.sought > 0


# -- metamorphic rules, exact mode -----------------------------------------------------------------


def exact(docs: Any, query: np.ndarray, limit: int) -> list[tuple[float, Any]]:
    hits = docs.search(query, limit, params=vecdb.SearchParams(exact=True))
    return list(zip(hits.distances.tolist(), hits.ids.tolist(), strict=True))


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(SEED)
    return rng.normal(0, 1, (120, DIM)).astype(np.float32), rng.normal(0, 1, (5, DIM)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["flat", "hnsw"])
class TestExactAnswers:
    @pytest.fixture
    def docs(self, kind: str, metric: str, data: tuple[np.ndarray, np.ndarray]) -> Any:
        with open_database(":memory:", maintenance=False) as db:
            docs = db.create_collection("docs", DIM, metric, index_of(kind))
            docs.upsert(range(120), data[0])
            docs.optimize()
            yield docs

    def test_do_not_depend_on_the_order_of_insertion(self, docs: Any, data: Any, kind: str, metric: str) -> None:
        order = np.random.default_rng(SEED + 1).permutation(120)
        with open_database(":memory:", maintenance=False) as db:
            other = db.create_collection("docs", DIM, metric, index_of(kind))
            for part in np.array_split(order, 7):
                other.upsert(part, data[0][part])
            for query in data[1]:
                assert exact(other, query, 120) == exact(docs, query, 120)

    def test_do_not_change_with_a_far_record(self, docs: Any, data: Any, metric: str) -> None:
        for query in data[1]:
            before = exact(docs, query, 10)
            docs.upsert(999, -1000 * query)  # the farthest there can be, under each metric
            assert exact(docs, query, 10) == before
            docs.delete(999)

    def test_survive_a_delete_followed_by_the_same_insert(self, docs: Any, data: Any) -> None:
        before = [exact(docs, query, 120) for query in data[1]]
        docs.delete(range(0, 120, 2))
        docs.insert(range(0, 120, 2), data[0][::2])
        assert [exact(docs, query, 120) for query in data[1]] == before

    def test_of_a_larger_limit_begin_with_those_of_a_smaller(self, docs: Any, data: Any) -> None:
        for query in data[1]:
            everything = exact(docs, query, 200)
            assert len(everything) == 120
            for limit in (1, 2, 7, 50, 119, 120):
                assert exact(docs, query, limit) == everything[:limit]


def test_a_restart_changes_no_answer(tmp_path: Path, data: tuple[np.ndarray, np.ndarray]) -> None:
    def answers(docs: Any) -> Any:
        near = [docs.search(query, 10) for query in data[1]]
        return [exact(docs, query, 10) for query in data[1]], [
            (hits.ids.tolist(), hits.distances.tolist()) for hits in near
        ]

    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", DIM, "l2", index_of("hnsw"))
        docs.upsert(range(120), data[0])
        docs.optimize()
        docs.delete(range(30))
        before = answers(docs)
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert answers(db["docs"]) == before


@pytest.mark.parametrize(  # slow: two to six seconds each; owners are told apart above the index
    "kind", ["flat", "spann-disk", "curator", *(pytest.param(kind, marks=SLOW) for kind in ("hnsw", "spann"))]
)
def test_what_a_tenant_sees_is_the_same_without_every_other_tenants_history(kind: str) -> None:
    """Two owners write the same ids, each for its own tenant; of one of two databases the other owner knows nothing."""
    rng = np.random.default_rng(SEED)
    table = vector_table(Setup())
    with open_database(":memory:", maintenance=False) as db:
        both = db.create_collection("both", DIM, "l2", index_of(kind))
        alone = db.create_collection("alone", DIM, "l2", index_of(kind))
        for docs in (both, alone):
            docs.create_tenant("a")
        for step in range(150):
            owner, draw = str(rng.choice(["a", "b"])), rng.random()
            ids, vectors = rng.integers(0, IDS, 4).tolist(), table[rng.integers(0, 64, 4)]
            for docs in (both, alone) if owner == "a" else (both,):
                there = [one for one in ids if docs.get(one, owner=owner) is not None]
                if draw < 0.5:
                    docs.upsert(ids, vectors, tenants=[owner] if draw < 0.4 else [], owner=owner)
                elif draw < 0.6:
                    docs.delete(ids, owner=owner)
                elif draw < 0.9 and there:
                    (docs.grant if draw < 0.8 else docs.revoke)(there, owner, owner=owner)
                elif draw >= 0.97:
                    docs.optimize() if draw < 0.985 else docs.vacuum()
            seen = []
            for docs in (both, alone):
                hits = docs.search(table[step % 64], 8, tenant="a", params=vecdb.SearchParams(exact=True))
                mine = [record for part in docs.iter(tenant="a", include_vectors=True) for record in part]
                records = sorted((record.id, record.vector.tolist(), record.tenants) for record in mine)
                near = docs.search(table[step % 64], IDS + 1, tenant="a")
                own = {record.id for record in mine}
                assert set(near.ids.tolist()) == own, "no foreign record, and all of its own"
                if records:
                    liked = [records[0][0], records[-1][0]]
                    diverse = docs.search_mixture(liked, IDS + 1, tenant="a", owner="a")
                    assert set(diverse.ids.tolist()) == own - set(liked)
                seen.append((hits.distances.tolist(), docs.count(tenant="a"), records))
            assert seen[0] == seen[1], step
        assert db.check() == []


def test_the_table_of_vectors_is_what_the_model_needs() -> None:
    for dtype in ("float32", "float16", "int8", "uint8"):
        table = vector_table(Setup(dtype=dtype)).astype(np.float64)
        assert np.isfinite(table).all() and (np.abs(table).sum(axis=1) > 0).all()
        assert len(np.unique(table[8:16], axis=0)) == 1 and len(np.unique(table, axis=0)) > 50
