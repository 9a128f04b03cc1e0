"""Small databases for engine tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vecdb.api.database import Database
from vecdb.embedded.open import open_database


@pytest.fixture
def db() -> Iterator[Database]:
    """In memory, without maintenance: care happens when a test asks for it."""
    with open_database(":memory:", maintenance=False) as opened:
        yield opened


@pytest.fixture
def docs(db: Database) -> Any:
    """Three records, dim 4, l2, int ids."""
    made = db.create_collection("docs", 4, "l2")
    made.upsert([1, 2, 3], [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0]], [{"a": 1}, {}, {"b": [1, 2]}])
    return made
