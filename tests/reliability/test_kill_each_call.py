"""Goal: a kill at any one system call that changes a file, in every call of a short script, loses nothing acknowledged.

strace sends SIGKILL when a thread enters its N-th call of a kind; N goes up until the script ends unharmed.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.reliability import harness
from tests.reliability.harness import ForkServer, read_ledger

CALLS = ["pwrite64", "writev", "pwritev", "fdatasync", "fsync", "rename", "ftruncate", "unlink", "mkdir"]
WRITES_MAX = 150


def kill_at(server: ForkServer, strace: str, folder: Path, call: str, number: int) -> bool:
    """Run the script, killed at the N-th such call; verify. Returns False where the script ended before."""
    place = folder / f"{call}.{number}"
    place.mkdir()
    path, ledger = place / "db", place / "ledger"
    child = server.fork("script", start=False, path=str(path), ledger=str(ledger))
    with harness.traced(
        child, strace, "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"
    ):
        status = child.wait()
    assert status in (0, -9), (status, child.output())
    for _ in range(2):  # what the first open mended must stay mended
        code, found = server.call("verdict", path=str(path), ledger=str(ledger))
        assert code == 0, f"{call} {number}: {found}"
    assert not [line for line in read_ledger(ledger) if "error" in line]
    shutil.rmtree(place)
    return status == -9


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_every_call_loses_nothing(server: ForkServer, strace: str, folder: Path, call: str) -> None:
    number = 1
    while kill_at(server, strace, folder, call, number):
        number += 1
        assert number <= WRITES_MAX, "the script makes too many calls to try them all"
    print(f"{call}: {number - 1} kills")
    assert number > 1 or call == "pwritev", f"no {call} was ever made: nothing was tested"


def test_a_kill_at_some_calls_loses_nothing(server: ForkServer, strace: str, folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    killed = 0
    for call, most, count in (
        ("pwrite64", 60, 3),
        ("writev", 20, 2),
        ("fdatasync", 20, 2),
        ("rename", 3, 1),
        ("fsync", 6, 1),
    ):
        for number in rng.sample(range(1, most + 1), count):
            killed += kill_at(server, strace, folder, call, number)
    assert killed >= 4
