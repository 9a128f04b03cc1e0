"""A collection that two tenants share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tenant_records import VECTORS
from vecdb.api.database import Database


@pytest.fixture
def shared(db: Database) -> Any:
    """Ten records: 0 to 4 of acme, 3 to 7 of beta, 8 and 9 of nobody."""
    docs = db.create_collection("docs", 8, "l2")
    lists = [["acme"], ["acme"], ["acme"], ["acme", "beta"], ["beta", "acme"], ["beta"], ["beta"], ["beta"], [], []]
    docs.upsert(range(10), VECTORS[:10], tenants=lists)
    return docs
