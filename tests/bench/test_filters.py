"""`vecdb bench filters`: conditions and truth against plain Python; a small run, for shape and not for speed."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb_bench import filters
from vecdb_bench.filters import cells, lineup, plot, report
from vecdb_bench.filters.conditions import Data, conditions, filter_of, load_data

PLAN = dataclasses.replace(filters.Plan(dataset="clustered-2000x8", rows=2_000, threads=1).quick(), parts=(1, 4, 100))


@pytest.fixture(scope="module")
def data() -> Data:
    return load_data(PLAN)


def test_each_condition_matches_its_share_where_it_says(data: Data) -> None:
    apart = data.distances()
    for one in conditions(data, PLAN.parts):
        for query, terms in enumerate(one.terms):
            mask = data.mask(terms)
            loose = 0.6 if one.shape == "two keywords" else 0.01  # half of a cluster, drawn at random
            assert mask.sum() == pytest.approx(2_000 / one.parts, rel=loose), (one.name, query)
            mean, whole = apart[query][mask].mean(), apart[query].mean()
            if one.parts == 100 and one.correlation != "independent":
                assert (mean < whole) == (one.correlation == "near"), (one.name, query)


def test_filters_find_the_rows_of_their_masks_new_or_not(data: Data) -> None:
    with vecdb.open(":memory:") as db:
        docs = db.create_collection("bench", dim=8, metric=data.metric, index=vecdb.Flat())
        docs.upsert(np.arange(2_000), data.base, fields=data.records(0, 2_000))
        for at, one in enumerate(conditions(data, PLAN.parts)):
            for asked in (filter_of(one.terms[0]), filter_of(one.terms[0], at)):
                wanted = np.flatnonzero(data.mask(one.terms[0])).tolist()
                assert docs.count(filter=asked) == len(wanted), one.name
                if one.parts == 100:
                    found = sorted(record.id for record in docs.get(filter=asked, limit=100))
                    assert found == wanted, one.name


def test_answers_are_judged_by_the_nearest_that_match(data: Data) -> None:
    one = next(each for each in conditions(data, (100,)) if each.shape == "keyword")
    apart = data.distances()
    truth = cells.Truth(data, apart, one)
    rows = np.flatnonzero(data.mask(one.terms[0]))
    best = rows[np.argsort(apart[0][rows])]
    others = np.setdiff1d(np.arange(2_000), rows)
    assert truth.recall(0, best[:10], 10) == 1
    assert truth.recall(0, [*best[:5], *others[:5]], 10) == 0.5
    assert truth.recall(0, [best[0]] * 10, 10) == 0.1
    assert truth.recall(0, best, 100) == 1 and len(rows) < 100

    class Hits:
        def __init__(self, ids: Any) -> None:
            self.ids, self.distances = ids, apart[0][ids]

    assert truth.faults(0, Hits(best[:10]), 10) == 0
    assert truth.faults(0, Hits(best[:9]), 10) == 1  # short
    assert truth.faults(0, Hits(best[:10][::-1]), 10) == 1  # not in order
    assert truth.faults(0, Hits(np.sort(others[:10])), 10) == 1  # of others
    wrong = Hits(best[:10])
    wrong.distances = wrong.distances + 0.5
    assert truth.faults(0, wrong, 10) == 1


def test_a_run_measures_every_cell_and_reports_a_peer_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(lineup._SCRIPTS, "zvec", ("missing", {}))  # as where it is not installed
    peers = ("faiss-flat", "zvec") if importlib.util.find_spec("faiss") else ("zvec",)
    plan = dataclasses.replace(PLAN, parts=(1, 100), peers=peers, kept=str(tmp_path / "kept"), kinds=("hnsw", "spann"))
    result = filters.run(plan)
    points = result["cells"]
    assert len([p for p in points if p["way"] == "default"]) == 2 * 3 * 4 * 2 * 2
    assert sum(p["faults"] for p in points) == 0
    assert min(p["recall"] for p in points if p["way"] == "exact") == 1
    assert "zvec" in result["peers"]["failed"] and "zvec" not in {p["engine"] for p in result["peers"]["points"]}
    assert result["bitmaps"]["cold"] and result["tables"]["failed"]
    if importlib.util.find_spec("matplotlib"):
        assert [file.read_text()[:5] for file in plot.plot(result, tmp_path / "plot")] == ["<?xml"] * 2
    with pytest.raises(vecdb.InvalidArgument, match="another plan"):
        filters.run(dataclasses.replace(plan, seed=2))


def test_the_default_is_compared_with_the_best_that_reaches_the_recall() -> None:
    about = {"kind": "hnsw", "correlation": "far", "shape": "range", "parts": 10, "percent": 10.0, "limit": 10}
    points = [
        about | {"way": way, "recall": recall, "us": us, "fresh_us": None}
        for way, recall, us in (
            ("default", 0.97, 130.0),
            ("ef 16", 0.8, 20.0),
            ("scan", 1.0, 70.0),
            ("exact", 1, 300.0),
        )
    ]
    (row,) = report.by_best(points, 0.95)
    assert row["best"] == "scan" and row["by best + 30"] == pytest.approx(1.3)


@pytest.mark.parametrize(
    ("wrong", "told"), [({"peers": ("solr",)}, "solr"), ({"kinds": ("tree",)}, "tree"), ({"measures": ("x",)}, "x")]
)
def test_unknown_names_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=told):
        filters.run(dataclasses.replace(PLAN, **wrong))
