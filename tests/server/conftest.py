"""Servers and clients that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.server.driver import Client, Running
from vecdb_server.config import Config

DIM = 8


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(200, DIM)).astype(np.float32)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """serving(setting=..., ...) starts a server on the database of this test, on a free port of loopback."""
    running: list[Running] = []

    def start(**settings: Any) -> Running:
        config = replace(Config(path=str(tmp_path / "db"), listen="127.0.0.1:0", grace_s=5.0), **settings)
        running.append(Running(config))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def running(serving: Callable[..., Running]) -> Running:
    """A server with the settings of `serving`."""
    return serving()


@pytest.fixture
def calling() -> Iterator[Callable[..., Client]]:
    """calling(running, token=..., ...) connects a client."""
    clients: list[Client] = []

    def connect(running: Running, token: str | None = None, **options: Any) -> Client:
        clients.append(Client(running.address, token, **options))
        return clients[-1]

    yield connect
    for one in clients:
        one.close()
