"""What a revoke took away is found on no copy once it has returned, also where the copy cannot reach the log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.replication.copies import brought_up, follower_of, log_of
from vecdb import limits
from vecdb.embedded.open import open_database

ROWS = np.eye(4, dtype=np.float32)
STALENESS_S = 0.3


@pytest.fixture
def again() -> Iterator[threading.Event]:
    """Set once the bucket is reached again."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def places(
    url_of: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: threading.Event
) -> Iterator[tuple[Any, Any]]:
    """A database with records of b that tenant a sees, too, and a copy of it."""
    monkeypatch.setattr(limits, "log_wait_s", 0.0)
    monkeypatch.setattr(limits, "log_poll_s", 0.002)
    url = url_of("file")
    db = open_database(tmp_path / "w", log=url, staleness_s=STALENESS_S, maintenance=False)
    db.create_collection("docs", 4, "l2").upsert(range(4), ROWS, tenants=[["a"]] * 4, owner="b")
    log_of(db).snapshots.wait()
    copy = open_database(tmp_path / "c", follow=url, staleness_s=STALENESS_S)
    brought_up(db, copy)
    yield db, copy
    again.set()
    copy.close()
    db.close()


def cut_off(copy: Any, again: threading.Event) -> None:
    """From now on nothing comes from the bucket, and nobody is told so, until the event is set."""
    bucket = follower_of(copy)._bucket
    get, reached = bucket.get, threading.Event()

    def wait(key: str) -> Any:
        reached.set()
        again.wait()
        return get(key)

    bucket.get = wait  # type: ignore[method-assign]
    assert reached.wait(60)


@pytest.mark.parametrize("way", ["revoke", "leave", "drop", "drop with records"])
def test_a_copy_that_is_cut_off_answers_no_more_once_a_revoke_has_returned(
    places: tuple[Any, Any], way: str, again: threading.Event
) -> None:
    db, copy = places
    assert copy["docs"].search(ROWS[2], 1, tenant="a").ids.tolist() == [2]
    cut_off(copy, again)
    if way == "revoke":
        db["docs"].revoke([2], ["a"], owner="b")
    elif way == "leave":
        db["docs"].revoke([2], ["a"], owner=None)
    else:
        db["docs"].drop_tenant("a", records="records" in way)
    with pytest.raises(vecdb.Unavailable, match="does not answer from the past"):
        copy["docs"].search(ROWS[2], 1, tenant="a")
    again.set()
    brought_up(db, copy)
    if way in ("revoke", "leave"):
        assert 2 not in copy["docs"].search(ROWS[2], 4, tenant="a").ids.tolist()
    else:
        with pytest.raises(vecdb.NotFound):
            copy["docs"].search(ROWS[2], 1, tenant="a")


def test_a_revoke_that_the_log_does_not_get_says_so_and_can_be_repeated(
    places: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, again: threading.Event
) -> None:
    db, copy = places
    monkeypatch.setattr(limits, "log_copies_s", 0.01)
    bucket = log_of(db).bucket
    create = bucket.create

    def wait(key: str, data: bytes) -> Any:
        again.wait()
        return create(key, data)

    monkeypatch.setattr(bucket, "create", wait)
    with pytest.raises(vecdb.Unavailable, match="committed here, and not in the log"):
        db["docs"].revoke([2], ["a"], owner="b", request_id="once")
    assert 2 not in db["docs"].search(ROWS[2], 4, tenant="a").ids.tolist()
    again.set()
    monkeypatch.setattr(limits, "log_copies_s", 60.0)
    assert db["docs"].revoke([2], ["a"], owner="b", request_id="once") == 1
    brought_up(db, copy)
    assert 2 not in copy["docs"].search(ROWS[2], 4, tenant="a").ids.tolist()
