"""Fixtures of the reliability tests: one fork server a session, a seed and a fast folder a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability import harness


@pytest.fixture(scope="session")
def server() -> Iterator[harness.ForkServer]:
    with harness.fast_folder() as folder:
        server = harness.ForkServer(folder)
        yield server
        server.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with harness.fast_folder() as folder:
        yield folder


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    return harness.seed_of(request)


@pytest.fixture(scope="session")
def strace() -> str:
    found = harness.strace()
    if found is None:
        pytest.skip("strace is not installed, or may not trace here (ptrace is forbidden)")
    return found
