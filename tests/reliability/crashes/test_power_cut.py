"""Goal: a power cut at any moment costs nothing that was acknowledged (durability "full"), or at most the last
commit ("relaxed").

A short script runs under strace, which records every write with its bytes and every sync, rename and removal;
`power.Disk` replays
them up to some event and writes what the disk may hold then: all that was synced, with any subset of the
sectors written since.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from tests.reliability import harness, power
from tests.reliability.harness import ForkServer

BATCH = 20


def record(server: ForkServer, strace: str, folder: Path, **arguments: object) -> list[power.Event]:
    """Run the script under strace. Its events, and `folder`/ledger."""
    (folder / "run").mkdir()
    log = folder / "log"
    child = server.fork(
        "script", start=False, path=str(folder / "run" / "db"), ledger=str(folder / "ledger"), **arguments
    )
    options = ("-y", "-xx", "-s", "4000000", "-o", str(log), "-e", f"trace={power.TRACE}")
    with harness.traced(child, strace, *options):
        assert child.wait() == 0, child.output()
    events = list(power.parse(log))
    whole = power.Disk(folder / "run", folder / "ledger")
    for event in events:
        whole.apply(event)
    assert whole.book == (folder / "ledger").read_bytes(), "the recording is not whole"
    whole.image(folder / "whole", random.Random(0), "all")
    for file in sorted((folder / "run").rglob("*")):
        if file.is_file() and file.name not in ("lock.mdb", "LOCK"):  # these two hold nothing that counts
            copy = folder / "whole" / file.relative_to(folder / "run")
            assert copy.read_bytes() == file.read_bytes(), f"the recording of {file} is not whole"
    return events


def cut(
    server: ForkServer, folder: Path, events: list[power.Event], seed: int, images: int, *, losable: int = 0
) -> tuple[int, list[str]]:
    """Power cuts at random events. Returns (live records compared, what was wrong)."""
    rng = random.Random(seed)
    interesting = [at + 1 for at, event in enumerate(events) if event.call not in ("close", "lseek", "openat")]
    moments = sorted(rng.choice(interesting) for _ in range(images))
    disk = power.Disk(folder / "run", folder / "ledger")
    done, checked = 0, 0
    wrong: list[str] = []
    waiting: list[tuple[Path, int, str]] = []
    for number, moment in enumerate(moments):
        for event in events[done:moment]:
            disk.apply(event)
        done = moment
        mode = ("none", "all", "some", "some", "some")[number % 5]
        image = folder / "images" / str(number)
        disk.image(image, rng, mode)
        waiting.append((image / "db", disk.book.count(b"\n"), f"cut after event {moment} of {len(events)}, {mode}"))
        if len(waiting) == BATCH or number == images - 1:
            status, found = server.call(
                "verdicts", paths=[str(p) for p, _, _ in waiting], ledger=str(folder / "ledger"),
                lines=[count for _, count, _ in waiting], losable=losable,
            )  # fmt: skip
            if status != 0:
                wrong.append(f"died with {status}: {found}")
            else:
                checked += found["checked"]
                wrong += [f"{waiting[at][2]}: {text}" for at, text in found["wrong"]]
            shutil.rmtree(folder / "images")
            waiting = []
    print(f"power cuts: {images}, live records compared: {checked}, wrong: {len(wrong)}")
    return checked, wrong


KINDS = ["auto", "spann-disk", pytest.param("spann", marks=pytest.mark.slow)]


@pytest.mark.parametrize("index", KINDS)
def test_a_power_cut_loses_nothing_acknowledged(
    server: ForkServer, strace: str, folder: Path, seed: int, index: str
) -> None:
    checked, wrong = cut(server, folder, record(server, strace, folder, index=index), seed, 20)
    assert wrong == []
    assert checked > 100


@pytest.mark.slow
@pytest.mark.parametrize("index", KINDS)
def test_a_thousand_power_cuts_lose_nothing_acknowledged(
    server: ForkServer, strace: str, folder: Path, seed: int, index: str
) -> None:
    checked, wrong = cut(server, folder, record(server, strace, folder, index=index), seed, 1_000)
    assert wrong == []
    assert checked > 10_000


@pytest.mark.slow
def test_a_power_cut_with_relaxed_durability_costs_at_most_the_last_commit(
    server: ForkServer, strace: str, folder: Path, seed: int
) -> None:
    checked, wrong = cut(server, folder, record(server, strace, folder, durability="relaxed"), seed, 500, losable=1)
    assert wrong == []
    assert checked > 5_000


def test_a_build_that_commits_before_its_vectors_are_synced_is_caught(
    server: ForkServer, strace: str, folder: Path, seed: int
) -> None:
    _, wrong = cut(server, folder, record(server, strace, folder, broken=True), seed, 40)
    assert wrong, "no power cut showed that the vectors were never synced"
