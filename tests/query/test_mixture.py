"""Goal: a mixture search shares its answer out as it says, never returns a positive, a duplicate or a foreign record,
and is never short.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT, clustered
from tests.support.mixture_oracle import (
    agrees,
    centres_of,
    quotas_by_hand,
)
from tests.support.planner_costs import set_planner_costs
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.errors import Corruption, InvalidArgument, LimitExceeded, NotFound
from vecdb.index.hnsw import filtered
from vecdb.query import mixture
from vecdb.state import record_reader

VECTORS = clustered(400, 8, clusters=12)
KINDS = {
    "flat": vecdb.Flat(),
    "hnsw": vecdb.Hnsw(m=6, ef_construction=40),
    "spann": vecdb.Spann(head_ratio=0.25),
    "curator": vecdb.Curator(leaf_rows=8),
}


# -- against the oracle ----------------------------------------------------------------------------


def stored(vectors: Any, dtype: str) -> np.ndarray:
    if dtype in ("int8", "uint8"):
        scaled = np.clip(
            np.round(vectors * 25) + (128 if dtype == "uint8" else 0), 0 if dtype == "uint8" else -128, 255
        )
        return np.minimum(scaled, np.iinfo(dtype).max).astype(dtype)
    return vectors.astype(dtype)


@pytest.mark.parametrize(
    ("metric", "dtype", "ids"),
    [
        ("cosine", "float32", "int"), ("l2", "float32", "str"), ("ip", "float16", "int"), ("l2", "uint8", "int"),
        ("cosine", "int8", "str"), ("ip", "int8", "int"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_every_index_metric_and_type_agrees_with_the_oracle(
    db: Database, monkeypatch: pytest.MonkeyPatch, kind: str, metric: Any, dtype: Any, ids: str
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    docs = db.create_collection("docs", 8, metric, KINDS[kind], dtype=dtype)
    names: list[Any] = [one if ids == "int" else f"id-{one}" for one in range(400)]
    vectors = stored(VECTORS, dtype)
    lists = [["third"] if number % 3 == 0 else [] for number in range(400)]
    docs.upsert(names[:350], vectors[:350], tenants=lists[:350])
    docs.optimize()
    docs.upsert(names[350:], vectors[350:], tenants=lists[350:])  # the tail
    docs.delete(names[::7])
    records = {names[one]: vectors[one] for one in range(400) if one % 7}
    third = {names[one]: vectors[one] for one in range(0, 400, 3) if one % 7}
    assert len(centres_of(docs)) > 1
    rng = random.Random(3)
    compared = []
    for limit in (1, 7, 40, 100):
        users = [rng.sample(list(records), rng.randint(1, 20)) for _ in range(6)]
        compared.append(agrees(docs, records, users[:1], limit))
        compared.append(agrees(docs, records, users, limit, components=3, smoothing=0.4, neighbours=2))
        users = [rng.sample(list(third), rng.randint(1, 12)) for _ in range(4)]
        compared.append(agrees(docs, third, users, limit, smoothing=0.7, tenant="third"))
        hits = docs.search_mixture(users[0], limit, tenant="third")
        assert len(hits) == min(limit, len(third) - len(users[0])) and set(hits.ids.tolist()) <= set(third)
    assert sum(one is not None for one in compared) >= 8, "of 12"


@pytest.mark.parametrize("kind", KINDS)
def test_approximate_searches_keep_every_promise(db: Database, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    set_planner_costs(monkeypatch, scan_share=1e9, scan_rows_per_width=0.0, scored_rows=0)
    monkeypatch.setattr(filtered, "_SCAN_AT_ONCE", 0.0)  # a graph is walked however few match
    docs = db.create_collection("docs", 8, "l2", KINDS[kind])
    docs.upsert(range(400), VECTORS, tenants=[["even"] if one % 2 == 0 else ["odd"] for one in range(400)])
    docs.optimize()
    for tenant, seen in ((None, set(range(400))), ("even", set(range(0, 400, 2)))):
        for limit in (5, 60, 300):
            own = list(range(0, 40, 2))
            hits = docs.search_mixture(own, limit, tenant=tenant, explain=True)
            assert (
                hits.plan
                == {
                    "flat": "exact" if tenant is None else "rows",
                    "hnsw": "graph",
                    "spann": "lists",
                    "curator": "tree",
                }[kind]
            )
            found = hits.ids.tolist()
            assert len(found) == len(set(found)) == min(limit, len(seen) - len(own))
            assert not set(found) & set(own) and set(found) <= seen
            for c in range(int(hits.components.max()) + 1):
                assert (np.diff(hits.distances[hits.components == c]) >= 0).all()


# -- rules, each by itself -------------------------------------------------------------------------


@pytest.fixture
def islands(db: Database) -> Any:
    """Three islands of ids 0.., 100.., 200.., 20 records each, far from one another; ids in an island by distance from
    its middle. The whole is indexed as one sample, so that islands are cells.
    """
    docs = db.create_collection("docs", 2, "l2", vecdb.Flat())
    rows = [(100 * island + at, island, at) for at in range(20) for island in range(3)]
    places = [[1000.0 * island + at / 10, 0.0] for _, island, at in rows]
    docs.upsert([one for one, _, _ in rows], places, tenants=[[f"isle{island}", "all"] for _, island, _ in rows])
    return docs


@pytest.fixture
def three(islands: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The islands, each a cell: cell 0 the middle one."""
    centres = np.array([[1000, 0], [0, 0], [2000, 0]], np.float32)
    index = islands._backend.state.snapshot.generation.index
    monkeypatch.setattr(type(index), "centres", lambda self, row_count: centres)
    return islands


