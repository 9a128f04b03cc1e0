"""Recall against effort and the map of vectors: against what numpy and the collection themselves say."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.errors import InvalidArgument, Unavailable
from vecdb.integrations.console.drawings import curve, projection
from vecdb.integrations.console.jobs import Job, Jobs


@pytest.mark.parametrize(("n", "dim"), [(2, 3), (50, 2), (400, 17), (30, 200), (10, 1)])
def test_two_principal_components_are_those_of_a_full_decomposition(n: int, dim: int) -> None:
    random = np.random.default_rng(n)
    vectors = random.standard_normal((n, dim)) * np.linspace(5, 0.1, dim) + 3
    points, share = projection.principal(vectors)
    centred = vectors - vectors.mean(axis=0)
    left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
    wanted = (left * strengths)[:, :2]
    assert share == pytest.approx((strengths[:2] ** 2).sum() / (strengths**2).sum(), abs=5e-3)
    assert np.abs(points).max() == pytest.approx(1)
    top = np.abs(wanted).max()
    for axis in range(min(wanted.shape[1], 1)):  # the second may turn where two are about as strong
        assert np.abs(points[:, axis]) == pytest.approx(np.abs(wanted[:, axis]) / top, abs=0.03)


def test_vectors_that_are_all_the_same_are_one_point() -> None:
    points, share = projection.principal(np.ones((9, 4)))
    assert (points == 0).all() and share == 1.0


def test_a_sample_is_spread_over_all_records_and_leaves_out_those_without_a_vector(notes: vecdb.Collection) -> None:
    notes.upsert(500, None, {"lang": "none"})
    drawn = projection.drawn(notes, sample_max=30)
    ids = [one.id for one in drawn.records]
    assert len(ids) in (29, 30) and 500 not in ids and drawn.total == 121
    gaps = np.diff([int(one) for one in ids])
    assert gaps.min() >= 4 and gaps.max() <= 5
    assert len(projection.drawn(notes).records) == 120
    own = projection.drawn(notes, tenant="a")
    assert {one.id for one in own.records} == {one.id for one in notes.get(limit=500, tenant="a")}


def test_drawing_ends_early_where_it_is_stopped_and_says_when_there_is_nothing(
    notes: vecdb.Collection, db: vecdb.Database
) -> None:
    notes.upsert(range(1_000, 4_000), np.random.default_rng(0).standard_normal((3_000, 4)))
    part = projection.drawn(notes, stop=lambda: True)
    assert (part.walked, part.total) == (1_000, 3_120) and len(part.records) == 1_000
    with pytest.raises(InvalidArgument, match="nothing to draw"):
        projection.drawn(db.create_collection("empty", 2))


def test_colours_of_values_and_of_numbers() -> None:
    records = [vecdb.Record(at, {"a": "xyz"[at % 3], "n": at, "b": at % 2 == 0, "l": [at]}) for at in range(90)]
    records.append(vecdb.Record(90, {"n": float("nan")}))
    codes, legend, kind = projection.colours(records, "a")
    assert kind == "values" and sorted(legend) == ["x", "y", "z"] and codes[-1] == -1
    assert [legend[code] for code in codes[:3]] == ["x", "y", "z"]
    codes, legend, kind = projection.colours(records, "n")
    assert kind == "steps" and len(legend) == 6 and codes[-1] == -1
    assert codes[:90] == sorted(codes[:90]) and set(codes[:90]) == set(range(6))
    assert projection.colours(records, "")[:2] == ([-1] * 91, [])
    assert projection.colours(records, "l")[1] == []
    assert projection.colour_fields(records) == ["a", "b", "n"]
    assert projection.colours([vecdb.Record(at, {"n": float("nan")}) for at in range(9)], "n")[0] == [-1] * 9


class Evaluated:
    """A collection whose recall grows with the width."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def count(self, tenant: Any = None) -> int:
        return 10

    def iter(self, batch: int, **options: Any) -> Any:
        yield [vecdb.Record(at, vector=np.ones(2)) for at in range(10)]

    def evaluate(self, queries: Any, limit: int, *, params: Any = None, tenant: Any = None, stop: Any = None) -> Any:
        if stop is not None and stop():
            raise Unavailable("stopped")
        self.asked.append(None if params is None else (params.ef, params.nprobe))
        width = 32 if params is None else params.ef or params.nprobe
        recall = min(1.0, 0.8 + 0.2 * width / 64)
        return {"recall": recall, "recall_p1": recall, "ef": width, "nprobe": None, "latency_ms_p50": width / 100}


