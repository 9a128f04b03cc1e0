"""Goal: what users note about a collection is there for every process, through all that is done to the collection, and
what cannot be noted is refused and changes nothing.
"""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, InvalidArgument, LimitExceeded, Unavailable

NOTED: dict[str, Any] = {
    "model": "text-3", "dims": [1, 2.5, None, True, [{"a": -(2**63)}]], "größe": {"b": {"c": ""}},
}  # fmt: skip
VECTORS = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)


def test_metadata_lasts(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with (
        open_database(path, durability="relaxed", maintenance=False) as db,
        open_database(path, read_only=True) as reader,
    ):
        docs = db.create_collection("docs", 4, metadata=NOTED)
        plain = db.create_collection("plain", 4)
        seen = reader["docs"]
        assert docs.metadata == docs.config.metadata == seen.metadata == NOTED and plain.metadata == {}
        docs.metadata["model"] = "changed in a copy"
        assert docs.metadata == NOTED
        docs.upsert(range(40), VECTORS, [{"n": n} for n in range(40)])
        docs.delete(range(20))
        docs.optimize()
        docs.vacuum()
        docs.reindex(vecdb.Hnsw())
        assert docs.metadata == seen.metadata == NOTED
        docs.clear()
        db.rename_collection("docs", "notes")
        assert docs.metadata == NOTED and db["notes"].check() == []
        assert db.create_collection("notes", 4, exist_ok=True, metadata={"other": 1}).metadata == NOTED
        with pytest.raises(AlreadyExists):
            db.create_collection("notes", 4, metadata={"other": 1})
        docs.set_metadata({"now": 1})
        plain.set_metadata({"p": "q"})
        assert (seen.metadata, docs.metadata, plain.metadata) == ({"now": 1}, {"now": 1}, {"p": "q"})
        with pytest.raises(Unavailable, match="reading only"):
            seen.set_metadata({})
        db.backup(tmp_path / "backup")
    vecdb.restore(tmp_path / "backup", tmp_path / "restored")
    for place in (path, tmp_path / "restored"):
        with open_database(place) as db:
            assert db["notes"].metadata == {"now": 1} and db["plain"].metadata == {"p": "q"}
            db["notes"].set_metadata({})
            assert db["notes"].metadata == {}


def test_what_cannot_be_noted_is_refused(tmp_path: Path) -> None:
    with open_database(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 4, metadata={"a": 1})
        nested: Any = []
        for _ in range(100):
            nested = [nested]
        for wrong in (
            None, 3, [], "text", {1: 2}, {"a": b"bytes"}, {"a": [dt.date(2020, 1, 1)]}, {"a": {"b": dt.datetime.now()}},
            {"a": 2**64}, {"a": object()}, {"a": [math.inf]},
            {"a": math.nan}, {"\ud800": 1}, {"a": nested}, {"a": "x" * vecdb.limits.metadata_bytes_max},
        ):  # fmt: skip
            with pytest.raises((InvalidArgument, LimitExceeded), match="metadata"):
                docs.set_metadata(wrong)
            if wrong is not None:
                with pytest.raises((InvalidArgument, LimitExceeded), match="metadata"):
                    db.create_collection("other", 4, metadata=wrong)
        assert docs.metadata == {"a": 1} and db.collections() == ["docs"]