def test_each_component_fills_its_quota_and_every_beginning_is_shared_out(three: Any) -> None:
    hits = three.search_mixture([0, 1, 2, 100, 101, 200], 12, explain=True)
    assert hits.explain["quotas"] == [6, 4, 2] == hits.explain["sizes"] and hits.explain["cells"] == [1, 0, 2]
    assert np.allclose(hits.explain["weights"], [1 / 2, 1 / 3, 1 / 6])
    assert hits.components.tolist() == [0, 1, 0, 2, 1, 0, 0, 1, 0, 2, 1, 0]
    assert hits.ids.tolist() == [3, 102, 4, 201, 103, 5, 6, 104, 7, 202, 105, 8]
    assert hits[3].component == 2 and hits[3].id == 201 and hits[:4].components.tolist() == [0, 1, 0, 2]
    assert [row["component"] for row in hits.to_list()] == hits.components.tolist()
    assert hits.to_pandas()["component"].tolist() == hits.components.tolist()
    assert np.allclose(hits.distances[:2], [0.2**2, 0.15**2], atol=1e-4), "to the mean of its own component"
    for k in range(1, 13):
        shares = np.bincount(hits.components[:k], minlength=3)
        assert (np.abs(shares - k * np.array([6, 4, 2]) / 12) <= 1).all(), k


def test_ties_go_to_the_larger_weight_and_then_to_the_lower_cell(three: Any) -> None:
    hits = three.search_mixture([0, 100, 200], 4, explain=True)
    assert hits.explain["cells"] == [0, 1, 2] and hits.explain["quotas"] == [2, 1, 1]
    assert hits.ids.tolist() == [101, 1, 201, 102]
    assert three.search_mixture([0, 100, 200], 2, components=2, explain=True).explain["cells"] == [0, 1]
    hits = three.search_mixture([0, 0, 100, 0], 4, explain=True)
    assert hits.explain["quotas"] == [2, 2], "an id that repeats counts once"
    hits = three.search_mixture([0, 1, 2, 100], 2, explain=True)  # 1.5 and 0.5
    assert hits.explain["quotas"] == [2, 0] and hits.ids.tolist() == [3, 4], "of equal remainders the stronger's"
    assert mixture.quotas_of(np.array([0.5, 0.3, 0.2]), 3).tolist() == [1, 1, 1]
    for weights in ([0.4, 0.35, 0.25], [0.29, 0.29, 0.29, 0.13], [1.0]):
        for limit in range(1, 60):
            assert mixture.quotas_of(np.array(weights), limit).tolist() == quotas_by_hand(weights, limit)


