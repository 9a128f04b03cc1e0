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


KINDS = ["auto", "spann-disk", pytest.param("spann", marks=pytest.mark.slow)]


def run_with(server: ForkServer, folder: Path, plan: dict[str, Any], index: str = "auto") -> dict[str, Any]:
    """The script under a fault, then a sound reopening compared with the ledger."""
    place = folder / "-".join(str(part) for part in plan.values())
    place.mkdir()
    where = {"path": str(place / "db"), "ledger": str(place / "ledger")}
    status, found = server.call("faults", plan=plan, index=index, **where)
    assert status == 0, f"{plan}: {found}"
    errors = [line["error"] for line in harness.read_ledger(place / "ledger") if "error" in line]
    assert errors == [], f"{plan}: {errors}; {found['seen']}"
    code, verdict = server.call("verdict", **where)
    assert code == 0, f"{plan}: {found['seen']}: {verdict}"
    return found


FAILING = ["pwrite", "pread", "fdatasync", "fsync", "ftruncate", "replace", "open", "unlink"]
CASES_OF_OURS = [
    *(("auto", call, onward) for call in FAILING for onward in (False, True)),
    *(("spann-disk", call, onward) for call, onward in (("pwrite", False), ("pwrite", True), ("fdatasync", False))),
    ("spann", "replace", False),
]


@pytest.mark.parametrize(("index", "call", "onward"), CASES_OF_OURS)
def test_a_call_that_fails_costs_a_typed_error_and_nothing_else(
    server: ForkServer, folder: Path, seed: int, call: str, onward: bool, index: str
) -> None:
    rng = random.Random(seed)
    faults = 0
    for fault in ("EIO", "ENOSPC"):
        for at in {1, 2, rng.randint(3, 12)} if index == "auto" else {rng.randint(1, 3), rng.randint(4, 14)}:
            found = run_with(server, folder, {"call": call, "fault": fault, "at": at, "onward": onward}, index)
            faults += found["faults"]
            if call == "fdatasync" and found["faults"]:
                truth = any(name.startswith("rows") for name in found["hurt"])  # a list file can be built again
                assert found["poisoned"] == truth, f"a row file's sync failed and writes went on: {found}"
    if call not in ("ftruncate", "pread"):
        assert faults, f"the script never makes that {call}: nothing was tested"


@pytest.mark.slow
@pytest.mark.parametrize("call", ["pwrite", "pread", "fdatasync", "fsync", "replace", "open", "unlink"])
@pytest.mark.parametrize("fault", ["EIO", "ENOSPC", "EDQUOT", "EMFILE"])
@pytest.mark.parametrize("onward", [False, True])
@pytest.mark.parametrize("index", KINDS)
def test_every_call_that_fails_costs_a_typed_error_and_nothing_else(
    server: ForkServer, folder: Path, call: str, fault: str, onward: bool, index: str
) -> None:
    at = 1
    while run_with(server, folder, {"call": call, "fault": fault, "at": at, "onward": onward}, index)["faults"]:
        at += 1
        assert at < 200


@pytest.mark.parametrize("call", ["pwrite", "pread"])
@pytest.mark.parametrize("index", KINDS)
def test_short_writes_and_reads_change_nothing(server: ForkServer, folder: Path, call: str, index: str) -> None:
    for at, onward in ((1, True), (4, False)):
        found = run_with(server, folder, {"call": call, "fault": "short", "at": at, "onward": onward}, index)
        assert found["seen"] == []
        assert found["faults"] > 0 or call == "pread"


def ring_faults(server: ForkServer, folder: Path, thorough: bool, **arguments: str) -> None:
    status, found = server.call("ring_faults", path=str(folder), thorough=thorough, **arguments)
    assert status == 0, found
    assert found["wrong"] == []
    assert min(found["hits"].values()) > 0, f"nothing was tested: {found['hits']}"


@pytest.mark.parametrize(("file", "fault"), [("lists", "EIO"), ("rows", "short")])
def test_reads_by_native_aio_that_fail_cost_a_rebuild_or_a_typed_error(
    server: ForkServer, folder: Path, file: str, fault: str
) -> None:
    ring_faults(server, folder, False, index="spann-disk", file=file, fault=fault)


@pytest.mark.slow
@pytest.mark.parametrize(("index", "file"), [("spann-disk", "lists"), ("spann-disk", "rows"), ("spann", "rows")])
@pytest.mark.parametrize("fault", ["EIO", "EINVAL", "short"])
def test_reads_by_native_aio_that_go_on_failing_cost_a_rebuild_or_a_typed_error(
    server: ForkServer, folder: Path, index: str, file: str, fault: str
) -> None:
    ring_faults(server, folder, True, index=index, file=file, fault=fault)


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


def on_a_full_disk(server: ForkServer, path: Path, ledger: Path, limit_bytes: int | None, index: str) -> None:
    status, found = server.call("full_disk", path=str(path), ledger=str(ledger), limit_bytes=limit_bytes, index=index)
    assert status == 0, found
    errors = [line["error"] for line in harness.read_ledger(ledger) if "error" in line]
    assert errors == [], (errors, found)
    assert len(found["refused"]) == 5, f"the disk never filled: {found}"
    assert all("space" in text for text in found["refused"]), found["refused"]
    assert found["deleted"] == min(400, found["live"]) > 0
    code, verdict = server.call("verdict", path=str(path), ledger=str(ledger))
    assert code == 0, verdict


@pytest.mark.parametrize("index", KINDS)
def test_on_a_full_disk_writes_are_refused_and_reads_and_deletes_go_on(
    server: ForkServer, folder: Path, small_disk: Path, index: str
) -> None:
    on_a_full_disk(server, small_disk / "db", folder / "ledger", None, index)


def test_at_the_file_size_limit_writes_are_refused_and_reads_and_deletes_go_on(
    server: ForkServer, folder: Path
) -> None:
    # not for lists: their arrays aligned with rows lie in sparse files of 8 MiB, a limit that many records reach
    on_a_full_disk(server, folder / "db", folder / "ledger", 2_200_000, "auto")
