"""Searches of list indexes over shards in two rounds: answers of one round, for about the reads of one collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.cluster.in_process import InProcessCluster
from vecdb import F, SearchParams, limits
from vecdb.api.hits import Hits, NamedRows
from vecdb.cluster.asking import two_rounds
from vecdb.embedded.open import open_database

SHARDS, ROWS, TAIL, DIM = 4, 1_600, 80, 16
RNG = np.random.default_rng(8)
# as data are: of fewer dimensions than vectors have
VECTORS = (RNG.normal(size=(ROWS + TAIL, 5)) @ RNG.normal(size=(5, DIM))).astype(np.float32)
VECTORS += RNG.normal(0, 0.3, VECTORS.shape).astype(np.float32)
QUERIES = (VECTORS[::120] + RNG.normal(0, 0.2, (14, DIM))).astype(np.float32)
FIELDS = [{"n": n, "third": n % 3} for n in range(ROWS + TAIL)]
ALL = SearchParams(nprobe=4_096, rerank=500)
# Of all lists where a third or a quarter of the records match: more of them would be scanned.
WIDENED = SearchParams(nprobe=4, rerank=200)
METRICS = ("l2", "ip", "cosine")


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "flat_rows_max", 64)
        patch.setattr(limits, "index_step_rows", 32)
        yield patch


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, patched: Any) -> Iterator[InProcessCluster]:
    made = InProcessCluster(tmp_path_factory.mktemp("rounds"), SHARDS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(db: vecdb.Database) -> dict[str, Any]:
    """A collection of each metric, with lists and tails, and tenants of its records."""
    return {metric: filled(db, metric, metric) for metric in METRICS}


def filled(db: Any, name: str, metric: str, rows: int = ROWS, tail: int = TAIL) -> Any:
    docs = db.create_collection(name, DIM, metric, index=vecdb.Spann())
    tenants = [[f"t{n % 4}"] if n % 4 else [] for n in range(rows + tail)]
    docs.upsert(range(rows), VECTORS[:rows], FIELDS[:rows], tenants[:rows])
    docs.optimize()
    if tail:
        docs.upsert(range(rows, rows + tail), VECTORS[rows : rows + tail], FIELDS[rows : rows + tail], tenants[rows:])
    return docs


def nearest(metric: str, query: np.ndarray, ids: Any, limit: int) -> list[int]:
    """The oracle."""
    some, q = VECTORS[np.array(ids)].astype(np.float64), query.astype(np.float64)
    products = some @ q
    far = {
        "l2": ((some - q) ** 2).sum(axis=1),
        "ip": -products,
        "cosine": 1 - products / np.sqrt((some**2).sum(axis=1) * (q @ q)),
    }[metric]
    return [int(one) for one in np.array(ids)[np.argsort(far, kind="stable")[:limit]]]


class Rounds:
    """What became of the searches of a test. between : called between two rounds."""

    def __init__(self) -> None:
        self.named: list[dict[int, Hits | NamedRows]] = []
        self.chosen: list[dict[int, NamedRows]] = []
        self.given_up = 0
        self.between: Callable[[], Any] = lambda: None


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> Rounds:
    seen = Rounds()
    choose, hits = two_rounds.chosen_rows, two_rounds.SearchInRounds.hits

    def watched(found: dict[int, Any], queries: int, limit: int, rerank: Any) -> dict[int, NamedRows]:
        seen.named.append(dict(found))
        seen.chosen.append(choose(found, queries, limit, rerank))
        seen.between()
        return seen.chosen[-1]

    def counted(self: Any, answered: Any) -> Hits | None:
        found = hits(self, answered)
        seen.given_up += found is None
        return found

    monkeypatch.setattr(two_rounds, "chosen_rows", watched)
    monkeypatch.setattr(two_rounds.SearchInRounds, "hits", counted)
    monkeypatch.setattr(two_rounds, "HITS_MIN", 1)
    return seen


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("limit", [1, 10, 60])
def test_two_rounds_find_what_there_is(whole: Any, rounds: Rounds, metric: str, limit: int) -> None:
    docs = whole[metric]
    expected = [nearest(metric, query, range(ROWS + TAIL), limit) for query in QUERIES]
    batch = docs.search(QUERIES, limit, params=ALL)
    assert batch.ids.tolist() == expected
    assert [[fields["n"] for fields in hits.fields] for hits in batch] == expected
    single = docs.search(QUERIES[0], limit, params=ALL, fields=["n"], include_vectors=True)
    assert single.ids.tolist() == expected[0] and single.distances.tolist() == batch.distances[0].tolist()
    assert np.array_equal(single.vectors, VECTORS[expected[0]])
    assert [hit.fields for hit in single] == [{"n": n} for n in expected[0]]
    assert len(rounds.chosen) == 2 and rounds.given_up == 0
    exact = docs.search(QUERIES, limit, params=SearchParams(exact=True))
    assert np.array_equal(exact.distances, batch.distances) and len(rounds.chosen) == 2


@pytest.mark.parametrize("metric", METRICS)
def test_at_narrow_widths_two_rounds_find_about_what_one_finds(
    whole: Any, rounds: Rounds, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    docs, params = whole[metric], SearchParams(nprobe=3)
    two = docs.search(QUERIES, 10, params=params)
    monkeypatch.setattr(two_rounds, "HITS_MIN", 1 << 30)
    one = docs.search(QUERIES, 10, params=params)
    assert len(rounds.chosen) == 1 and two.counts.tolist() == one.counts.tolist() == [10] * len(QUERIES)
    same = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(one.ids.tolist(), two.ids.tolist(), strict=True)])
    assert same >= 0.9


def test_filters_and_tenants_hold_in_both_rounds(whole: Any, rounds: Rounds) -> None:
    docs = whole["l2"]
    ids = range(ROWS + TAIL)
    for options, some in (
        ({"filter": F.third == 1}, [n for n in ids if n % 3 == 1]),
        ({"tenant": "t1"}, [n for n in ids if n % 4 == 1]),
        ({"tenant": "t1", "filter": F.n < 1_675}, [n for n in ids if n % 4 == 1 and n < 1_675]),
    ):
        found = docs.search(QUERIES, 8, params=WIDENED, **options)
        assert found.ids.tolist() == [nearest("l2", query, some, 8) for query in QUERIES]
    each = [F.third == n % 3 if n % 2 else None for n in range(len(QUERIES))]
    found = docs.search(QUERIES, 8, params=ALL, filter=each)
    assert found.ids.tolist() == [
        nearest("l2", query, [i for i in ids if not n % 2 or i % 3 == n % 3], 8) for n, query in enumerate(QUERIES)
    ]
    assert rounds.given_up == 0 and len(rounds.chosen) == 3  # a filter for each query: one round


def test_a_tenant_that_a_shard_does_not_know_is_asked_of_the_others(db: Any, whole: Any, rounds: Rounds) -> None:
    docs = whole["l2"]
    docs.upsert([5], VECTORS[5:6], [FIELDS[5]], tenants=["t1", "rare"])
    found = docs.search(QUERIES, 8, params=WIDENED, tenant=["t1", "rare"])
    some = [n for n in range(ROWS + TAIL) if n % 4 == 1]
    assert found.ids.tolist() == [nearest("l2", query, some, 8) for query in QUERIES]
    assert len(rounds.chosen) == 1
    with pytest.raises(vecdb.NotFound):
        docs.search(QUERIES, 8, tenant="nobody")


def test_shards_that_have_few_rows_settle(db: Any, rounds: Rounds) -> None:
    docs = db.create_collection("uneven", DIM, "l2", index=vecdb.Spann())
    shard = docs._backend._shards.members.placement.shard_of
    from vecdb.cluster.slots import slot_of_text  # records of an owner lie in one shard

    owners = {shard(slot_of_text(name.encode())): name for name in map(str, range(60))}
    assert len(owners) == SHARDS
    sizes = (600, 600, 40, 0)
    ids = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    for number, some in enumerate(ids):
        if len(some):
            docs.upsert(some, VECTORS[some], owner=owners[number])
    docs.optimize()
    for limit in (3, 50):
        found = docs.search(QUERIES, limit, params=ALL)
        assert found.ids.tolist() == [nearest("l2", query, range(sum(sizes)), limit) for query in QUERIES]
        assert found.owners is not None and set(found.sequence) == set(range(SHARDS))
    kinds = [type(rounds.named[-1][number]) for number in range(SHARDS)]
    assert kinds == [NamedRows, NamedRows, Hits, Hits]


def test_a_shard_without_near_rows_is_asked_once(whole: Any, rounds: Rounds) -> None:
    docs = whole["l2"]
    for at in range(8):
        found = docs.search(VECTORS[at], 1, params=SearchParams(nprobe=3), explain=True, fields=[])
        assert found.ids.tolist() == [at] and len(found.explain["shards"]) == SHARDS
    assert min(len(chosen) for chosen in rounds.chosen) < SHARDS


@pytest.mark.parametrize("rerank", [None, 9])
def test_what_is_chosen_is_what_one_collection_would_read(rerank: int | None) -> None:
    """Beside a loop over each query; shards that named no rows for a query, and one that has settled."""
    rng = np.random.default_rng(3)
    queries, limit = 40, 4
    counts = rng.integers(0, 12, (3, queries))
    counts[:, 0] = 0
    found: dict[int, Any] = {}
    for shard in (1, 2):
        n = int(counts[shard].sum())
        rows, far = rng.permutation(n), rng.integers(0, 30, n).astype(np.float32)
        found[shard] = NamedRows(rows, counts[shard], 5, 6, far, rng.random(n).astype(np.float32) * 8)
    distances = np.sort(rng.integers(0, 30, (queries, limit)), axis=1).astype(np.float32)
    sizes = np.minimum(counts[0], limit)
    distances[np.arange(limit) >= sizes[:, None]] = np.inf
    found[7] = Hits(np.zeros((queries, limit), int), distances, sizes, 1, "l2", False)
    expected: dict[int, list[list[int]]] = {1: [], 2: []}
    for query in range(queries):
        every = [(float(far), 7, 0.0, -1) for far in distances[query, : sizes[query]]]
        for shard in (1, 2):
            first = int(counts[shard][:query].sum())
            for at in range(first, first + int(counts[shard][query])):
                one = found[shard]
                every.append((float(one.estimates[at]), shard, float(one.margins[at]), int(one.rows[at])))
        order = {1: 0, 2: 1, 7: 2}
        every.sort(key=lambda one: (one[0], order[one[1]]))
        bound = every[limit - 1][0] + sum(one[2] for one in every[:limit]) / limit if len(every) >= limit else np.inf
        least = limit + 2 if rerank is None else rerank
        kept = [one for at, one in enumerate(every) if at < least or (rerank is None and one[0] <= bound)]
        for shard in (1, 2):
            expected[shard].append(sorted(one[3] for one in kept if one[1] == shard))
    chosen = two_rounds.chosen_rows(found, queries, limit, rerank)
    assert sorted(chosen) == [1, 2]
    for shard, one in chosen.items():
        parts = np.split(one.rows, np.cumsum(one.counts)[:-1])
        assert [sorted(part.tolist()) for part in parts] == expected[shard]
        assert (one.generation, one.sequence) == (5, 6)
    alone = {
        shard: NamedRows(np.empty(0, int), np.zeros(queries, int), 5, 6, *[np.empty(0, np.float32)] * 2)
        for shard in (1, 2)
    }
    assert two_rounds.chosen_rows(alone, queries, limit) == {}


# -- what is read ----------------------------------------------------------------------------------


def test_four_shards_read_about_what_one_collection_reads(
    whole: Any, rounds: Rounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(docs: Any, nprobe: int) -> int:
        said = docs.search(QUERIES, 10, params=SearchParams(nprobe=nprobe), explain=True).explain
        return sum(one["reranked"] for one in said.get("shards", {"": said}).values())

    with open_database(":memory:", maintenance=False) as here:
        one = read(filled(here, "docs", "l2"), 12)
    two = read(whole["l2"], 3)
    monkeypatch.setattr(two_rounds, "HITS_MIN", 1 << 30)
    alone = read(whole["l2"], 3)
    assert two <= 1.5 * one and alone >= 2 * one


def test_explain_says_the_work_of_both_rounds(whole: Any, rounds: Rounds) -> None:
    said = whole["ip"].search(QUERIES, 5, params=WIDENED, explain=True, filter=F.third != 0).explain
    assert said["plan"] == "lists" and "third" in said["filter"]
    for one in said["shards"].values():
        assert one["rows_scanned"] > 0 and one["reranked"] > 0 and one["reads"] > 0 and one["total_ms"] > 0
    chosen = sum(len(rows.rows) for rows in rounds.chosen[-1].values())
    assert sum(one["reranked"] for one in said["shards"].values()) <= chosen


# -- what happens in between -----------------------------------------------------------------------


@pytest.mark.parametrize("left", [400, 12])
def test_rows_that_are_deleted_in_between_cost_no_hit(db: Any, rounds: Rounds, left: int) -> None:
    docs = filled(db, f"deleted-{left}", "l2", 800, 30)
    gone = nearest("l2", QUERIES[0], range(830), 830 - left)
    rounds.between = lambda: docs.delete(gone)
    found = docs.search(QUERIES[0], 10, params=SearchParams(nprobe=4_096, rerank=100))
    assert found.ids.tolist() == nearest("l2", QUERIES[0], [n for n in range(830) if n not in set(gone)], 10)
    assert rounds.given_up == 1


def test_rows_that_are_numbered_anew_in_between_cost_no_hit(db: Any, rounds: Rounds) -> None:
    docs = filled(db, "vacuumed", "l2", 800, 30)
    docs.delete(range(0, 800, 10))

    def renumber() -> None:
        docs.vacuum()
        docs.upsert(range(5_000, 5_400), np.full((400, DIM), 900.0))  # so that all the numbers are of some row

    rounds.between = renumber
    params = SearchParams(nprobe=4_096, rerank=100)
    found = docs.search(QUERIES, 10, params=params)
    alive = [n for n in range(830) if n % 10 or n >= 800]
    assert found.ids.tolist() == [nearest("l2", query, alive, 10) for query in QUERIES]
    assert rounds.given_up == 1
    rounds.between = lambda: None
    assert docs.search(QUERIES, 10, params=params).ids.tolist() == found.ids.tolist() and rounds.given_up == 1


def test_what_a_filter_and_tenants_say_in_the_second_round_counts(db: Any, rounds: Rounds) -> None:
    docs, params = filled(db, "changed", "l2", ROWS, 0), SearchParams(nprobe=3, rerank=300)
    rounds.between = lambda: docs.update(filter=F.n < 400, fields={"third": 7})
    found = docs.search(QUERIES, 10, params=params, filter=F.third == 1)
    some = [n for n in range(400, ROWS) if n % 3 == 1]
    assert found.ids.tolist() == [nearest("l2", query, some, 10) for query in QUERIES]
    rounds.between = lambda: docs.revoke(range(1, 400, 4), "t1")
    found = docs.search(QUERIES, 10, params=params, tenant="t1")
    assert found.ids.tolist() == [nearest("l2", query, range(401, ROWS, 4), 10) for query in QUERIES]
    assert [len(one) for one in rounds.chosen] == [SHARDS, SHARDS]


def test_a_search_is_stopped_between_the_rounds(whole: Any, rounds: Rounds) -> None:
    ended = []
    rounds.between = lambda: ended.append(True)
    with pytest.raises(vecdb.Unavailable, match="cancelled"):
        whole["l2"].search(QUERIES, 10, params=ALL, stop=lambda: bool(ended))


def test_a_shard_that_fails_in_between_is_missing_as_in_one_round(tmp_path: Path, patched: Any, rounds: Rounds) -> None:
    cluster = InProcessCluster(tmp_path, 2)
    try:
        with cluster.open(timeout=5.0) as db, cluster.open(timeout=5.0, allow_partial=True) as partial:
            docs = filled(db, "docs", "l2", 400, 0)
            some = partial.collection("docs")
            rounds.between = lambda: cluster.stop("shard-1") if "shard-1" in cluster.running else None
            found = some.search(QUERIES, 10, params=ALL)
            assert found.missing == (1,) and rounds.given_up == 1 and found.counts.tolist() == [10] * len(QUERIES)
            with pytest.raises(vecdb.Unavailable, match="shard 1"):
                docs.search(QUERIES, 10, params=ALL)
    finally:
        cluster.close()