def test_a_curve_is_measured_until_nothing_is_missed() -> None:
    docs: Any = Evaluated()
    told: list[Any] = []
    found = curve.measured(docs, "ef", progress=lambda done, total: told.append((done, total)), sequence=7)
    assert [point["width"] for point in found.points] == [10, 16, 24, 32, 48, 64] and found.points[-1]["recall"] == 1.0
    assert docs.asked[0] is None and docs.asked[1] == (10, None) and found.queries == 10 and found.sequence == 7
    assert told[0] == (0, 11) and [done for done, _ in told] == list(range(7))
    lists: Any = Evaluated()
    assert curve.measured(lists, "nprobe").effort == "nprobe" and lists.asked[1] == (None, 1)
    one: Any = Evaluated()
    assert curve.measured(one, "ef", tenant="a").points == [] and one.asked == [None]
    with pytest.raises(Unavailable):
        curve.measured(docs, "ef", stop=lambda: True)


def test_a_plot_rises_and_stays_within_its_frame() -> None:
    docs: Any = Evaluated()
    plot = curve.plotted(curve.measured(docs, "ef"), 32)
    assert plot is not None and plot.mark is not None
    xs, ys = [x for x, _, _ in plot.dots], [y for _, y, _ in plot.dots]
    assert xs == sorted(xs) and ys == sorted(ys, reverse=True) and ys[-1] == plot.top
    assert xs[0] == plot.left and xs[-1] == plot.right and max(ys) <= plot.bottom
    assert [text for _, text in plot.ticks_y] == ["0.80", "0.84", "0.88", "0.92", "0.96", "1.00"]
    assert curve.plotted(curve.Curve("ef", [], {}, 10, 5, 0)) is None


# -- jobs --------------------------------------------------------------------------------------------


def test_a_job_of_a_key_runs_once_at_a_time_and_its_end_is_remembered() -> None:
    jobs, go = Jobs(), threading.Event()

    def work(job: Job) -> str:
        job.progress(1, 2)
        assert go.wait(60)
        return "found"

    first = jobs.start("key", "Working", work, unit="steps")
    assert jobs.start("key", "Working", work) is first and jobs.by_id(first.id) is first
    assert first.running and jobs.result("key") is None
    go.set()
    assert first.thread is not None
    first.thread.join()
    assert (first.state, jobs.result("key")) == ("done", "found")
    shown = first.shown()
    assert (shown["done"], shown["total"], shown["state"]) == (1, 2, "done")
    assert jobs.start("key", "Working", lambda job: None) is not first


def test_a_job_fails_with_its_words_and_stops_when_told() -> None:
    jobs = Jobs()

    def fails(job: Job) -> None:
        raise InvalidArgument("no such width")

    def breaks(job: Job) -> None:
        raise ZeroDivisionError("by zero")

    def waits(job: Job) -> None:
        assert job._stop.wait(60)
        raise Unavailable("stopped")

    for work, words in ((fails, "INVALID_ARGUMENT: no such width"), (breaks, "ZeroDivisionError: by zero")):
        job = jobs.start(work, "Working", work)
        assert job.thread is not None
        job.thread.join()
        assert job.state == "failed" and words in str(job.error)
    job = jobs.start("waits", "Waiting", waits, stoppable=True)
    jobs.close()
    assert (job.state, job.error) == ("stopped", None)


def test_only_so_many_ended_jobs_are_kept() -> None:
    jobs = Jobs()
    for number in range(200):
        job = jobs.start(number, "Working", lambda job: None)
        assert job.thread is not None
        job.thread.join()
    assert jobs.of(0) is None and jobs.of(199) is not None and len(jobs._jobs) <= 66