def test_a_row_in_two_lists_counts_for_the_component_where_its_rank_is_best() -> None:
    lists = [np.array([1, 2, 3, 4, 5]), np.array([3, 1, 9, 2, 8])]
    chosen = mixture.choose(lists, np.array([3, 2]), 5)
    found = [(int(lists[c][place]), c) for c, place in zip(*map(np.ndarray.tolist, chosen), strict=True)]
    assert found == [(1, 0), (3, 1), (2, 0), (9, 1), (4, 0)]
    same = [np.array([1, 2, 3]), np.array([1, 2, 3])]
    assert mixture.choose(same, np.array([1, 2]), 3).components.tolist() == [0, 0, 0], "of equal ranks the stronger"


def test_an_exhausted_cell_is_filled_up_from_the_strongest(three: Any) -> None:
    three.delete([*range(102, 118)])
    hits = three.search_mixture([100, 101, 0, 1, 2], 30, explain=True)
    assert hits.explain["cells"] == [1, 0] and hits.explain["quotas"] == [18, 12]
    assert len(set(hits.ids.tolist())) == 30 and {118, 119} <= set(hits.ids.tolist())
    everything = three.search_mixture([100, 101, 0, 1, 2], 1000)
    assert sorted(everything.ids.tolist()) == [*range(3, 20), 118, 119, *range(200, 220)], "all that is left, once"
    alone = three.search_mixture([100, 101], 20, tenant="isle1", explain=True)
    assert sorted(alone.ids.tolist()) == [118, 119] and alone.explain["sizes"] == [2]
    three.delete([118, 119])
    empty = three.search_mixture([100, 101], 20, tenant="isle1", fields=None, include_vectors=True)
    assert len(empty) == 0 and empty.components.tolist() == [] and empty.to_list() == []


