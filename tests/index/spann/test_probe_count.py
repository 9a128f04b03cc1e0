"""How many lists a query reads: so many on average as were asked for, more where more are about as near."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.disk_rows import DiskRows
from tests.support.index_rows import clustered
from vecdb import schema
from vecdb.index.spann.searching.list_search import COMPARED_LISTS_MAX, PROBE_SAMPLES, ProbeRatios, probes_max
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.kernels.search.list_probe import NEAREST
from vecdb.schema import SearchParams


def _nears(lists: int = 400) -> np.ndarray:
    rng = np.random.default_rng(3)
    growth = rng.uniform(0.2, 2.0, (PROBE_SAMPLES, 1))  # how fast distances grow differs from row to row
    nears = 5.0 * np.arange(1, lists + 1) ** growth * rng.uniform(0.9, 1.1, (PROBE_SAMPLES, lists))
    return rng.permuted(nears, axis=1).astype(np.float32)


@pytest.mark.parametrize("probes", [8, 20, 64, 150])
def test_the_average_is_what_was_asked_for(probes: int) -> None:
    nears = np.sort(_nears(), axis=1)
    width = probes_max(probes, 400)
    ratio = ProbeRatios(_nears()).ratio(probes, width)
    read = (nears <= ratio * nears[:, :NEAREST].mean(axis=1, keepdims=True)).sum(axis=1)
    read = np.minimum(read, width)
    assert abs(read.mean() - probes) <= 1
    assert read.min() < probes < read.max()


def test_no_query_reads_more_where_no_average_is_known() -> None:
    assert probes_max(NEAREST - 1, 400) == NEAREST - 1  # too few to speak of near ones
    assert probes_max(400, 400) == 400  # all of them were asked for
    assert probes_max(COMPARED_LISTS_MAX, 100_000) == COMPARED_LISTS_MAX  # more than the sample looks at
    assert probes_max(NEAREST, 400) > NEAREST and probes_max(300, 400) == 400


@pytest.mark.parametrize(("metric", "probes"), [("ip", 30), ("cosine", 5), ("l2", 5)])
def test_just_so_many_lists_are_read_where_distance_is_no_measure(tmp_path: Path, metric: str, probes: int) -> None:
    vectors = clustered(4000, 16)
    rows = DiskRows(tmp_path / "rows.0", vectors)
    index = SpannIndex(schema.Spann(head_ratio=0.05), metric, rows, tmp_path)
    index.add(rows.row_count)
    found = index.search(vectors[:20], 3, rows.visibility(), SearchParams(nprobe=probes))
    assert index.explain(found.work)["probes"] == 20 * probes
    index.close()


def test_heads_that_came_since_the_sample_are_no_trouble() -> None:
    nears = np.sort(_nears(40), axis=1)
    ratio = ProbeRatios(_nears(40)).ratio(41, 43)
    assert (nears <= ratio * nears[:, :NEAREST].mean(axis=1, keepdims=True)).mean() == 1.0


def test_rows_that_are_all_alike_are_no_trouble() -> None:
    assert ProbeRatios(np.zeros((4, 100), np.float32)).ratio(10, 15) >= 0.0
