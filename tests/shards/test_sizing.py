"""What a cluster takes: the figures that were measured, bounds, and the table of the guide."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import vecdb
from vecdb.shards.sizing import INDEXES, MACHINES, Guessed, Machine, guide_table, plan, row_bytes_on_disk, search_s

GUIDE = (Path(__file__).resolve().parents[2] / "GUIDE.md").read_text(encoding="utf-8")


def test_the_table_of_the_guide_is_what_is_calculated() -> None:
    found = re.search(r"guide_table\(\) -->\n(.*?)\n<!-- end", GUIDE, re.DOTALL)
    assert found is not None and found[1] == guide_table()


def test_at_the_size_that_was_measured_it_gives_what_was_measured() -> None:
    made = plan(10**6, 128, "uint8", servers=1)
    assert 1 / search_s(10**6, 128, "spann") == pytest.approx(1_134)
    assert 2.0 < made.disk_bytes / (128 * 10**6) < 2.3  # README: 2.1 times the raw vectors, and bookkeeping
    assert not {"queries_a_second", "latency_ms", "build_hours"} & set(made.estimates)
    assert {"queries_a_second", "latency_ms"} <= set(plan(10**9, 128, "uint8").estimates)


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize(
    ("rows", "dim", "dtype"), [(10**8, 128, "uint8"), (10**9, 768, "float32"), (10**10, 96, "int8")]
)
def test_machines_hold_what_is_planned(rows: int, dim: int, dtype: str, index: str) -> None:
    made = plan(rows, dim, dtype, index=index)
    machine = next(one for one in MACHINES if one.name == made.machine)
    assert made.disk_bytes / made.shards <= machine.disk_bytes * (1 - Guessed().disk_free)
    assert made.memory_bytes / made.shards <= machine.memory_bytes
    assert made.dollars == machine.dollars * made.shards * made.servers
    more = plan(10 * rows, dim, dtype, index=index)
    assert (
        more.shards >= made.shards
        and more.dollars >= made.dollars
        and more.disk_bytes == pytest.approx(10 * made.disk_bytes)
    )


def test_queries_are_answered_by_more_copies_and_room_by_more_shards() -> None:
    few, many = plan(10**8, 128, "uint8"), plan(10**8, 128, "uint8", queries_a_second=50_000)
    assert few.servers == 2 < many.servers and many.queries_a_second >= 50_000
    assert plan(10**8, 128, "uint8", field_bytes=20_000, machines=MACHINES[:1]).shards > 3
    assert row_bytes_on_disk(128, "float32", "spann") - row_bytes_on_disk(128, "uint8", "spann") == 3 * 128


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rows": 0}, "rows must be"),
        ({"dim": 0}, "dim must be"),
        ({"dtype": "float64"}, "dtype must be"),
        ({"index": "tree"}, "index must be"),
        ({"servers": 0}, "servers must be"),
        ({"machines": (Machine("small", 1, 1e9, 1e9, 1.0),)}, "fits into no"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"rows": 10**10, "dim": 128, "dtype": "uint8"} | wrong
    with pytest.raises(vecdb.InvalidArgument, match=words):
        plan(given.pop("rows"), given.pop("dim"), given.pop("dtype"), **given)
