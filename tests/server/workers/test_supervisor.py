"""The supervisor alone: what it does where a process does not start, and what settings it gives to each. No process is
started: `Begun` says what became of each.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.server.certificates import Authority, write
from tests.support.server.driver import PATIENCE_S
from vecdb import Unavailable
from vecdb_server.app import Server
from vecdb_server.config import Config
from vecdb_server.workers import supervisor as supervisors
from vecdb_server.workers.board import LISTENING, SERVING, STARTING, WRITER
from vecdb_server.workers.place import Crew
from vecdb_server.workers.supervisor import Supervisor

_STEPS_MAX = 1_000


class Begun(Supervisor):
    """code_of(n) : exit code of the nth process that was forked; None: it listens from then on."""

    def __init__(self, config: Config, folder: Path, code_of: Callable[[int], int | None] = lambda n: None) -> None:
        super().__init__(config, 2)
        self._crew = Crew(2, folder, 1, writes=True)
        self._kept = []
        self.forked: list[int] = []  # places
        self.steps = 0
        self._code_of = code_of

    def _fork(self, place: int) -> None:
        self.forked.append(place)
        self._pids[len(self.forked)] = place
        if self._code_of(len(self.forked)) is None:
            self._crew.board.set_state(place, LISTENING)

    def _hear(self, most_s: float) -> None:
        self.steps += 1
        assert self.steps < _STEPS_MAX, "it waits for what will not come"
        for pid in list(self._pids):
            code = self._code_of(pid)
            if code is not None:
                self._ended(pid, code << 8)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(path=str(tmp_path / "db"), listen="127.0.0.1:0", workers=2)


def test_a_first_writer_that_dies_is_started_anew(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "warm_up", lambda path: True)
    made = Begun(config, tmp_path, lambda n: 3 if n == 1 else None)
    made._begin()
    assert made.forked == [WRITER, WRITER] and not made._failed
    assert made._crew.board.state(WRITER) == LISTENING and set(made._due) == {1, 2}


def test_one_that_has_said_why_it_cannot_start_is_not(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisors, "warm_up", lambda path: True)
    made = Begun(config, tmp_path, lambda n: 1)
    made._begin()
    assert made.forked == [WRITER] and made._failed


@pytest.mark.parametrize("place", [WRITER, 1])
def test_where_the_system_makes_no_process_it_is_tried_again_later(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    now = [100.0]
    monkeypatch.setattr(supervisors.os, "fork", fork)
    monkeypatch.setattr(supervisors.time, "monotonic", lambda: now[0])
    made = Begun(config, tmp_path)
    monkeypatch.setattr(Begun, "_fork", Supervisor._fork)
    made._due[place] = 0.0
    made._step()
    assert made._due == {place: now[0] + supervisors._PAUSE_MAX_S} and made._pids == {}
    monkeypatch.setattr(supervisors.os, "fork", lambda: 4_711)
    made._step()
    assert made._pids == {}
    now[0] = made._due[place]
    made._step()
    assert made._pids == {4_711: place} and made._due == {}


def test_sockets_lie_where_their_addresses_are_short_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (long := tmp_path / ("x" * 100)).mkdir()
    (short := tmp_path / "s").mkdir()
    monkeypatch.setattr(supervisors.tempfile, "tempdir", str(long))
    monkeypatch.setattr(supervisors, "_FOLDER_BYTES_MAX", len(str(tmp_path)) + 30)
    monkeypatch.setattr(supervisors, "_OTHER_FOLDERS", (str(tmp_path / "none"), str(short)))
    made = supervisors._socket_folder()
    assert made.parent == short and made.stat().st_mode & 0o077 == 0 and list(long.iterdir()) == []
    monkeypatch.setattr(supervisors, "_OTHER_FOLDERS", (str(tmp_path / "none"),))
    with pytest.raises(Unavailable, match=r"set TMPDIR to one with a short name.*longer than.*none: No such file"):
        supervisors._socket_folder()


@pytest.mark.parametrize("place", [WRITER, 1])
def test_what_served_is_started_anew_at_once_however_often_and_what_did_not_later_each_time(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(supervisors.time, "monotonic", lambda: 100.0)
    made = Begun(config, tmp_path)
    made._said = True

    def pauses(state: int, times: int) -> list[float]:
        found = []
        for _ in range(times):
            made._pids[4_711] = place
            made._crew.board.set_state(place, state)
            made._ended(4_711, 9)
            found.append(round(made._due.pop(place) - 100.0, 3))
        return found

    assert pauses(SERVING, 20) == [0.0] * 20
    assert pauses(LISTENING, 8) == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert pauses(SERVING, 2) == [0.0] * 2
    assert pauses(STARTING, 3) == [0.0, 0.1, 0.2]


async def _page_over_tls(server: Server, trusted: ssl.SSLContext) -> str:
    def read() -> str:
        url = f"https://127.0.0.1:{server.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=PATIENCE_S, context=trusted) as answer:
            return str(answer.read().decode())

    await server.start()
    try:
        return await asyncio.to_thread(read)
    finally:
        await server.drain()


def test_the_metrics_of_all_processes_are_under_the_certificate_of_the_server(config: Config, tmp_path: Path) -> None:
    authority = Authority("tests")
    cert, key = write(tmp_path, authority.issue("server"))
    tls: dict[str, Any] = {"tls_cert": cert, "tls_key": key, "metrics": "0.0.0.0:0"}
    made = Begun(replace(config, **tls, grace_s=1.0), tmp_path)
    place, own, _ = made._made(WRITER, 1)

    async def run() -> str:
        return await _page_over_tls(Server(own, place), ssl.create_default_context(cadata=authority.pem.decode()))

    assert "vecdb_requests_held" in asyncio.run(run())