def test_one_positive_is_a_search_around_it_without_it(islands: Any) -> None:
    hits = islands.search_mixture(107, 10)
    near = islands.search([1000.7, 0], 11)
    assert hits.ids.tolist() == near.ids[1:].tolist() and np.allclose(hits.distances, near.distances[1:])
    assert (
        set(hits.components.tolist()) == {0}
        and islands.search_mixture([107, 107], 10).ids.tolist() == hits.ids.tolist()
    )


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("kind", KINDS)
def test_positives_of_one_cell_are_a_search_by_their_mean(db: Database, kind: str, metric: Any) -> None:
    docs = db.create_collection("docs", 8, metric, KINDS[kind])
    docs.upsert(range(400), VECTORS)
    docs.optimize()
    centres = centres_of(docs)
    rows = VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True) if metric == "cosine" else VECTORS
    cell = ((rows[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    own = np.flatnonzero(cell == np.bincount(cell).argmax())[:15]
    plain = docs.search(rows[own].mean(axis=0), 50 + len(own), params=EXACT)
    wanted = plain.ids[~np.isin(plain.ids, own)][:50]
    hits = docs.search_mixture(own, 50, params=EXACT)
    assert hits.ids.tolist() == wanted.tolist() and set(hits.components.tolist()) == {0}


def test_a_history_longer_than_the_limit_hides_nobody(db: Database) -> None:
    docs = db.create_collection("docs", 2, "l2", vecdb.Flat())
    docs.upsert(range(300), [[at / 100, 0.0] for at in range(300)])
    own = list(range(100, 200))  # the nearest of their own mean
    agrees(docs, {one: [np.float32(one / 100), 0.0] for one in range(300)}, [own], 5)


def test_smoothing_brings_in_what_users_alike_have(three: Any) -> None:
    histories = [[0, 1, 2, 3], [0, 1, 100, 101], [200, 201, 202]]
    plain = three.search_mixture(histories=histories, limit=10, explain=True)
    assert plain.explain["cells"] == [1], "the first history is the user's own"
    hits = three.search_mixture(histories=histories, limit=10, smoothing=0.5, neighbours=1, explain=True)
    assert hits.explain["cells"] == [1, 0] and np.allclose(hits.explain["weights"], [0.75, 0.25])
    assert {100, 101} & set(hits.ids.tolist()), "what others liked is no positive of this user"
    same = three.search_mixture([0, 1, 2, 3], 10, histories=histories[1:], smoothing=0.5, neighbours=1)
    assert same.ids.tolist() == hits.ids.tolist()
    both = three.search_mixture(histories=histories, limit=10, smoothing=0.5, explain=True)
    assert both.explain["cells"] == [1, 0, 2] and both.explain["weights"][1] > both.explain["weights"][2] / 2
    alone = three.search_mixture([0], 5, histories=[], smoothing=0.5)
    assert alone.ids.tolist() == three.search_mixture([0], 5).ids.tolist()


def test_users_unlike_in_every_way_smooth_nothing() -> None:
    means = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    assert mixture.portions(means, "cosine", 0.5, 5).tolist() == [1.0, 0.0, 0.0]
    assert mixture.portions(means[[0, 0, 0]], "l2", 0.5, 5).tolist() == [0.5, 0.25, 0.25]
    assert mixture.portions(means[[0, 0, 0, 1]], "ip", 0.5, 1).tolist() == [0.5, 0.5, 0.0, 0.0], "ties to the first"


def test_weights_that_differ_by_the_order_of_a_sum_are_equal() -> None:
    centres = np.array([[0, 0], [10, 0], [20, 0]], np.float32)
    own, other = centres[[0, 0, 2]], centres[[1]]
    made = mixture.fit([own, other], centres, "l2", 3, 0.4, 1)  # cell 0: 0.6 / 3 twice, cell 1: 0.4
    assert 2 * ((1.0 - 0.4) / 3) < 0.4 and made.cells.tolist() == [0, 1, 2]
    assert made.weights.tolist() == [0.4, 0.4, 0.2]


# -- tenants and owners ----------------------------------------------------------------------------


def test_a_tenant_is_answered_from_its_own_and_may_not_even_ask_about_others(three: Any) -> None:
    hits = three.search_mixture([0, 1], 60, tenant="isle0")
    assert sorted(hits.ids.tolist()) == list(range(2, 20))
    union = three.search_mixture([0, 100], 60, tenant=["isle0", "isle1"])
    assert sorted(union.ids.tolist()) == [*range(1, 20), *range(101, 120)]
    with pytest.raises(NotFound) as hidden:
        three.search_mixture([0, 100], 5, tenant="isle0")
    with pytest.raises(NotFound) as missing:
        three.search_mixture([0, 777], 5, tenant="isle0")
    assert str(hidden.value).replace("100", "777") == str(missing.value)
    with pytest.raises(NotFound):
        three.search_mixture([0], 5, histories=[[1], [100]], smoothing=0.5, tenant="isle0")
    three.revoke([19], "isle0")
    assert 19 not in three.search_mixture([0, 1], 60, tenant="isle0").ids
    with pytest.raises(NotFound):
        three.search_mixture([19], 5, tenant="isle0")
    three.create_tenant("idle")
    with pytest.raises(NotFound):
        three.search_mixture([0], 5, tenant="idle")


def test_positives_are_those_of_the_owner_that_is_named(db: Database) -> None:
    docs = db.create_collection("docs", 2, "l2", vecdb.Flat())
    docs.upsert(["a", "b"], [[0, 0], [1, 0]])
    docs.upsert(["a", "c"], [[9, 0], [8, 0]], owner="acme")
    assert docs.search_mixture("a", 2).ids.tolist() == ["b", "c"]
    assert docs.search_mixture(["a"], 2, owner="acme").ids.tolist() == ["c", "b"]
    with pytest.raises(NotFound):
        docs.search_mixture(["c"])


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda docs: docs.search_mixture([0, 777]), NotFound),
        (lambda docs: docs.search_mixture([0], histories=[[777]], smoothing=0.1), NotFound),
        (lambda docs: docs.search_mixture([0], histories=[[777]]), NotFound),
        (lambda docs: docs.search_mixture([0], tenant="nobody"), NotFound),
        (lambda docs: docs.search_mixture([0], tenant=[]), InvalidArgument),
        (lambda docs: docs.search_mixture(), InvalidArgument),
        (lambda docs: docs.search_mixture([]), InvalidArgument),
        (lambda docs: docs.search_mixture(histories=[]), InvalidArgument),
        (lambda docs: docs.search_mixture(histories=[[0], []]), InvalidArgument),
        (lambda docs: docs.search_mixture(histories=7), InvalidArgument),
        (lambda docs: docs.search_mixture(histories=[None]), InvalidArgument),
        (lambda docs: docs.search_mixture(["0"]), InvalidArgument),
        (lambda docs: docs.search_mixture([0.5]), InvalidArgument),
        (lambda docs: docs.search_mixture([0], 0), InvalidArgument),
        (lambda docs: docs.search_mixture([0], components=0), InvalidArgument),
        (lambda docs: docs.search_mixture([0], components=2.5), InvalidArgument),
        (lambda docs: docs.search_mixture([0], histories=[[1]], neighbours=0), InvalidArgument),
        (lambda docs: docs.search_mixture([0], histories=[[1]], smoothing=-0.1), InvalidArgument),
        (lambda docs: docs.search_mixture([0], histories=[[1]], smoothing=1.1), InvalidArgument),
        (lambda docs: docs.search_mixture([0], histories=[[1]], smoothing=float("nan")), InvalidArgument),
        (lambda docs: docs.search_mixture([0], histories=[[1]], smoothing=True), InvalidArgument),
        (lambda docs: docs.search_mixture([0], smoothing=0.5), InvalidArgument),
        (lambda docs: docs.search_mixture([0], fields=7), InvalidArgument),
        (lambda docs: docs.search_mixture([0], limits.limit_max + 1), LimitExceeded),
        (lambda docs: docs.search_mixture([0], components=limits.components_max + 1), LimitExceeded),
        (lambda docs: docs.search_mixture(range(limits.positives_max + 1)), LimitExceeded),
        (lambda docs: docs.search_mixture([0], histories=[[1]] * (limits.history_ids_max + 1)), LimitExceeded),
        (lambda docs: docs.search_mixture([0], histories=[range(16_384)] * 4), LimitExceeded),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_a_typed_error(
    islands: Any, call: Callable[[Any], Any], error: type[Exception]
) -> None:
    with pytest.raises(error) as raised:
        call(islands)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"positives": [0, None]}, r"positives\[1\] is None"),
        ({"positives": np.zeros((2, 3))}, "positives must have one dimension"),
        ({"positives": (id for id in [0])}, "positives must be an int"),
        ({"histories": [[1], [2.5]]}, r"histories\[1\]\[0\] is 2.5"),
        ({"histories": [1, 2, 3]}, r"histories must be a list of lists of ids, one a user; histories\[0\] is 1"),
    ],
)
def test_a_mistake_is_said_of_the_argument_that_has_it(islands: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        islands.search_mixture(**{"positives": [0]} | more)


def test_an_answer_too_large_to_hold_is_refused(islands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "search_cells_max", 100)
    with pytest.raises(LimitExceeded, match="components"):
        islands.search_mixture([0, 1], 50, components=2)
    assert len(islands.search_mixture([0, 1], 48, components=2)) == 48
    monkeypatch.setattr(limits, "batch_bytes_max", 15)
    with pytest.raises(LimitExceeded, match="bytes"):
        islands.search_mixture([0, 1], 10)


# -- time ------------------------------------------------------------------------------------------


def test_a_deleted_positive_is_not_found_and_a_replaced_one_counts_for_what_it_is_now(three: Any) -> None:
    assert three.search_mixture([0, 100], 4, explain=True).explain["cells"] == [0, 1]
    three.upsert([100], [[2000.02, 0.0]], tenants=["all"])
    hits = three.search_mixture([0, 100], 4, explain=True)
    assert hits.explain["cells"] == [1, 2] and hits.ids.tolist() == [1, 200, 2, 201]
    three.delete([100])
    with pytest.raises(NotFound, match="100"):
        three.search_mixture([0, 100])


@pytest.mark.parametrize("kind", KINDS)
def test_a_reopened_database_a_reader_and_a_second_call_answer_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 100)

    def ask(docs: Any) -> Any:
        hits = docs.search_mixture(range(0, 60, 3), 50, histories=[[1, 2], [5, 9]], smoothing=0.2)
        return hits.ids.tolist(), hits.components.tolist(), hits.distances.tolist(), centres_of(docs).tolist()

    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, "l2", KINDS[kind])
        docs.upsert(range(400), VECTORS)
        docs.optimize()
        docs.upsert(range(400, 410), VECTORS[:10] + 1)
        first = ask(docs)
        assert ask(docs) == first
    with open_database(tmp_path / "db", read_only=True) as reading:
        assert ask(reading.collection("docs")) == first
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert ask(db.collection("docs")) == first


