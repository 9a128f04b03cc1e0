"""Goal: Ctrl-C ends every long call, wherever it is at that moment, with a clear state: the database is checked, each
write is there whole or not at all, and the call can be made again.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.reliability.harness import CHILD_SECONDS_MAX, Child, ForkServer, fast_folder
from tests.reliability.interrupts.calls import ROWS, SHORT, names_of_calls
from tests.reliability.interrupts.commands import COMMANDS, SHORT_COMMANDS, names_of_commands


def test_every_call_that_can_take_long_has_a_row() -> None:
    for rows, short, all_names in ((ROWS, SHORT, names_of_calls()), (COMMANDS, SHORT_COMMANDS, names_of_commands())):
        names = {name.split(",")[0] for name in rows}
        assert not names & short.keys()
        assert names | short.keys() == all_names


class Partner:
    """The parent's side of the two pipes."""

    def __init__(self, folder: Path) -> None:
        self.ready, self.go = folder / "ready", folder / "go"
        for one in (self.ready, self.go):
            os.mkfifo(one)
        self._ready, self._go = (os.open(one, os.O_RDWR) for one in (self.ready, self.go))

    def send_at_each_stop(self, child: Child, number: signal.Signals) -> int:
        """Returns how often the child stopped before it said that it had ended."""
        sent = 0
        while (stop := self._said()) != bytes(1):
            assert stop, (child.wait(0), child.output())  # which says where it hangs
            os.kill(child.pid, number)
            os.write(self._go, stop)
            sent += 1
        return sent

    def _said(self) -> bytes:
        if not select.select([self._ready], [], [], CHILD_SECONDS_MAX)[0]:
            return b""
        return os.read(self._ready, 1)

    def close(self) -> None:
        os.close(self._ready)
        os.close(self._go)


@pytest.fixture(scope="module")
def template(server: ForkServer) -> Iterator[Path]:
    with fast_folder() as folder:
        status, said = server.call("template", path=str(folder / "made"))
        assert status == 0, said
        yield folder / "made"


FAST = [  # of each kind one, and those in which something was once wrong
    "Collection.upsert",
    "Collection.add",
    "Collection.delete, of a filter",
    "Collection.clear",
    "Collection.tenants",
    "Collection.search, of a reader that catches up",
    "Collection.distinct",
    "Collection.optimize",
    "Collection.vacuum",
    "Database.close",
    "vecdb.open, of a new directory",
    "vecdb.restore",
    "export",
]
ALL = [(row, 2) for row in FAST] + [pytest.param(row, 20, marks=pytest.mark.slow) for row in [*ROWS, *COMMANDS]]


@pytest.mark.parametrize(("row", "points"), ALL)
def test_an_interrupted_call_leaves_a_clear_state(
    row: str, points: int, server: ForkServer, folder: Path, template: Path, seed: int
) -> None:
    partner, result = Partner(folder), folder / "result"
    paths = {"path": folder, "template": template, "ready": partner.ready, "go": partner.go, "result": result}
    child = server.fork("interrupted", row=row, points=points, seed=seed, **{k: str(v) for k, v in paths.items()})
    partner.send_at_each_stop(child, signal.SIGTERM if row in COMMANDS else signal.SIGINT)
    assert child.wait() == 0, child.output()
    partner.close()
    found = json.loads(result.read_text())
    assert found["wrong"] == [] and found["places"] > 0, "\n".join(found["wrong"])
