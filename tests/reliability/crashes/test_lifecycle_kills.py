"""Goal: a kill during create, drop, vacuum, backup or restore leaves each of them done or not begun, and a
kill while a database
is being opened leaves it as it was."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest

from tests.reliability import harness
from tests.reliability.harness import ForkServer


def rounds_of_kills(server: ForkServer, folder: Path, seed: int, rounds: int) -> None:
    rng = random.Random(seed)
    path, ledger = folder / "db", folder / "ledger"
    totals = {"collections": 0, "copies": 0, "open": 0}
    for number in range(rounds):
        ready = ledger.read_bytes().count(b'"ready"') if ledger.exists() else 0
        ends = ledger.read_bytes().count(b'"end"') if ledger.exists() else 0
        child = server.fork("lifecycle", path=str(path), ledger=str(ledger), seed=rng.randrange(1 << 31))
        if number % 4 != 3:
            harness.wait_for_lines(ledger, b'"ready"', ready + 1, child)
            harness.wait_for_lines(ledger, b'"end"', ends + rng.randrange(4, 30), child)
        time.sleep(rng.random() * 0.03)  # the random moment itself
        child.kill()
        assert child.wait() == -9, child.output()
        status, found = server.call("lifecycle_verdict", path=str(path), ledger=str(ledger))
        assert status == 0, found
        assert found["wrong"] == []
        totals = {name: totals[name] + found.get(name, 0) for name in totals}
        for copy in list(folder.glob("db.backup*")) + list(folder.glob("db.restored*")):
            shutil.rmtree(copy)
        lines = [line for line in harness.read_ledger(ledger) if "/" not in line.get("name", "")]
        ledger.write_text("".join(__import__("json").dumps(line) + "\n" for line in lines))
    print(f"lifecycle rounds: {rounds}, {totals}")
    assert totals["collections"] >= rounds
    assert totals["copies"] > 0


def test_kills_in_create_drop_vacuum_backup_and_restore_leave_all_or_nothing(
    server: ForkServer, folder: Path, seed: int
) -> None:
    rounds_of_kills(server, folder, seed, 4)


@pytest.mark.slow
def test_many_kills_in_create_drop_vacuum_backup_and_restore_leave_all_or_nothing(
    server: ForkServer, folder: Path, seed: int
) -> None:
    rounds_of_kills(server, folder, seed, 40)


def test_backup_and_vacuum_after_a_large_deletion(server: ForkServer, folder: Path) -> None:
    status, found = server.call("large_deletion", path=str(folder / "db"))
    assert status == 0, f"ended with {status}: {found}"
    assert found == {"counts": [3_100, 2_000, 3_100, 3_100], "problems": []}