def test_cells_hold_until_the_collection_has_doubled(db: Database) -> None:
    docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
    docs.upsert(range(300), VECTORS[:300])
    first = centres_of(docs)
    docs.upsert(range(300, 380), VECTORS[300:380])
    docs.delete(range(0, 300, 2))
    assert centres_of(docs) is first, "512 rows are not reached"
    docs.upsert(range(1000, 1200), VECTORS[:200])
    assert len(centres_of(docs)) >= len(first) and centres_of(docs) is not first
    db.vacuum()
    assert len(docs.search_mixture([1, 1001], 10)) == 10


def test_cells_under_cosine_have_centres_of_unit_norm(db: Database) -> None:
    for name, index in KINDS.items():
        docs = db.create_collection(name, 8, "cosine", index)
        docs.upsert(range(400), VECTORS)
        docs.optimize()
        assert np.allclose(np.linalg.norm(centres_of(docs), axis=1), 1, atol=1e-5)


def test_fields_and_vectors_come_with_the_hits(db: Database) -> None:
    docs = db.create_collection("docs", 8, "l2")
    docs.upsert(range(50), VECTORS[:50], fields=[{"n": one, "m": -one} for one in range(50)])
    hits = docs.search_mixture([1, 2, 3], 10, fields=["n"], include_vectors=True)
    assert [one.fields for one in hits] == [{"n": one} for one in hits.ids.tolist()]
    assert (hits.vectors == VECTORS[hits.ids]).all()


