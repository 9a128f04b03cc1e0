"""Python calls and moves between files on the way of one search or write: what a change adds to it is seen here."""

from __future__ import annotations

import sys

import pytest

from vecdb_bench.calls.call_counts import call_counts

# (calls, moves) at most; the first two of searches are bars that were set, the others a little above what there is
MOST = {
    "hnsw search with fields caller": (45, 25),
    "spann search with fields caller": (70, 40),
    "curator search of a tenant, no fields caller": (36, 20),
    "hnsw upsert of one record, one tenant caller": (105, 46),
    "hnsw upsert of one record, one tenant commit thread": (215, 140),
}


@pytest.mark.skipif(sys.getprofile() is not None, reason="a profiler counts calls already")
def test_a_single_call_makes_few_python_calls() -> None:
    found = {}
    for line in call_counts()[1:]:
        *what, calls, _, moves = line.split()
        found[" ".join(what)] = int(calls), int(moves)
    assert found.keys() == MOST.keys()
    over = {name: counts for name, counts in found.items() if counts[0] > MOST[name][0] or counts[1] > MOST[name][1]}
    assert not over, f"calls and moves: {over}, at most {MOST}"
