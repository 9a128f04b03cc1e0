"""Ways to open a database that a long test of tests/api takes in the fast tier."""

from __future__ import annotations

import pytest

# A database in memory has the code of one on disk, and asynchronous calls of a database in this process go through the
# same module as those of a server; every shorter test takes all five.
LONG_WAYS = [
    "disk", pytest.param("memory", marks=pytest.mark.slow), pytest.param("threads", marks=pytest.mark.slow),
    "grpc", "aio",
]  # fmt: skip
