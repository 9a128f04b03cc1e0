"""What every test may rely on: a hypothesis profile without deadlines, since a first call may compile a kernel, and
small databases.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.warm_kernels import warm_in_processes

if TYPE_CHECKING:
    from vecdb.api.database import Database

settings.register_profile("vecdb", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vecdb")

gc.disable()  # until the tests are found: they stay, and a fifth of finding them was looking for what may go


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Where several processes share the tests (pytest -n): compile the kernels before xdist starts them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    options = session.config.option
    starts_others = not hasattr(session.config, "workerinput") and (getattr(options, "numprocesses", 0) or 0) > 1
    if starts_others and not options.collectonly:
        warm_in_processes()


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _what_stays_is_not_collected_again() -> Iterator[None]:
    """Modules, compiled kernels and pytest's own objects are hundreds of thousands, and each collection of garbage,
    many of them asked for by tests, would look at all: what is alive between two files of tests stays.
    """
    gc.freeze()
    yield
    gc.collect()


@pytest.fixture
def db() -> Iterator[Database]:
    """In memory, without maintenance: care happens when a test asks for it."""
    from vecdb.embedded.open import open_database  # here, so that only tests of databases load the engine

    with open_database(":memory:", maintenance=False) as opened:
        yield opened


@pytest.fixture
def docs(db: Database) -> Any:
    """Three records, dim 4, l2, int ids."""
    made = db.create_collection("docs", 4, "l2")
    made.upsert([1, 2, 3], [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0]], [{"a": 1}, {}, {"b": [1, 2]}])
    return made
