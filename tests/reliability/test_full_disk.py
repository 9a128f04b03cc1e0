"""Goal: on a full disk every call ends with its answer or an error that says so; reads go on, deletes and vacuum make
room, and no signal ends the process.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.harness import ForkServer, vectors_of
from vecdb.embedded.open import open_database

KINDS = ["auto", "spann", "spann-disk", "curator"]


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    place = folder / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(server: ForkServer, folder: Path, disk: Path, index: str, free_kib: int) -> None:
    with open_database(folder / "db", maintenance=False) as db:
        db.create_collection("docs", 64, "l2").upsert(range(3_000), vectors_of(range(3_000), [1] * 3_000, 64))
        db.backup(folder / "backup")
    status, found = server.call(
        "room_on_a_full_disk", disk=str(disk), backup=str(folder / "backup"), index=index, free_kib=free_kib
    )
    assert status == 0, (status, found)
    assert found["wrong"] == [], found
    assert found["live"] > 5_000, found
    assert found["row_bytes"] < found["live"] // 3 * 256 + (1 << 16), found


# the graph takes 18 s, and is in the ladder of the slow tier, too
@pytest.mark.parametrize(("index", "free_kib"), [pytest.param("auto", 0, marks=pytest.mark.slow), ("spann-disk", 64)])
def test_on_a_full_disk_every_call_says_so_and_deleting_makes_room(
    server: ForkServer, folder: Path, disk: Path, index: str, free_kib: int
) -> None:
    fill(server, folder, disk, index, free_kib)


@pytest.mark.slow  # ten to twenty seconds each: a disk is filled, and filled again
@pytest.mark.parametrize("index", KINDS)
def test_a_check_reads_past_pages_that_were_given_back_and_taken_by_others(
    server: ForkServer, disk: Path, index: str
) -> None:
    status, found = server.call("looked_at_where_pages_were_given_back", disk=str(disk), index=index)
    assert status == 0, (status, found)
    assert found["wrong"] == [] and found["live"] > 5_000, found


@pytest.mark.slow
@pytest.mark.parametrize("free_kib", range(0, 64 * 16, 64))
@pytest.mark.parametrize("index", KINDS)
def test_in_steps_of_64_kib(server: ForkServer, folder: Path, disk: Path, index: str, free_kib: int) -> None:
    fill(server, folder, disk, index, free_kib)
