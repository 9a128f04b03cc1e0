"""Goal: a system call that fails costs a typed error and nothing else: what was acknowledged stays, reads go
on, and after a failed
sync the database refuses writes until it is opened again.

Faults of our own calls come from a faulty twin of `os` (faulty.py), those of LMDB's calls from strace.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reliability import harness
from tests.reliability.harness import ForkServer

SYNCS = ("fdatasync", "fsync")


def run_with(server: ForkServer, folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    """The script under a fault, then a sound reopening compared with the ledger."""
    place = folder / "-".join(str(part) for part in plan.values())
    place.mkdir()
    where = {"path": str(place / "db"), "ledger": str(place / "ledger")}
    status, found = server.call("faults", plan=plan, **where)
    assert status == 0, f"{plan}: {found}"
    errors = [line["error"] for line in harness.read_ledger(place / "ledger") if "error" in line]
    assert errors == [], f"{plan}: {errors}; {found['seen']}"
    code, verdict = server.call("verdict", **where)
    assert code == 0, f"{plan}: {found['seen']}: {verdict}"
    return found


@pytest.mark.parametrize("call", ["pwrite", "pread", "fdatasync", "fsync", "ftruncate", "replace", "open", "unlink"])
@pytest.mark.parametrize("onward", [False, True])
def test_a_call_that_fails_costs_a_typed_error_and_nothing_else(
    server: ForkServer, folder: Path, seed: int, call: str, onward: bool
) -> None:
    rng = random.Random(seed)
    faults = 0
    for fault in ("EIO", "ENOSPC"):
        for at in {1, 2, rng.randint(3, 12)}:
            found = run_with(server, folder, {"call": call, "fault": fault, "at": at, "onward": onward})
            faults += found["faults"]
            if call == "fdatasync" and found["faults"]:
                assert found["poisoned"], f"a row file's sync failed and writes went on: {found}"
    if call not in ("ftruncate", "pread"):
        assert faults, f"the script never makes that {call}: nothing was tested"


@pytest.mark.slow
@pytest.mark.parametrize("call", ["pwrite", "pread", "fdatasync", "fsync", "replace", "open", "unlink"])
@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EDQUOT", "EMFILE"])
@pytest.mark.parametrize("onward", [False, True])
def test_every_call_that_fails_costs_a_typed_error_and_nothing_else(
    server: ForkServer, folder: Path, call: str, fault: str, onward: bool
) -> None:
    at = 1
    while run_with(server, folder, {"call": call, "fault": fault, "at": at, "onward": onward})["faults"]:
        at += 1
        assert at < 200


@pytest.mark.parametrize("call", ["pwrite", "pread"])
def test_short_writes_and_reads_change_nothing(server: ForkServer, folder: Path, call: str) -> None:
    for at, onward in ((1, True), (4, False)):
        found = run_with(server, folder, {"call": call, "fault": "short", "at": at, "onward": onward})
        assert found["seen"] == []
        assert found["faults"] > 0 or call == "pread"


def lmdb_fault(server: ForkServer, strace: str, folder: Path, call: str, error: str, when: str) -> dict[str, Any]:
    """The script while the kernel fails system calls, LMDB's among them; then a sound reopening compared with
    the ledger."""
    place = folder / f"{call}-{error}-{when}"
    place.mkdir()
    where = {"path": str(place / "db"), "ledger": str(place / "ledger")}
    result = place / "result"
    plan = {"call": "none", "fault": "EIO", "at": 0, "onward": False}
    child = server.fork("faults", start=False, plan=plan, result=str(result), **where)
    options = ("-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}")
    with harness.traced(child, strace, *options):
        status = child.wait()
    output = child.output()
    assert status >= 0, f"{call} {error} {when} ended the process with {status}: {output}"
    if status == 0:  # else it failed before there was a database: the error is typed all the same
        errors = [line["error"] for line in harness.read_ledger(place / "ledger") if "error" in line]
        assert errors == [], f"{call} {error} {when}: {errors}"
    else:
        assert "vecdb.errors" in output.rstrip().splitlines()[-1], output
    code, verdict = server.call("verdict", **where)
    assert code == 0, f"{call} {error} {when}: {verdict}"
    return {} if status else __import__("json").loads(result.read_text())


CASES = [("fdatasync", "EIO"), ("pwrite64", "ENOSPC"), ("pwrite64", "EIO"), ("writev", "ENOSPC"), ("writev", "EIO")]


@pytest.mark.parametrize(("call", "error"), CASES)
def test_a_call_of_lmdb_that_fails_costs_a_typed_error_and_nothing_else(
    server: ForkServer, strace: str, folder: Path, seed: int, call: str, error: str
) -> None:
    rng = random.Random(seed)
    for when in (str(rng.randint(4, 16)), f"{rng.randint(4, 16)}+"):
        lmdb_fault(server, strace, folder, call, error, when)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "error"), [*CASES, ("pwrite64", "EINTR"), ("fdatasync", "ENOSPC"), ("writev", "EINTR")]
)
@pytest.mark.parametrize("onward", ["", "+"])
def test_every_call_of_lmdb_that_fails_costs_a_typed_error_and_nothing_else(
    server: ForkServer, strace: str, folder: Path, call: str, error: str, onward: str
) -> None:
    for number in range(1, 60):
        if (error, onward) == ("EINTR", "+"):
            return  # a call that is interrupted for ever never ends, and should not
        lmdb_fault(server, strace, folder, call, error, f"{number}{onward}")


def test_interrupted_calls_are_made_again(server: ForkServer, strace: str, folder: Path) -> None:
    for call in ("pwrite64", "writev"):
        for when in ("3", "4+7"):
            assert lmdb_fault(server, strace, folder, call, "EINTR", when)["seen"] == []


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    place = folder / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2600k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def on_a_full_disk(server: ForkServer, path: Path, ledger: Path, limit_bytes: int | None) -> None:
    status, found = server.call("full_disk", path=str(path), ledger=str(ledger), limit_bytes=limit_bytes)
    assert status == 0, found
    errors = [line["error"] for line in harness.read_ledger(ledger) if "error" in line]
    assert errors == [], (errors, found)
    assert len(found["refused"]) == 5, f"the disk never filled: {found}"
    assert all("space" in text for text in found["refused"]), found["refused"]
    assert found["deleted"] == min(400, found["live"]) > 0
    code, verdict = server.call("verdict", path=str(path), ledger=str(ledger))
    assert code == 0, verdict


def test_on_a_full_disk_writes_are_refused_and_reads_and_deletes_go_on(
    server: ForkServer, folder: Path, small_disk: Path
) -> None:
    on_a_full_disk(server, small_disk / "db", folder / "ledger", None)


def test_at_the_file_size_limit_writes_are_refused_and_reads_and_deletes_go_on(
    server: ForkServer, folder: Path
) -> None:
    on_a_full_disk(server, folder / "db", folder / "ledger", 2_200_000)
