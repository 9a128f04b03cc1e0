"""Parameters of posting lists, how many lists a search looks at, and what explain and stats say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.corpus import EXACT, clustered, sound
from tests.support.spann.collection import DIM, KINDS, care, held_bytes, lengths_of, recall
from vecdb import limits
from vecdb.api.database import Database
from vecdb.embedded.open import open_database
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.schema import SearchParams, Spann

pytestmark = pytest.mark.usefixtures("lists_are_used")

# -- parameters ------------------------------------------------------------------------------------


BAD = [
    {"bits": 3}, {"bits": 0}, {"bits": 16}, {"bits": "2"}, {"bits": True}, {"bits": 2.0}, {"bits": None},
    {"replicas": 0}, {"replicas": 9}, {"replicas": 1.5}, {"replicas": True},
    {"head_ratio": 0}, {"head_ratio": 0.0005}, {"head_ratio": 0.3}, {"head_ratio": float("nan")},
    {"head_ratio": float("inf")}, {"head_ratio": "0.1"}, {"head_ratio": None}, {"head_ratio": True},
    {"nprobe": 0}, {"nprobe": -1}, {"nprobe": 65_537}, {"nprobe": 3.0}, {"nprobe": "many"},
    {"rerank": 0}, {"rerank": 65_537}, {"rerank": [40]},
    {"memory_budget_bytes": -1}, {"memory_budget_bytes": 1.5}, {"memory_budget_bytes": 1 << 63},
    {"posting_bytes_max": 4_095}, {"posting_bytes_max": (1 << 24) + 1}, {"posting_bytes_max": "8 KiB"},
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD, ids=[str(one) for one in BAD])
def test_a_bad_parameter_is_refused_and_nothing_is_written(db: Database, docs: Any, bad: dict[str, Any]) -> None:
    before, state = docs.stats(), db.stats()["commits"]
    name = next(iter(bad))
    for call in (lambda: db.create_collection("other", 4, "l2", Spann(**bad)), lambda: docs.reindex(Spann(**bad))):
        with pytest.raises(InvalidArgument, match=name):
            call()
    assert db.collections() == ["docs"] and docs.stats() == before and db.stats()["commits"] == state


def test_bounds_of_a_parameter_are_taken_and_kept(tmp_path: Path) -> None:
    least = Spann(1, 1, limits.head_ratio_min, 1, 1, 0, limits.posting_bytes_min)
    most = Spann(8, 8, limits.head_ratio_max, limits.nprobe_max, limits.rerank_max, 1 << 40, limits.posting_bytes_max)
    with open_database(tmp_path / "db", maintenance=False, durability="relaxed") as db:
        for name, index in (("least", least), ("most", most)):
            docs = db.create_collection(name, 16, "l2", index)
            docs.upsert(range(600), clustered(600, 16))
            docs.optimize()
            sound(docs.search(clustered(4, 16, seed=2), 700), set(range(600)), 700)
    with open_database(tmp_path / "db", maintenance=False) as db:
        assert db["least"].config.index == least and db["most"].config.index == most
        assert recall(db["most"], clustered(50, 16, seed=2), None) > 0.98 and db.check() == []


@pytest.mark.parametrize("nprobe", [0, -1, 1.5, True, "8", limits.nprobe_max + 1])
def test_a_bad_nprobe_of_a_search_is_refused(db: Database, nprobe: Any) -> None:
    docs = db.create_collection("docs", 4, "l2", Spann())
    with pytest.raises(InvalidArgument, match="nprobe"):
        docs.search(np.ones(4), 3, params=SearchParams(nprobe=nprobe))
    with pytest.raises(InvalidArgument, match="not both"):
        docs.search(np.ones(4), 3, params=SearchParams(nprobe=4, recall=0.9))
    assert issubclass(LimitExceeded, InvalidArgument)


# -- what it says ----------------------------------------------------------------------------------


@pytest.fixture
def corpus(db: Database) -> Any:
    """collection(index, n=, metric=) -> docs in which n clustered rows are indexed."""

    def one(index: Spann, n: int = 2_000, metric: str = "l2") -> Any:
        docs = db.create_collection("docs", DIM, metric, index)
        docs.upsert(range(n), clustered(n))
        docs.optimize()
        return docs

    return one


def test_explain_counts_probes_rows_reads_and_bytes(corpus: Any, kind: Spann) -> None:
    docs = corpus(kind)
    docs.upsert(range(2_000, 2_010), clustered(10, seed=3))
    heads = len(lengths_of(docs))
    reports = {}
    for nprobe in (1, 8, heads):
        docs._backend.state.snapshot.generation.index._context = None
        report = docs.search(clustered(1, seed=2)[0], 10, params=SearchParams(nprobe=nprobe), explain=True).explain
        assert (report["plan"], report["nprobe"], report["ef"]) == ("lists", nprobe, None)
        assert (report["reason"], report["index_state"], report["tail_rows"]) == ("nprobe given", "ready", 10)
        assert 1 <= report["probes"] <= heads and report["heads_compared"] >= report["probes"]
        assert 0 < report["rows_scanned"] <= lengths_of(docs).sum()
        assert report["bytes_read"] % 4096 == 0 and report["bytes_read"] >= 4096 * report["reads"] > 0
        assert 10 <= report["reranked"] <= 60
        assert all(report[name] >= 0 for name in ("heads_ms", "scan_ms", "read_ms", "rerank_ms"))
        parts = sum(report[name] for name in ("heads_ms", "scan_ms", "read_ms", "rerank_ms"))
        assert parts <= report["search_ms"] <= report["total_ms"]
        reports[nprobe] = report
    assert reports[1]["rows_scanned"] < reports[8]["rows_scanned"] <= reports[heads]["rows_scanned"]
    assert reports[heads]["rows_scanned"] > 0.3 * lengths_of(docs).sum()
    if kind.memory_budget_bytes is None:
        assert all(report["reads"] <= report["reranked"] for report in reports.values()), "vectors alone are read"
    if kind.memory_budget_bytes == 0:
        assert all(report["reads"] > report["probes"] for report in reports.values()), "lists are read as well"
    true = docs.search(clustered(1, seed=2)[0], 10, params=EXACT, explain=True).explain
    assert true["plan"] == "exact" and true["nprobe"] is None and "probes" not in true


def test_work_of_a_batch_is_that_of_its_queries_whatever_the_threads(corpus: Any, kind: Spann) -> None:
    docs = corpus(replace(kind, memory_budget_bytes=0) if kind.memory_budget_bytes else kind)
    queries = clustered(50, seed=2)
    single = [docs.search(query, 10, params=SearchParams(nprobe=8), explain=True) for query in queries]
    for threads in (1, 3):
        batch = docs.search(queries, 10, params=SearchParams(nprobe=8, threads=threads), explain=True)
        for name in ("probes", "heads_compared", "rows_scanned", "reranked"):
            assert batch.explain[name] == sum(one.explain[name] for one in single), name
        assert np.array_equal(batch.ids, np.stack([one.ids for one in single]))
        assert batch.explain["reads"] <= sum(one.explain["reads"] for one in single), "a slice reads a list once"


def test_stats_say_what_lists_there_are_and_what_they_take(corpus: Any, kind: Spann) -> None:
    docs = corpus(kind)
    stats, index = docs.stats(), docs.stats()["index_stats"]
    names = {
        "kind", "bits", "replicas", "indexed_rows", "heads", "groups", "entries", "list_length", "ceiling",
        "pending_splits", "lists_in_memory", "far_rows", "list_file_bytes", "list_file_garbage_bytes",
        "removed_sequence", "bytes_ram",
    }  # fmt: skip
    assert names <= set(index)
    lengths, replicas = lengths_of(docs), 4 if kind.memory_budget_bytes == 0 else 1
    assert (index["kind"], index["bits"], index["replicas"], index["indexed_rows"]) == ("spann", 2, replicas, 2_000)
    assert index["heads"] == len(lengths) >= 0.01 * 2_000 and 1 <= index["groups"] <= index["heads"]
    assert 2_000 <= index["entries"] == lengths.sum() <= 2_000 * replicas
    length = index["list_length"]
    assert length["p1"] <= length["p50"] <= length["p99"] <= length["max"] == lengths.max() <= index["ceiling"]
    assert length["mean"] == pytest.approx(index["entries"] / index["heads"])
    assert index["pending_splits"] == 0 and 0 <= index["far_rows"] < 20
    assert index["list_file_bytes"] % 4096 == 0 and index["list_file_bytes"] >= held_bytes(docs)
    assert 0 <= index["list_file_garbage_bytes"] < index["list_file_bytes"]
    in_memory = {None: index["heads"], 0: int((lengths == 0).sum())}.get(kind.memory_budget_bytes)
    if in_memory is None:
        assert 0 < index["lists_in_memory"] < index["heads"] and held_bytes(docs) <= 6_000
    else:
        assert index["lists_in_memory"] == in_memory
    assert stats["index"]["kind"] == "spann" and stats["bytes_ram"] > index["bytes_ram"] > held_bytes(docs)
    assert stats["bytes_disk"] >= index["list_file_bytes"] + 2_000 * DIM * 4
    assert (stats["sealed_rows"], stats["tail_rows"], stats["index_state"]) == (2_000, 0, "ready")
    docs.delete(range(100))
    care(docs)
    assert docs.stats()["index_stats"]["removed_sequence"] == docs._backend.state.snapshot.visibility.sequence


# -- how many lists are looked at -----------------------------------------------------------------


def nprobe_of(docs: Any, params: SearchParams | None = None, limit: int = 10) -> tuple[int, str]:
    report = docs.search(clustered(1, seed=2)[0], limit, params=params, explain=True).explain
    assert report["plan"] == "lists"
    return report["nprobe"], report["reason"]


def test_nprobe_comes_from_the_call_then_from_what_was_tuned_then_from_the_index(db: Database) -> None:
    docs = db.create_collection("docs", DIM, "l2", Spann(nprobe=5))
    docs.upsert(range(2_000), clustered(2_000))
    care(docs)
    assert nprobe_of(docs) == (5, "default of the index")
    assert nprobe_of(docs, SearchParams(nprobe=3)) == (3, "nprobe given")
    unmeasured = docs.search(clustered(1)[0], 10, params=SearchParams(recall=0.9), explain=True)
    assert unmeasured.plan == "exact" and "nothing is measured yet" in unmeasured.explain["reason"]
    docs.optimize()
    assert nprobe_of(docs) == (5, "default of the index"), "the user's own number is left alone by optimize"
    curve = docs.tune(clustered(200, seed=2), recall=0.9)
    assert all(set(point) == {"nprobe", "recall", "queries_per_second"} for point in curve)
    assert [point["nprobe"] for point in curve] == sorted({point["nprobe"] for point in curve}) and len(curve) > 1
    chosen = next(point["nprobe"] for point in curve if point["recall"] >= 0.9)
    assert nprobe_of(docs) == (chosen, "tuned")
    docs.optimize()
    assert nprobe_of(docs) == (chosen, "tuned"), "what the user tuned, optimize leaves alone"
    assert nprobe_of(docs, SearchParams(nprobe=3)) == (3, "nprobe given")
    docs.reindex(Spann())
    assert not docs._backend.state.snapshot.state.tuned_by_user, "another index forgets what was tuned, and learns anew"


@pytest.mark.parametrize(
    ("metric", "name"), [("l2", "memory"), ("cosine", "memory"), ("ip", "memory"), ("cosine", "disk"), ("ip", "disk")]
)
def test_a_recall_that_was_asked_for_is_reached_by_queries_that_are_not_stored(
    corpus: Any, metric: str, name: str
) -> None:
    docs = corpus(KINDS[name], 2_000, metric)
    assert nprobe_of(docs)[1] == "learned", "optimize chose where the index says nothing"
    queries, widths = clustered(300, seed=2), []
    for wanted in (0.8, 0.95, 0.99):
        report = docs.evaluate(queries, 10, params=SearchParams(recall=wanted))
        print(metric, wanted, report["recall"], report["nprobe"])
        assert report["plan"] == "lists" and report["recall"] >= min(wanted, 0.98)
        widths.append(report["nprobe"])
    assert widths == sorted(widths) and widths[-1] >= 10
    assert recall(docs, queries, None) >= 0.93


# -- rerank of one search ---------------------------------------------------------------------------


def test_a_search_says_how_many_rows_are_scored_on_their_vectors() -> None:
    with open_database(":memory:", maintenance=False) as db:
        docs = db.create_collection("docs", 32, "l2", Spann(bits=1, rerank=200))
        vectors, queries = clustered(6_000), clustered(30, seed=2)
        docs.upsert(range(6_000), vectors)
        docs.optimize()
        true = docs.search(queries, 10, params=EXACT).ids
        scored, right = [], []
        for rerank in (None, 12, 90):
            params = SearchParams(nprobe=64, rerank=rerank)
            hits = docs.search(queries, 10, params=params, explain=True)
            sound(hits, set(range(6_000)), 10)
            scored.append(hits.explain["reranked"] / len(queries))
            right.append(np.mean([len(set(a) & set(b)) for a, b in zip(hits.ids.tolist(), true.tolist(), strict=True)]))
        assert scored[1] == 12 < scored[0] < scored[2] == 90
        assert right[1] < right[0] < right[2]
        among = SearchParams(nprobe=64, rerank=12)
        docs.upsert(range(100), vectors[:100], fields=[{"half": True}] * 100)
        assert len(docs.search(queries[0], 10, params=among, filter="half = true")) == 10
        for bad in (0, 65_537, 2.5, "12"):
            with pytest.raises(InvalidArgument, match="rerank"):
                docs.search(queries[0], params=SearchParams(rerank=bad))  # type: ignore[arg-type]
