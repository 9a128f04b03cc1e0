"""Vectors of bits under hamming and jaccard, the same whichever way the database is opened, and right by counting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.planner_costs import set_planner_costs
from vecdb import limits
from vecdb.embedded.open import open_database
from vecdb.storage.disk import manifest

ROWS, DIM = 200, 48
RNG = np.random.default_rng(8)
BITS = RNG.random((ROWS, DIM)) < RNG.random((ROWS, 1))
PACKED = np.packbits(BITS, axis=1)
QUERIES = RNG.random((4, DIM)) < 0.4


def counted(bits: Any, query: Any, metric: str) -> Any:
    shared, either = (bits & query).sum(axis=1), (bits | query).sum(axis=1)
    if metric == "hamming":
        return (either - shared).astype(np.float64)
    return np.where(either == 0, 0.0, 1 - shared / np.maximum(either, 1))


@pytest.mark.parametrize("metric", ["hamming", "jaccard"])
def test_the_nearest_are_found(db: Any, metric: str) -> None:
    docs = db.create_collection("docs", DIM, metric, dtype="bits")
    assert (docs.dim, docs.metric, docs.dtype, docs.config.dim) == (DIM, metric, "bits", DIM)
    docs.upsert(range(100), PACKED[:100], [{"even": one % 2 == 0} for one in range(100)])
    docs.upsert(range(100, ROWS), BITS[100:])  # the same, not packed
    for query in QUERIES:
        true = counted(BITS, query, metric)
        for given in (
            np.packbits(query),
            query,
            query.tolist(),
            query.astype(int).tolist(),
            np.packbits(query).tolist(),
        ):
            hits = docs.search(given, 5, include_vectors=True)
            assert np.allclose(hits.distances, np.sort(true)[:5]) and np.allclose(true[hits.ids], hits.distances)
            assert np.array_equal(hits.vectors, PACKED[hits.ids])
            one_less = 1 if metric == "jaccard" else 0
            assert np.allclose(hits.scores, one_less - hits.distances)
        some = docs.search(query, ROWS, filter=vecdb.F.even == True)  # noqa: E712
        assert len(some) == 50 and np.allclose(some.distances, np.sort(true[:100:2]))
    together = docs.search(QUERIES, 5)
    assert np.array_equal(together.ids, docs.search(np.packbits(QUERIES, axis=1), 5).ids)
    record = docs.get(7, include_vectors=True)
    assert record.vector.dtype == np.uint8 and np.array_equal(record.vector, PACKED[7])
    docs.optimize()
    assert np.allclose(docs.search(QUERIES[0], 5).distances, np.sort(counted(BITS, QUERIES[0], metric))[:5])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"metric": "hamming"}, "goes with"),
        ({"metric": "jaccard", "dtype": "uint8"}, "goes with"),
        ({"metric": "l2", "dtype": "bits"}, "goes with"),
        ({"metric": "hamming", "dtype": "bits", "dim": 20}, "multiple of 8"),
        ({"metric": "hamming", "dtype": "bits", "dim": None}, "multiple of 8"),
        ({"metric": "hamming", "dtype": "bits", "index": vecdb.Spann()}, r"takes vecdb\.Flat"),
        ({"metric": "hamming", "dtype": "bits", "index": vecdb.Curator()}, r"takes vecdb\.Flat"),
    ],
)
def test_a_collection_that_cannot_be_is_refused(db: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=words):
        db.create_collection("docs", **({"dim": DIM} | arguments))
    assert db.collections() == []


def test_what_are_no_bits_is_refused_and_changes_nothing(db: Any) -> None:
    docs = db.create_collection("docs", DIM, "hamming", dtype="bits")
    docs.upsert(1, PACKED[0])
    for vector, words in (
        ([2] + [0] * (DIM - 1), "bits are 0 and 1"),
        ([0.5] * DIM, "bits are 0 and 1"),
        ([256] + [0] * (DIM // 8 - 1), "from 0 to 255"),
        ([-1] + [0] * (DIM // 8 - 1), "from 0 to 255"),
        ([1.5] + [0] * (DIM // 8 - 1), "from 0 to 255"),
        (np.ones(DIM + 8, bool), "6 bytes or 48 bits"),
        (np.ones(DIM // 8 + 1, np.uint8), "6 bytes or 48 bits"),
    ):
        with pytest.raises(vecdb.InvalidArgument, match=words):
            docs.upsert(1, vector)
        with pytest.raises(vecdb.InvalidArgument, match=words):
            docs.search(vector, 1)
    with pytest.raises(vecdb.InvalidArgument, match=r"takes vecdb\.Flat"):
        docs.reindex(vecdb.Spann())
    with pytest.raises(vecdb.InvalidArgument, match="vectors of numbers"):
        docs.search_mixture([1])
    assert len(docs) == 1 and np.array_equal(docs.get(1, include_vectors=True).vector, PACKED[0])


@pytest.mark.parametrize("metric", ["hamming", "jaccard"])
def test_a_graph_finds_nearly_all_after_changes_and_an_open(
    tmp_path: Path, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "flat_rows_max", 100)
    set_planner_costs(monkeypatch, scan_share=1e9)  # so few rows would be scanned
    rng = np.random.default_rng(9)
    rows, dim, queries = 3_000, 256, 60
    centres = rng.random((30, dim)) ** 2
    bits = rng.random((rows + queries, dim)) < centres[rng.integers(0, 30, rows + queries)]
    bits, asked = bits[:rows], bits[rows:]
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", dim, metric, vecdb.Hnsw(), "bits")
        docs.upsert(range(rows), np.packbits(bits, axis=1))
        docs.optimize()
        docs.delete(range(0, rows, 10))
        docs.upsert(range(5, rows, 100), np.packbits(~bits[5::100], axis=1))
        bits[5::100] = ~bits[5::100]
        docs.optimize()
        docs.vacuum()
        assert db.check() == []
    live = np.setdiff1d(np.arange(rows), np.arange(0, rows, 10))
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.collection("docs")
        hits = docs.search(asked, 10, params=vecdb.SearchParams(ef=80), explain=True)
        assert hits.explain["plan"] == "graph"
        for query, ids, distances in zip(asked, hits.ids, hits.distances, strict=True):
            assert np.allclose(counted(bits[ids], query, metric), distances)
        worst = [np.sort(counted(bits[live], query, metric))[9] for query in asked]
        assert (hits.distances <= np.array(worst)[:, None] + 1e-6).mean() >= 0.95


def test_the_first_such_collection_raises_the_format(tmp_path: Path) -> None:
    path = tmp_path / "db"

    def format_now() -> Any:
        return json.loads((path / manifest.NAME).read_text())["format_version"]

    with open_database(path, maintenance=False) as db:
        db.create_collection("numbers", DIM)
        assert format_now() == manifest.FORMAT_VERSION
        db.create_collection("docs", DIM, "hamming", dtype="bits")
        assert format_now() == manifest.BIT_VECTORS
        db.backup(tmp_path / "copy")
    vecdb.restore(tmp_path / "copy", tmp_path / "restored")
    with open_database(tmp_path / "restored", maintenance=False) as db:
        assert (db.collection("docs").dim, db.collection("docs").dtype) == (DIM, "bits")
