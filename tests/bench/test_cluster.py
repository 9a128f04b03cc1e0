"""Measures of what is more than one directory: that they measure, at small sizes."""

from __future__ import annotations

from pathlib import Path

import pytest

import vecdb
from vecdb_bench import cluster


def quick(measure: str, path: Path) -> dict[str, object]:
    found = cluster.run(cluster.Plan(measures=(measure,), path=str(path)).quick())
    assert all(rows for rows in found["tables"].values())
    made = found[measure]
    assert isinstance(made, dict)
    return made


@pytest.mark.parametrize(("plan", "told"), [({"measures": ("speed",)}, "backup, beside"), ({"index": "flat"}, "hnsw")])
def test_plans_that_cannot_be_measured_are_refused(plan: dict[str, object], told: str) -> None:
    with pytest.raises(vecdb.InvalidArgument, match=told):
        cluster.run(cluster.Plan(**plan))  # type: ignore[arg-type]


def test_what_backups_send_is_counted_and_what_is_restored_compared(tmp_path: Path) -> None:
    found = quick("backup", tmp_path)
    first, second, third = (one["bytes"] for one in found["sent"])  # type: ignore[attr-defined]
    assert first > third > second > 0 and found["records_that_differ"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("measure", [one for one in cluster.MEASURES if one not in ("backup", "jobs")])
def test_every_measure_has_its_rows(measure: str, tmp_path: Path) -> None:
    quick(measure, tmp_path)


@pytest.mark.slow
def test_ray_servers_and_one_collection_find_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = quick("jobs", tmp_path)
    assert [one["as the servers"] > 0.9 for one in found["searches"]] == [True] * 3  # type: ignore[attr-defined]
