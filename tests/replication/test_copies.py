"""A copy equals the database whose log it follows: after every commit of random histories, and through all that
replaces files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import vecdb
from tests.model.driver import SEED, Driver
from tests.model.setups import Setup, small_limits
from tests.support.replication.copies import LoggedTwin, assert_same, brought_up, log_of
from vecdb import limits
from vecdb.embedded.open import open_database


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commits are shipped, and looked for, without waiting."""
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    monkeypatch.setattr(limits, "log_poll_s", 0.002)
    yield


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_limits(monkeypatch)
    monkeypatch.setattr(limits, "log_inline_bytes", 5_000)  # some ranges are objects of their own
    monkeypatch.setattr(limits, "snapshot_log_bytes", 30_000)
    monkeypatch.setattr(limits, "snapshot_part_bytes", 2_000)


def history(kind: str, url: str, folder: Path, steps: int, check_every: int, **setup: str) -> LoggedTwin:
    print(f"VECDB_SEED={SEED}, {kind}, {steps} steps")
    twin = LoggedTwin(Setup(kind, memory=False, **setup), url, folder)
    driver = Driver(twin, SEED + 11)
    try:
        for at in range(steps):
            driver.step()
            twin.compare(at % 64, check=at % check_every == 0)
    finally:
        twin.close()
    return twin


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("kind", "plan"), [("hnsw", "graph"), ("spann-disk", "lists"), ("curator", "tree")])
def test_a_copy_equals_the_writer_after_every_step_of_a_random_history(
    kind: str, plan: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    twin = history(kind, url_of("memory"), tmp_path, 60, 20)
    for what in (f"copy answers by {plan}", "vacuums", "reopens", "grants", "writes without vectors"):
        assert twin.seen[what], f"{what} never happened: {twin.seen}"


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "kind", ["hnsw", "hnsw-full", "spann", "spann-disk", "spann-some", "curator", "curator-graph", "flat", "auto"]
)
def test_a_copy_equals_the_writer_through_a_long_history(
    kind: str, url_of: Callable[[str], str], tmp_path: Path
) -> None:
    history(kind, url_of("memory"), tmp_path, 3_000, 50)


@pytest.mark.parametrize("place", ["s3", pytest.param("file", marks=pytest.mark.slow)])
def test_a_copy_goes_through_all_that_replaces_files_and_names(
    place: str, url_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, url = np.random.default_rng(1), url_of(place)

    def some(n: int) -> np.ndarray:
        return rng.normal(size=(n, 16)).astype(np.float32)

    monkeypatch.setattr(limits, "flat_rows_max", 256)
    with open_database(tmp_path / "writer", log=url, maintenance=False) as writer:
        docs = writer.create_collection("docs", metric="l2", index=vecdb.Hnsw())  # its dim comes with the first write
        docs.upsert(["bare", "barer"], None, fields=[{"a": 1}, {}])
        assert log_of(writer).flush(60)
        log_of(writer).snapshots.wait()
        with open_database(tmp_path / "copy", follow=url) as copy:

            def same() -> None:
                brought_up(writer, copy)
                assert_same(writer, copy)

            same()
            names = [f"r{n}" for n in range(900)]
            docs.upsert(names, some(900), [{"a": n % 9} for n in range(900)])
            same()
            docs.optimize()
            same()
            assert copy["docs"].search(some(1)[0], 5, explain=True).explain["plan"] == "graph"
            docs.upsert(names[:500], some(500), tenants=[["x", "y"]] * 500)
            docs.delete(names[400:900])
            docs.vacuum()
            same()
            writer.set_alias("best", "docs")
            writer.rename_collection("docs", "papers")
            same()
            writer.create_collection("other", 3, "ip", vecdb.Flat(), "uint8").upsert([1], [[1, 2, 3]])
            writer["other"].clear()
            writer["papers"].drop_tenant("y")
            same()
            writer.drop_collection("papers")
            same()
            folders = [sorted(one.name for one in (tmp_path / name / "collections").iterdir()) for name in
                       ("writer", "copy")]  # fmt: skip
            assert folders[0] == folders[1]
            files = [
                sorted(one.relative_to(tmp_path / name) for one in (tmp_path / name / "collections").rglob("*"))
                for name in ("writer", "copy")
            ]
            assert files[0] == files[1]
