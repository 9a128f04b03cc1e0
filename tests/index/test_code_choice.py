"""Goal: codes are measured as a search would find with them, and the first that are good enough are taken.

Oracle: distances in float64 from the definition, and codes made by numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support import awkward
from tests.support.index_rows import MemoryRows, clustered, distances
from vecdb.index.common import code_choice
from vecdb.index.common.code_choice import Measure, choose
from vecdb.index.common.quantizer import ROTATED8, SQ8
from vecdb.index.common.sq8_training import train
from vecdb.index.common.thread_pool import ThreadPool
from vecdb.index.exact.nearest import ExactNearest
from vecdb.kernels.primitives.distance import METRIC_CODES

N, DIM = 4_000, 32
NO_ROWS = np.empty(0, np.int32)
SPREAD, FLAT = (np.arange(64, dtype=np.uint8) + np.uint8(90))[None], np.full((1, 64), 128, np.uint8)
METRICS = ["l2", "cosine", "ip"]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", ["plain", "clusters .0001", "all +200", "half", "huge", "duplicates"])
def test_exact_answers_are_those_of_brute_force(shape: str, metric: str) -> None:
    vectors = awkward.shape(shape, 9_000, DIM)
    rows = MemoryRows(vectors)
    rows.delete(np.arange(0, 9_000, 7))
    queries = vectors[5:9_000:300]
    found = ExactNearest(rows.arrays, METRIC_CODES[metric], 9_000, queries, 11)
    found.find(1, ThreadPool())
    true = distances(metric, queries, vectors)
    true[:, ::7] = np.inf
    assert (rows.arrays.deleted[found.rows] == 0).all()
    worst = np.sort(true, axis=1)[:, 10:11]
    taken = np.take_along_axis(true, found.rows, axis=1)
    assert (taken <= worst + 1e-9 * np.abs(worst) + 1e-12).all()
    assert all(len(set(line.tolist())) == 11 for line in found.rows)


@pytest.mark.parametrize("metric", METRICS)
def test_the_measured_figure_is_what_numpy_finds(metric: str) -> None:
    vectors = awkward.shape("wide x60", N, DIM)
    rows = MemoryRows(vectors)
    quantiser = train(rows.arrays, METRIC_CODES[metric], N)
    own = np.linspace(0, N - 1, 64).astype(np.int64)
    base = vectors.astype(np.float64)
    if metric == "cosine":
        base /= np.linalg.norm(base, axis=1)[:, None]
    codes = np.clip(np.round((base - quantiser.mean) / quantiser.scale), -128, 127)
    queries = base[own] - quantiser.mean
    step = quantiser.scale if metric == "l2" else np.abs(queries).max(axis=1)[:, None] / 127
    queries = np.clip(np.round(queries / step), -127, 127)
    by_code = distances("l2" if metric == "l2" else "ip", queries, codes)
    true = distances(metric, vectors[own], vectors)
    by_code[np.arange(64), own] = true[np.arange(64), own] = np.inf
    nearest = np.argsort(true, axis=1)[:, :10]
    coded = np.argsort(by_code, axis=1)[:, :20]
    wanted = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(nearest.tolist(), coded.tolist(), strict=True)])
    measured, _ = Measure(rows.arrays, METRIC_CODES[metric], N).recall(quantiser)
    assert abs(measured - wanted) < 0.02
    assert Measure(rows.arrays, METRIC_CODES[metric], N, 2).recall(quantiser)[0] == measured  # on more threads


@pytest.mark.parametrize(
    ("shape", "metric", "codes"),
    [
        *(("plain", metric, "8 bit") for metric in METRICS),
        *(("gauss", metric, "8 bit") for metric in METRICS),
        *(("duplicates", metric, "8 bit") for metric in METRICS),
        ("one x1000", "l2", "8 bit"),
        ("two +20", "cosine", "8 bit around the median"),
        *(("clusters .01", metric, "16 bit rotated") for metric in METRICS),
        ("clusters .001", "l2", "16 bit rotated"),
        ("clusters .0001", "l2", "float32"),
        ("wide x60", "l2", "8 bit rotated"),
        ("wide x60", "cosine", "8 bit rotated"),
        ("wide x1000", "cosine", "16 bit rotated"),
        ("half", "l2", "8 bit rotated"),
        ("log-normal 3", "l2", "8 bit rotated"),
        ("all +200", "cosine", "8 bit rotated"),
    ],
)
def test_the_first_format_that_holds_is_taken(shape: str, metric: str, codes: str) -> None:
    rows = MemoryRows(awkward.shape(shape, N, DIM))
    code = METRIC_CODES[metric]
    chosen = choose(rows.arrays, code, N)
    centred = " around the median" if code_choice.is_centred(chosen.quantiser, code) else ""
    assert code_choice.stats(chosen.quantiser)["codes"] + centred == codes
    assert chosen.quantiser.recall is not None and chosen.quantiser.recall >= 0.99
    assert not chosen.kept and chosen.old_recall is None and not chosen.links_are_spoiled


@pytest.mark.parametrize("metric", METRICS)
def test_ordinary_data_get_the_codes_of_plain_training(metric: str) -> None:
    rows = MemoryRows(clustered(N, DIM))
    code = METRIC_CODES[metric]
    plain, chosen = train(rows.arrays, code, N), choose(rows.arrays, code, N).quantiser
    assert np.array_equal(plain.mean, chosen.mean) and plain.scale == chosen.scale
    assert (chosen.code_format, chosen.trained_rows, chosen.measured_rows) == (SQ8, N, N)
    assert code_choice.is_ordinary(chosen, code)


@pytest.mark.parametrize(("dtype", "metric"), [("int8", "l2"), ("int8", "ip"), ("uint8", "l2")])
def test_rows_that_are_their_own_codes_are_not_measured(dtype: str, metric: str) -> None:
    rows = MemoryRows(clustered(500, DIM, dtype))
    chosen = choose(rows.arrays, METRIC_CODES[metric], 500).quantiser
    assert chosen.lossless and chosen.recall is None
    assert not code_choice.is_due(chosen, NO_ROWS, np.repeat(SPREAD, 50_000, 0), 500, all_rows=False)


@pytest.mark.parametrize("count", [1, 2, 15])
def test_a_handful_of_rows_can_be_measured(count: int) -> None:
    rows = MemoryRows(clustered(count, DIM))
    assert choose(rows.arrays, METRIC_CODES["l2"], count).quantiser.recall == 1
    rows.delete(np.arange(count))
    assert choose(rows.arrays, METRIC_CODES["l2"], count).quantiser.code_format == SQ8


def test_codes_are_kept_while_they_hold_and_chosen_anew_when_they_do_not() -> None:
    vectors = np.concatenate([awkward.shape("gauss", 2_000, DIM), awkward.shape("gauss", 2_000, DIM, seed=2) * 1e-3])
    rows = MemoryRows(vectors)
    first = choose(rows.arrays, METRIC_CODES["l2"], 2_000).quantiser
    same = choose(rows.arrays, METRIC_CODES["l2"], 2_500, first)
    assert code_choice.is_due(first, NO_ROWS, np.repeat(SPREAD, 4_000, 0), 2_000, all_rows=False)
    assert not code_choice.is_due(first, NO_ROWS, np.repeat(SPREAD, 3_900, 0), 2_000, all_rows=False)
    assert code_choice.is_due(first, NO_ROWS, np.repeat(SPREAD, 2_500, 0), 2_000, all_rows=True)
    assert not code_choice.is_due(first, NO_ROWS, np.repeat(SPREAD, 2_400, 0), 2_000, all_rows=True)
    assert not same.kept and same.quantiser.code_format == ROTATED8  # a fifth of the rows is a thousandth as long
    assert same.old_recall is not None and same.old_recall < 0.9 and same.links_are_spoiled
    kept = choose(rows.arrays, METRIC_CODES["l2"], 1_999, first)
    assert kept.kept and kept.quantiser.scale == first.scale and kept.quantiser.measured_rows == 1_999


def test_a_damaged_row_does_not_stop_the_choice() -> None:
    rows: Any = MemoryRows(clustered(N, DIM))
    rows.arrays.crcs[N // 2] ^= 1
    assert choose(rows.arrays, METRIC_CODES["l2"], N).quantiser.recall == 1


def test_rows_too_long_or_too_short_for_the_codes_are_noticed_early() -> None:
    first = choose(MemoryRows(clustered(2_000, DIM)).arrays, METRIC_CODES["l2"], 2_000).quantiser
    many_far = np.arange(300, dtype=np.int32)

    def due(*parts: Any, far: Any = NO_ROWS) -> bool:
        """With as many rows of each kind: (kind, count)."""
        codes = np.concatenate([np.repeat(kind, count, 0) for kind, count in parts])
        return code_choice.is_due(first, far, codes, 2_000, all_rows=False)

    assert not due((SPREAD, 2_200))
    assert due((SPREAD, 2_000), (FLAT, 200)) and not due((SPREAD, 2_000), (FLAT, 50))
    assert not due((FLAT, 2_200))  # as they always were
    assert due((SPREAD, 2_200), far=many_far) and not due((SPREAD, 2_050), far=many_far)
