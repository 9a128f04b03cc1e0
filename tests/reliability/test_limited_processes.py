"""Goal: a process that may do little still gets its database, or is told what it lacks; one that dies leaves nothing
for long; one that forks leaves its child free.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.reliability.forked.limited import NOBODY
from tests.reliability.harness import ForkServer
from vecdb.embedded.open import open_database

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


@pytest.fixture
def path(folder: Path) -> Path:
    with open_database(folder / "db", maintenance=False) as db:
        db.create_collection("docs", 2, "l2").upsert([1], [[1, 2]])
    return folder / "db"


@root
def test_the_owner_of_a_directory_needs_no_right_to_its_parent(server: ForkServer, folder: Path) -> None:
    os.chmod(folder, 0o755)
    os.chmod(server.folder, 0o777)  # where its answer goes
    mine = folder / "mine"
    mine.mkdir()
    os.chown(mine, NOBODY, NOBODY)
    assert server.call("as_nobody", path=str(mine), read_only=False) == (0, {"count": 1})
    assert os.listdir(folder) == ["mine"]


@root
def test_a_reader_without_the_right_to_write_is_told_which_file_needs_it(
    server: ForkServer, folder: Path, path: Path
) -> None:
    os.chmod(server.folder, 0o777)
    for one in (folder, path, *path.rglob("*")):
        os.chmod(one, 0o755 if one.is_dir() else 0o644)
    status, told = server.call("as_nobody", path=str(path), read_only=True)
    assert status == 0 and told["error"] == "Unavailable", told
    assert "lock.mdb" in told["text"] and "right to write" in told["text"]
    os.chmod(path / "lmdb" / "lock.mdb", 0o666)
    assert server.call("as_nobody", path=str(path), read_only=True) == (0, {"count": 1})


def test_a_process_with_little_address_space_opens_it(server: ForkServer, folder: Path) -> None:
    told = server.call("with_little_address_space", path=str(folder / "db"), limit_bytes=8 << 30)
    assert told == (0, [1, 2])


@pytest.mark.parametrize("held", [False, True])
def test_more_collections_than_descriptors_are_used(server: ForkServer, folder: Path, held: bool) -> None:
    told = server.call("with_few_descriptors", path=str(folder / "db"), collections=100, limit=80, held=held)
    assert told == (0, [])


@pytest.mark.slow
def test_ten_thousand_collections_under_256_descriptors(server: ForkServer, folder: Path) -> None:
    path = str(folder / "db")
    told = server.call("with_few_descriptors", path=path, collections=10_000, limit=256, held=False, seconds_max=3_600)
    assert told == (0, [])


def test_what_killed_processes_left_of_memory_goes_with_the_next(server: ForkServer, folder: Path) -> None:
    base = folder / "tmp"
    base.mkdir()
    mine = base / "vecdb-memory-mine"  # looks like one, and is a database that somebody keeps
    open_database(mine, maintenance=False).close()
    (base / "vecdb-memory-link").symlink_to(mine)
    for number in (signal.SIGTERM, signal.SIGKILL):
        assert server.call("killed_in_memory", folder=str(base), number=int(number))[0] == -number
        assert Path((base / "name").read_text()).exists()
        left = [one for one in base.iterdir() if one.name.startswith("vecdb-memory-")]
        assert len(left) == 3, "that of the process before went with this one's opening"
    assert server.call("open_in_memory", folder=str(base))[0] == 0
    (base / "name").unlink()
    assert sorted(one.name for one in base.iterdir()) == ["vecdb-memory-link", "vecdb-memory-mine"]
    open_database(mine, maintenance=False).close()


@pytest.mark.parametrize("case", ["reads", "writes", "closes", "keeps"])
def test_a_forked_child_opens_its_own_and_leaves_its_parents(server: ForkServer, path: Path, case: str) -> None:
    status, found = server.call("forked_opens", path=str(path), case=case)
    assert status == 0, found
    assert found == {"child": 0, "parent": True}, found
