"""Goal: a process killed with SIGKILL at any moment loses nothing that it acknowledged and invents nothing.

A worker writes from three threads while maintenance, `optimize`, `vacuum` and seals run; the ledger outside
the database holds each
intent and each acknowledgement; `harness.verify` compares every record with it after the next open.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.reliability import harness
from tests.reliability.harness import Expected, ForkServer, LedgerWriter, Wrong, read_ledger, verify

LIVE_MIN = 1_000


KINDS = ["auto", "spann-disk", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("spann", "curator"))]


def kill_rounds(
    server: ForkServer, folder: Path, seed: int, rounds: int, index: str = "auto", *, broken: bool = False
) -> dict[str, int]:
    """Rounds of work, kill and verdict on one database. Returns counts; raises Wrong or AssertionError."""
    rng = random.Random(seed)
    path, ledger = folder / "db", folder / "ledger"
    counts = {"rounds": 0, "acked": 0, "checked": 0, "open": 0, "happened": 0, "killed_in_open": 0}
    for number in range(rounds):
        acks = ledger.read_bytes().count(b'"ack"') if ledger.exists() else 0
        ready = ledger.read_bytes().count(b'"ready"') if ledger.exists() else 0
        child = server.fork(
            "crash", path=str(path), ledger=str(ledger), seed=rng.randrange(1 << 31), live_min=LIVE_MIN, broken=broken,
            index=index,
        )  # fmt: skip
        in_open = number % 5 == 4
        if not in_open:
            harness.wait_for_lines(ledger, b'"ready"', ready + 1, child)
            harness.wait_for_lines(ledger, b'"ack"', acks + rng.randrange(5, 150), child)
        time.sleep(rng.random() * (0.06 if in_open else 0.02))  # the random moment itself; nothing waits on it
        child.kill()
        assert child.wait() == -9, f"the kill did not land: {child.output()}"
        lines = read_ledger(ledger)
        counts["killed_in_open"] += sum("ready" in line for line in lines) == ready
        expected = Expected.of(lines)
        found = verify(path, expected)
        book = LedgerWriter(ledger)
        for n in found.happened:
            book.line(ack=n)
        for n in found.void:
            book.line(void=n)
        counts["rounds"] += 1
        counts["acked"] = expected.acked
        counts["open"] += len(expected.open)
        counts["happened"] += len(found.happened)
        counts["checked"] = found.checked
        assert found.checked >= LIVE_MIN, f"only {found.checked} live records were compared with the ledger"
    print(f"crash rounds: {counts}")
    return counts


@pytest.mark.parametrize("index", KINDS)
def test_kill_at_random_moments_loses_nothing_acknowledged(
    server: ForkServer, folder: Path, seed: int, index: str
) -> None:
    assert kill_rounds(server, folder, seed, 3, index)["acked"] > 15


@pytest.mark.slow
@pytest.mark.parametrize("index", KINDS)
def test_fifty_kills_at_random_moments_lose_nothing_acknowledged(
    server: ForkServer, folder: Path, seed: int, index: str
) -> None:
    counts = kill_rounds(server, folder, seed, int(os.environ.get("VECDB_CRASH_ROUNDS", "50")), index)
    assert counts["acked"] > 50 * 5


def test_a_build_that_acknowledges_before_it_commits_is_caught(server: ForkServer, folder: Path, seed: int) -> None:
    with pytest.raises(Wrong):
        kill_rounds(server, folder, seed, 6, broken=True)
