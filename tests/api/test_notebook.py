"""Bars and plots, for notebooks and terminals: on libraries that are asked for when they are needed."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import vecdb
from vecdb import InvalidArgument, VecdbError
from vecdb.api.database import Database


@pytest.fixture
def docs(db: Database) -> vecdb.Collection:
    made = db.create_collection("docs", 4, "l2", vecdb.Hnsw())
    rows = np.arange(1_200, dtype=np.float32).reshape(300, 4)
    made.upsert(range(300), rows, [{"title": f"<page> {at}"} for at in range(300)])
    return made


def test_a_bar_follows_the_work(docs: vecdb.Collection, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    docs.optimize(progress=True)
    docs.delete(range(0, 300, 2))
    docs.vacuum(progress=True)
    said = capfd.readouterr().err
    for text in ("optimize: 100%", "vacuum: 100%"):
        assert text in said, said


def test_what_is_no_progress_is_refused_and_nothing_begins(docs: vecdb.Collection) -> None:
    sequence = docs.stats()["sequence"]
    with pytest.raises(InvalidArgument, match=r"function of \(done, total\)"):
        docs.reindex(vecdb.Spann(), progress="yes")
    assert docs.stats()["sequence"] == sequence


def test_without_the_library_the_error_names_it(docs: vecdb.Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(VecdbError, match="progress=True needs the package tqdm: pip install tqdm"):
        docs.optimize(progress=True)
    with pytest.raises(VecdbError, match=r"plot\(\) needs the package matplotlib"):
        docs.search(np.ones(4, np.float32)).plot()


def test_hits_are_drawn(docs: vecdb.Collection) -> None:
    pytest.importorskip("matplotlib").use("agg")
    hits = docs.search(np.ones(4, np.float32), 3)
    axes = hits.plot()
    assert [bar.get_width() for bar in axes.patches] == hits.distances.tolist()
    assert [text.get_text() for text in axes.get_yticklabels()] == [str(one) for one in hits.ids.tolist()]
    named = hits.plot("title")
    assert [text.get_text() for text in named.get_yticklabels()] == [one["title"] for one in hits.fields]
    many = docs.search(np.ones((5, 4), np.float32), 3).plot(axes=axes)
    assert many is axes and len(axes.lines) == 5
    with pytest.raises(InvalidArgument, match="no hit has the field 'other'"):
        hits.plot("other")
