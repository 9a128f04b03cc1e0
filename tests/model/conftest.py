"""Model tests run with thresholds so low that tens of records pass them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.model.setups import small_limits


@pytest.fixture(scope="module", autouse=True)
def _small_limits() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        small_limits(patch)
        yield