def test_a_writer_beside_it_never_mixes_two_commits(db: Database) -> None:
    """All records move to the other end at each commit, positives among them: hits are at the positives' end."""
    docs = db.create_collection("docs", 2, "l2", vecdb.Flat())
    ends = [np.array([[side + at / 1000, 0.0] for at in range(40)]) for side in (0.0, 1000.0)]
    docs.upsert(range(40), ends[0])
    stop = threading.Event()

    def write() -> None:
        for turn in range(1, 100_000):
            if stop.is_set():
                return
            docs.upsert(range(40), ends[turn % 2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            hits = docs.search_mixture([0, 20], 20)
            assert len(hits) == 20 and hits.distances.max() < 1.0 and not {0, 20} & set(hits.ids.tolist())
    finally:
        stop.set()
        writer.join()


def test_positives_of_a_newer_commit_are_not_looked_for_in_an_older_one(
    three: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view is taken, a commit replaces the positive, its row is looked up: what a slow search may meet."""
    searcher = three._backend.searcher
    views = [searcher.state.snapshot]
    three.upsert([0], [[2000.0, 0.0]], tenants=["isle0", "all"])
    current = searcher.current
    monkeypatch.setattr(searcher.preparation, "current", lambda: views.pop() if views else current())
    hits = three.search_mixture([0], 3)
    assert hits.ids.tolist() == [200, 201, 202] and not views
    assert hits.sequence == searcher.state.snapshot.visibility.sequence


# -- damage ----------------------------------------------------------------------------------------


def test_a_key_that_leads_to_another_record_is_corruption(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("docs", 8, "l2")
    docs.upsert(range(20), VECTORS[:20])
    monkeypatch.setattr(record_reader, "rows_of_ids", lambda *of: [5])
    assert len(docs.search_mixture([5], 3)) == 3
    with pytest.raises(Corruption, match="leads to record 5"):
        docs.search_mixture([4], 3)
    monkeypatch.setattr(record_reader, "rows_of_ids", lambda *of: [20])
    with pytest.raises(Corruption, match="row 20 of 20"):
        docs.search_mixture([0], 3)


def test_a_damaged_row_of_the_sample_is_corruption(db: Database) -> None:
    docs = db.create_collection("docs", 8, "l2", vecdb.Flat())
    docs.upsert(range(20), VECTORS[:20])
    docs._backend.state.snapshot.generation.rows.arrays.crcs[3] ^= 1
    with pytest.raises(Corruption, match="row 3"):
        centres_of(docs)
