"""A collection finds out by itself how wide its searches must be, and scans where no width is enough.

Oracle: exact search of the same collection.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.corpus import EXACT
from tests.support.data_shapes import SHAPES, exact_distances, queries_of
from tests.support.data_shapes import recall as recall_by_rows
from vecdb.api.database import Database
from vecdb.query.learning.width_tuning import QuerySample

N, DIM = 6_000, 32


def learned(db: Database, shape: str, index: Any = None, metric: str = "l2") -> tuple[Any, np.ndarray]:
    """A collection after one step of background learning, and queries near its rows."""
    rng = np.random.default_rng(4)
    rows = SHAPES[shape](rng, N, DIM)
    docs = db.create_collection("docs", DIM, metric, index)
    learn(docs, rows)
    return docs, queries_of(rng, rows, 100)


def learn(docs: Any, rows: np.ndarray) -> None:
    docs.upsert(range(len(rows)), rows)
    docs._backend.jobs.index_tail(2, all_rows=True)
    docs._backend.jobs.learn(2)


def recall(docs: Any, queries: np.ndarray) -> float:
    found, true = docs.search(queries, 10), docs.search(queries, 10, params=EXACT)
    worst = true.distances[:, -1:]
    return float((found.distances <= worst + 1e-5 * np.abs(worst)).mean())


@pytest.mark.parametrize("index", [None, vecdb.Hnsw(), vecdb.Spann(), vecdb.Curator()], ids=str)
@pytest.mark.parametrize("shape", ["plain", "30 clusters .001", "log-normal 3"])
def test_default_searches_have_the_recall_that_they_are_said_to_have(db: Database, shape: str, index: Any) -> None:
    docs, queries = learned(db, shape, index)
    said = docs.stats()["recall"]
    assert said["limit"] == 10 and said["rows"] == N and said["at"].startswith("20")
    reached = recall(docs, queries)
    assert reached >= 0.95 and said["measured"] >= 0.95
    assert docs.search(queries[0], 10, explain=True).explain["recall_measured"] == pytest.approx(
        said["measured"], abs=1e-4
    )


@pytest.mark.parametrize("index", [vecdb.Hnsw(), vecdb.Spann(), vecdb.Curator()], ids=str)
def test_the_width_of_a_hundred_neighbours_is_learned_from_the_same_answers(
    db: Database, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second pass over all rows, and a curve that was followed past what is wanted, doubled the time of learning."""
    asked: list[int] = []
    of = QuerySample.of

    def counted(snapshot: Any, queries: Any, *args: Any, **more: Any) -> QuerySample:
        asked.append(len(queries))
        return of(snapshot, queries, *args, **more)

    monkeypatch.setattr(QuerySample, "of", counted)
    docs, queries = learned(db, "plain", index)
    kinds = 1 if index.kind == "hnsw" else 2
    assert len(asked) == 2 * kinds  # of all rows and of the newest: none is compared with all rows again
    state = docs._backend.state.snapshot.state
    assert state.hundred_width >= state.default_width
    measured = [point for point in state.recall_curve if point.limit == 100]
    assert measured and max(point.recall for point in measured) >= 0.97
    assert docs.evaluate(queries, 100)["recall"] >= 0.95


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_rows_that_were_held_back_are_found(db: Database, metric: str) -> None:
    """Links lead to rows that are stored: the width that they call for gave .92 on others under cosine."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(6_300, 32)).astype(np.float32)
    if metric == "ip":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    docs = db.create_collection("docs", 32, metric, vecdb.Hnsw())
    learn(docs, rows[300:])
    assert recall(docs, rows[:300]) >= 0.95


@pytest.mark.parametrize(("shape", "metric"), [("uniform", "l2"), ("two far groups", "ip"), ("bits", "cosine")])
def test_rows_between_rows_are_found_by_lists(db: Database, shape: str, metric: str) -> None:
    """Rows that were moved as far as their neighbours are lie outside of data without structure: recall was .93."""
    rng = np.random.default_rng(13)
    rows = SHAPES[shape](rng, N, 48)
    docs = db.create_collection("docs", 48, metric, vecdb.Spann())
    docs.upsert(range(N), rows)
    docs._backend.jobs.index_tail(2)
    docs._backend.jobs.learn(2)
    queries = queries_of(rng, rows, 400)
    assert recall_by_rows(docs.search(queries, 10).ids, exact_distances(rows, queries, metric), 10) >= 0.95


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_queries_between_integers_find_what_rows_themselves_find(db: Database, metric: str) -> None:
    """Where many rows are equal, what is found for a row says nothing about a query beside it: recall was .92."""
    rng = np.random.default_rng(3)
    exact = SHAPES["30 clusters .01"](rng, N, DIM)
    queries = queries_of(rng, exact, 400)
    step = np.quantile(np.abs(exact), 0.99) / 60
    docs = db.create_collection("docs", DIM, metric, vecdb.Spann(), dtype="int8")
    learn(docs, np.clip(np.round(exact / step), -128, 127).astype(np.int8))
    assert recall(docs, queries / step) >= 0.95


def test_where_no_width_is_enough_all_vectors_are_compared_and_explain_says_so(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "vecdb"):
        docs, queries = learned(db, "30 clusters .001", vecdb.Spann())
    report = docs.search(queries[0], 10, explain=True).explain
    assert report["plan"] == "exact" and "at most" in report["reason"]
    assert any("compare all vectors" in record.getMessage() for record in caplog.records)
    wide = docs.search(queries[0], 10, params=vecdb.SearchParams(nprobe=4), explain=True)
    assert wide.plan == "lists", "what the caller asks for is done"
    docs.reindex(vecdb.Flat())
    assert docs.stats()["recall"] is None, "what was measured of another index says nothing"


def test_a_width_that_was_given_is_kept_and_its_recall_is_told(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "vecdb"):
        docs, queries = learned(db, "gaussian", vecdb.Hnsw(m=8, ef_construction=40, ef=10))
    report = docs.search(queries[0], 10, explain=True).explain
    assert (report["plan"], report["ef"]) == ("graph", 10)
    assert docs.stats()["recall"]["measured"] < 0.95
    assert any("have recall@10 of" in record.getMessage() for record in caplog.records)
    assert docs.search(queries[0], 10, params=vecdb.SearchParams(recall=0.9), explain=True).explain["ef"] > 10


def test_searches_of_another_distribution_widen_the_default(db: Database) -> None:
    rng = np.random.default_rng(2)
    docs, _ = learned(db, "400 clusters .1", vecdb.Hnsw(m=8, ef_construction=60))
    before = docs.stats()["tuned_ef"]
    vectors = rng.normal(size=(1_000, DIM)).astype(np.float32)  # nowhere near the rows
    for part in np.array_split(vectors, 20):
        docs.search(part, 10)
    assert recall(docs, vectors[:300]) < 0.9, "a width for stored rows"
    assert docs._backend.jobs.learning_is_due() or docs._backend.writes.is_loading()
    docs._backend.jobs.learn(2)
    assert docs.stats()["tuned_ef"] > before
    assert recall(docs, rng.normal(size=(300, DIM)).astype(np.float32)) >= 0.95


def test_background_maintenance_learns_by_itself_and_what_it_learned_outlives_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    rows = SHAPES["half x.001 half x10"](rng, N, DIM)
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", DIM, "l2", vecdb.Hnsw())
        docs.upsert(range(N), rows)
        while docs.stats()["recall"] is None:
            docs._backend.state.wake_maintenance()
            docs.search(rows[0], 1)  # a bulk load is over when somebody searches
        assert docs.search(rows[:5], 10, params=vecdb.SearchParams(recall=0.9)).ids.shape == (5, 10)
        said = docs.stats()["recall"]
    with vecdb.open(tmp_path / "db", read_only=True) as db:
        docs = db.collection("docs")
        assert docs.stats()["recall"] == said
        assert recall(docs, queries_of(rng, rows, 100)) >= 0.95


@pytest.mark.parametrize("index", [vecdb.Hnsw(), vecdb.Curator()], ids=str)
def test_rows_that_came_last_have_the_recall_of_all(db: Database, index: Any) -> None:
    """Rows grow shorter, so that codes and tree are of the longer ones: the mean of all rows hides the newest."""
    rng = np.random.default_rng(1)
    n = 8_000 if isinstance(index, vecdb.Hnsw) else 26_000
    rows = SHAPES["plain"](rng, n, 48) * 10 ** np.linspace(0, -1.5, n, dtype=np.float32)[:, None]
    docs = db.create_collection("docs", 48, "l2", index)
    for part in np.split(np.arange(n), 4):
        docs.upsert(part, rows[part])
        docs._backend.jobs.index_tail(2)
    docs._backend.jobs.learn(2)
    newest = queries_of(rng, rows[-n // 10 :], 200)
    assert recall(docs, newest) >= 0.95, docs.stats()["recall"]
    assert docs.stats()["recall"]["measured"] >= 0.95
