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


KINDS = ["auto", "spann-disk", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("spann", "curator"))]


def kill_at(
    server: ForkServer, strace: str, folder: Path, call: str, number: int, index: str, script: str = "script"
) -> bool:
    """Run the script, killed at the N-th such call; verify. Returns False where the script ended before."""
    place = folder / f"{call}.{number}"
    place.mkdir()
    path, ledger = place / "db", place / "ledger"
    child = server.fork(script, start=False, path=str(path), ledger=str(ledger), index=index)
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


SCRIPTS = [
    *(("script", index) for index in ("auto", "spann", "spann-disk", "curator")),
    *(("lists_script", index) for index in ("spann", "spann-disk")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("script", "index"), SCRIPTS)
@pytest.mark.parametrize("call", CALLS)
def test_a_kill_at_every_call_loses_nothing(
    server: ForkServer, strace: str, folder: Path, call: str, script: str, index: str
) -> None:
    number = 1
    while kill_at(server, strace, folder, call, number, index, script):
        number += 1
        assert number <= WRITES_MAX, "the script makes too many calls to try them all"
    print(f"{call}: {number - 1} kills")
    assert number > 1 or call == "pwritev", f"no {call} was ever made: nothing was tested"


def kill_itself(server: ForkServer, folder: Path, moment: str, number: int, index: str) -> None:
    """The script about lists, killed at the N-th such moment; verify, and again once the index is complete."""
    place = folder / f"{moment}.{number}".replace(" ", "-")
    place.mkdir()
    where = {"path": str(place / "db"), "ledger": str(place / "ledger")}
    child = server.fork("lists_script", index=index, kill=moment, number=number, **where)
    assert child.wait() == -9, child.output()
    lines = read_ledger(place / "ledger")
    assert lines[-1] == {"killed": moment}, f"the kill came elsewhere than at {moment!r}: {lines[-1]}"
    for call in ("verdict", "settled"):
        code, found = server.call(call, **where)
        assert code == 0, f"{moment} {number}, {call}: {found}"
    shutil.rmtree(place)


def moments(server: ForkServer, folder: Path, index: str) -> dict[str, int]:
    """How often the script meets each moment."""
    status, found = server.call("lists_script", path=str(folder / "db"), ledger=str(folder / "ledger"), index=index)
    assert status == 0, found
    met = {moment: count for moment, count in found["met"].items() if count}
    # on disk the dead leave a list when it is next written, so that lists of a few hundred rows hardly get empty
    assert set(found["met"]) - set(met) <= ({"merge: done"} if index == "spann-disk" else set()), found["met"]
    return met


@pytest.mark.parametrize("index", ["spann-disk", pytest.param("spann", marks=pytest.mark.slow)])
def test_a_kill_inside_a_build_a_split_a_list_or_a_seal_loses_nothing(
    server: ForkServer, folder: Path, seed: int, index: str
) -> None:
    rng = random.Random(seed)
    met = moments(server, folder, index)
    for moment in ("bulk: laid out", "split: chosen", "list: half written", "seal: half written", "seal: written"):
        kill_itself(server, folder, moment, rng.randint(1, met[moment]), index)


KEPT_BUILDS = {  # moment: which of them, and the trees that are grown after it
    "bulk: tree half written": (1, 1),
    "bulk: tree saved": (1, 0),
    "bulk: half spilt": (6, 0),
    "bulk: spilt": (5, 0),
    "bulk: laid out": (1, 0),
    "split: done": (1, 0),
    "seal: half written": (1, 0),
    "seal: written": (1, 0),
    "seal: committed": (1, 0),
}


@pytest.mark.parametrize(  # slow: ten seconds; builds of both go the same way
    "index", ["spann-disk", pytest.param("spann", marks=pytest.mark.slow)]
)
def test_a_build_that_was_killed_goes_on_from_what_it_had_done_and_answers_the_same(
    server: ForkServer, folder: Path, index: str
) -> None:
    status, whole = server.call("build_lists", path=str(folder / "db"), ledger=str(folder / "ledger"), index=index)
    assert status == 0, whole
    assert whole["grown"] == 1 and whole["problems"] == [] and whole["files"] == ["lists", "rows", "spann"]
    for moment, (number, grown) in KEPT_BUILDS.items():
        if moment == "split: done" and not whole["met"][moment]:
            continue  # without replicas no list passes its ceiling
        place = folder / moment.replace(" ", "-")
        place.mkdir()
        where = {"path": str(place / "db"), "ledger": str(place / "ledger"), "index": index}
        child = server.fork("build_lists", kill=moment, number=number, **where)
        assert child.wait() == -9, f"{moment}: {child.output()}"
        status, found = server.call("build_lists", **where)
        assert status == 0, f"{moment}: {found}"
        assert found.pop("grown") == grown, moment
        met = found.pop("met")
        if moment == "bulk: spilt":
            assert met["bulk: spilt"] == whole["met"]["bulk: spilt"] - number, "rows were assigned again"
        assert found == {name: value for name, value in whole.items() if name not in ("met", "grown")}, moment
        shutil.rmtree(place)


@pytest.mark.slow
@pytest.mark.parametrize("index", ["spann", "spann-disk"])
def test_a_kill_at_every_moment_of_lists_loses_nothing(server: ForkServer, folder: Path, index: str) -> None:
    for moment, count in moments(server, folder, index).items():
        for number in range(1, count + 1):
            kill_itself(server, folder, moment, number, index)


@pytest.mark.parametrize("index", KINDS)
def test_a_kill_at_some_calls_loses_nothing(
    server: ForkServer, strace: str, folder: Path, seed: int, index: str
) -> None:
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
            killed += kill_at(server, strace, folder, call, number, index)
    assert killed >= 4
