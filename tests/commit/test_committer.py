"""What a commit that this process cannot show leaves behind: an error for who waits, and no writes from then on."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.api.database import Database
from vecdb.state.collection_state import CollectionState


def test_a_commit_that_can_not_be_published_ends_no_thread(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = db.create_collection("docs", 4, "l2")
    docs.upsert([1], np.ones((1, 4), np.float32))
    reached, go_on = threading.Event(), threading.Event()

    def fails(self: Any, *_: Any, **__: Any) -> None:
        reached.set()
        go_on.wait()
        raise MemoryError("no room")

    monkeypatch.setattr(CollectionState, "publish", fails)
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            docs.upsert([number], np.ones((1, 4), np.float32))
        except vecdb.VecdbError as error:
            errors.append(error)

    first = threading.Thread(target=write, args=(2,))
    first.start()
    reached.wait()
    later = [threading.Thread(target=write, args=(number,)) for number in range(3, 6)]
    for thread in later:
        thread.start()
    go_on.set()
    for thread in (first, *later):
        thread.join()
    assert len(errors) == 4 and all(isinstance(error, vecdb.Poisoned) for error in errors)
    assert any("it is on disk" in str(error) and "no room" in str(error) for error in errors)
    with pytest.raises(vecdb.Poisoned, match="could not be published"):
        docs.delete([1])
