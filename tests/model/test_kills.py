"""Goal: a history in a process that is killed (SIGKILL) at random moments goes on after a reopen as if it had not been.

child    operations of the seeded driver, each answer compared; after each, its model     killed_process.py
kill     somewhere in an operation
parent   opens the database: it holds the model after the last operation that was acknowledged, or after the one
         that was under way; every tenant sees its own records, `check` finds nothing; the next child goes on
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.model.driver import SEED, Driver
from tests.model.setups import IDS, Setup
from tests.model.twin import Twin

CHILD_SECONDS_MAX = 120.0
ROOT = Path(vecdb.__file__).parent.parent


def live(setup: Setup, saved: bytes, state: Any, operations: int, seconds: float) -> tuple[bytes, Any, int]:
    """A child does so many operations, and is killed so long after. Its last words: model, generator, operations."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.model.killed_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    assert child.stdin is not None and child.stdout is not None
    watchdog = threading.Timer(CHILD_SECONDS_MAX, child.kill)
    watchdog.start()
    with child:
        pickle.dump((setup, saved, state), child.stdin)
        child.stdin.close()
        done, at = pickle.dumps((saved, state)), 0
        while True:
            if at == operations:
                time.sleep(seconds)
                child.kill()
            head = child.stdout.read(8)
            body = child.stdout.read(int.from_bytes(head, "little"))
            if len(head) < 8 or len(body) < int.from_bytes(head, "little"):
                break
            done, at = body, at + 1
    watchdog.cancel()
    assert at >= operations, f"the child failed, or hung, after {at} operations"
    return *pickle.loads(done), at  # noqa: S301 - our own child's


def lives(setup: Setup, kills: int, seed: int, most: int = 60) -> Counter[str]:
    print(f"VECDB_SEED={seed}, {setup}, {kills} kills")
    rng, seen = np.random.default_rng(seed), Counter[str]()
    first = Twin(setup)
    saved, state = first.saved(), Driver(first, seed).rng.bit_generator.state
    first.db.close()
    for _ in range(kills):
        saved, state, done = live(setup, saved, state, int(rng.integers(1, most)), float(rng.exponential(0.01)))
        seen["operations"] += done
        twin = Twin(setup, saved)
        if twin.holds(twin):
            seen["as acknowledged"] += 1
        else:
            ghost = twin.ghost()
            under_way = Driver(ghost, 0)
            under_way.rng.bit_generator.state = state
            under_way.step()
            assert twin.holds(ghost), f"neither the model after operation {seen['operations']} nor after the next"
            twin.adopt(ghost)
            state = under_way.rng.bit_generator.state
            ghost.close()
            seen["one more"] += 1
        verify(twin)
        saved = twin.saved()
        twin.db.close()
    Twin(setup, saved).close()
    print(dict(seen))
    return seen


def verify(twin: Twin) -> None:
    """Records, tenants, and what each kind of search finds; a sound database."""
    assert twin.db.check() == []
    twin.iterate(7)
    twin.answers()
    for query in (3, 17):
        twin.search(query, IDS + 1, exact=False)
        for name in sorted(twin.tenants):
            twin.search_among([name], query, IDS + 1, exact=False)
    numbers = [number for number in range(IDS) if twin.id(number) in twin.model]
    if numbers:
        twin.search_mixture(numbers[:3], IDS + 1)
    for name in sorted(twin.tenants):
        seen = [number for number in numbers if name in twin.access[twin.id(number)]]
        if seen:
            twin.search_mixture(seen[:2], IDS + 1, among=[name])


KINDS = ["flat", "hnsw", "spann", "spann-disk", "curator", "curator-graph"]


@pytest.mark.parametrize(  # slow: four seconds each; what is killed is the same
    "kind", ["curator-graph", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("hnsw", "curator"))]
)
def test_a_history_survives_kills(kind: str) -> None:
    assert lives(Setup(kind, "l2", memory=False), 3, SEED)["operations"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("metric", "dtype", "ids"), [("cosine", "float32", "str"), ("ip", "int8", "int")])
def test_a_history_survives_fifty_kills(kind: str, metric: str, dtype: str, ids: str) -> None:
    seen = lives(Setup(kind, metric, dtype, ids, memory=False), 50, SEED + 1)
    assert seen["as acknowledged"] and seen["one more"], seen


@pytest.mark.parametrize("lost", ["a record", "a grant", "a tenant"])
def test_what_is_lost_is_noticed(lost: str) -> None:
    twin = Twin(Setup("flat", memory=False))
    twin.upsert([1, 2, 3], [1, 2, 3], None, [["a"], ["b"], []])
    assert twin.holds(twin)
    if lost == "a record":
        twin.docs.delete([twin.id(3)])
    elif lost == "a grant":
        twin.docs.revoke([twin.id(1)], "a")
    else:
        twin.docs.drop_tenant("b")
    assert not twin.holds(twin)
    twin.close()
