"""What tests of clusters share: each has a `cluster` of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vecdb
from tests.support.cluster.in_process import InProcessCluster


@pytest.fixture(scope="module")
def db(cluster: InProcessCluster) -> Iterator[vecdb.Database]:
    with cluster.open() as opened:
        yield opened
