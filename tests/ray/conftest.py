"""One small Ray for the tests of a module, or none where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    from vecdb.ray.session import RayOptions, session

    with session(RayOptions(cpus=2)) as found:
        yield found
