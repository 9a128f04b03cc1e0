"""The process that starts the others: the one that writes, then those that read. It serves nobody itself.

    reserve the port -> load what all need -> fork the writer -> it listens on its socket -> fork the workers
    a process ends       what it held is let go, another is forked in its place
    SIGTERM and the like the workers drain, then the writer; those that take too long are killed
    the supervisor ends  however it does: the system kills the others

It has one thread, opens nothing that it keeps, and waits for signals, so that it can fork at any time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from vecdb import Unavailable, VecdbError
from vecdb_server import app
from vecdb_server.config import Config
from vecdb_server.logs import log
from vecdb_server.workers import ports
from vecdb_server.workers.board import LISTENING, SERVING, WRITER
from vecdb_server.workers.place import Crew, CrewPlace, WorkerPlace, WriterPlace
from vecdb_server.workers.warmth import warm_up

_ENDS = signal.SIGTERM, signal.SIGINT, signal.SIGHUP  # one that is ignored, as nohup does, stays ignored
_DRAIN = signal.SIGUSR1  # to the writer, which must not end before the workers, whoever else is told
_WATCHED = (*_ENDS, signal.SIGCHLD)
_BLOCKED = (*_WATCHED, _DRAIN)  # in all of them, until they listen
_POLL_S, _IDLE_S = 0.05, 1.0
_NOT_SERVED = 1  # exit code of a process that could not start
_KILL_AFTER_S = 5.0  # beyond `grace_s`
_FIRST_PAUSE_S, _PAUSE_MAX_S = 0.1, 5.0  # before a process is started anew that ended before it served anybody
_PR_SET_PDEATHSIG = 1
_OTHER_FOLDERS = "/tmp", "/dev/shm"
_FOLDER_BYTES_MAX = 80  # the address of a socket has 107 bytes at most


def _socket_folder() -> Path:
    """A new folder for the sockets of the processes, for this user alone. Raises Unavailable where none can be made."""
    reasons = []
    for parent in (None, *_OTHER_FOLDERS):  # None: what TMPDIR says, or the system's
        try:
            found = Path(tempfile.mkdtemp(prefix="vecdb-server-", dir=parent))
        except OSError as error:
            reasons.append(f"{parent or 'TMPDIR'}: {error.strerror or error}")
            continue
        if len(os.fsencode(found)) <= _FOLDER_BYTES_MAX:
            return found
        found.rmdir()
        reasons.append(f"{found.parent}: the address of a socket would be longer than the system takes")
    raise Unavailable(
        "workers need a folder for their sockets; set TMPDIR to one with a short name that can be written "
        f"({'; '.join(reasons)})"
    )


class Supervisor:
    """One server of several processes. workers : how many read.   listens : is told where, once all of them do."""

    def __init__(self, config: Config, workers: int, listens: Callable[[str], None] = lambda _: None) -> None:
        self._config = config
        self._workers = workers
        self._listens = listens
        self._pids: dict[int, int] = {}  # process number -> place
        self._pauses: dict[int, float] = {}  # by place, of those that did not come to serve: the next one
        self._due: dict[int, float] = {}  # places whose process is to be started, and when
        self._draining = self._said = self._failed = False
        self._libc = ctypes.CDLL(None)

    def serve(self) -> None:
        """Run until SIGTERM, SIGINT or SIGHUP. Raises Unavailable where the port is taken, SystemExit where a process
        cannot start: it has said why.
        """
        app.prepare(self._config, role="supervisor", pid=os.getpid())
        app.announce(self._config)
        address, kept = ports.reserve(self._config.listen)
        self._config = replace(self._config, listen=address)
        leased = self._config.lease and self._config.staleness_s > 0
        folder = _socket_folder()
        self._kept = kept
        self._crew = Crew(self._workers, folder, os.getpid(), writes=not self._config.read_only, leased=leased)
        signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            self._begin()
            while not self._draining and not self._failed:
                self._step()
            if self._failed:
                raise SystemExit(1)
            self._end()
        finally:
            self._kill_all()
            shutil.rmtree(folder, ignore_errors=True)
            for one in kept:
                one.close()
        log.info("ended")

    # -- from its begin to its end -------------------------------------------------------------------

    def _begin(self) -> None:
        board = self._crew.board
        warm = warm_up(self._config.path)
        if self._crew.writes:
            self._due[WRITER] = 0.0
            while board.state(WRITER) < LISTENING and not self._draining and not self._failed:
                self._step()
        if not warm and not self._draining and not self._failed:
            warm_up(self._config.path)  # by now the writer has made the directory, or mended it
        for place in range(1, self._workers + 1):
            self._due[place] = 0.0

    def _step(self) -> None:
        """Start what is due, and wait for what happens."""
        now = time.monotonic()
        for place in [place for place, due in self._due.items() if due <= now]:
            del self._due[place]
            self._fork(place)
        self._say()
        self._hear(_POLL_S if self._due or not self._said else _IDLE_S)

    def _say(self) -> None:
        """Once all listen: where."""
        board = self._crew.board
        states = [board.state(place) for place in range(0 if self._crew.writes else 1, board.processes)]
        if not self._said and min(states) >= LISTENING:
            self._said = True
            app.say_where(self._config.listen, board.metrics_port)
            self._listens(self._config.listen)

    def _hear(self, most_s: float) -> None:
        """Wait a moment for a signal. Processes that have ended are reaped."""
        found = signal.sigtimedwait(_WATCHED, most_s)
        if found is not None and found.si_signo in _ENDS:
            self._draining = True
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self._ended(*ended)

    def _ended(self, pid: int, status: int) -> None:
        place = self._pids.pop(pid, None)
        if place is None:
            return
        served = self._crew.board.state(place) >= SERVING
        self._crew.gone(place)
        if self._draining:
            return
        code = os.waitstatus_to_exitcode(status)
        log.error("process ended", ended=pid, ended_role=self._crew.role(place), exit_code=code)
        if code == _NOT_SERVED and not self._said:
            self._failed = True  # it has said why, and would say so again
            return
        pause_s = 0.0 if served else self._pauses.get(place, 0.0)
        self._pauses[place] = 0.0 if served else min(_PAUSE_MAX_S, max(_FIRST_PAUSE_S, 2 * pause_s))
        self._due[place] = time.monotonic() + pause_s

    def _end(self) -> None:
        """Workers first: what they hand on must still be answered."""
        log.info("draining", grace_s=self._config.grace_s)
        workers = [pid for pid, place in self._pids.items() if place != WRITER]
        self._tell(workers, signal.SIGTERM)
        self._wait_for(workers)
        rest = list(self._pids)
        self._tell(rest, _DRAIN)
        self._wait_for(rest)

    def _tell(self, pids: list[int], number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _wait_for(self, pids: list[int]) -> None:
        ends = time.monotonic() + self._config.grace_s + _KILL_AFTER_S
        while any(pid in self._pids for pid in pids) and time.monotonic() < ends:
            self._hear(_POLL_S)
        late = [pid for pid in pids if pid in self._pids]
        if late:
            log.error("killed: it did not end", pids=late)
        self._tell(late, signal.SIGKILL)

    def _kill_all(self) -> None:
        """Whatever is left, where something failed."""
        self._tell(list(self._pids), signal.SIGKILL)
        for pid in self._pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    # -- processes -----------------------------------------------------------------------------------

    def _fork(self, place: int) -> None:
        writer = self._crew.board.next_writer() if place == WRITER else 0
        try:
            pid = os.fork()
        except OSError as error:  # no memory, or too many processes: those that are there go on
            log.error("process cannot be started", started_role=self._crew.role(place), reason=str(error))
            self._due[place] = time.monotonic() + _PAUSE_MAX_S
            return
        if pid == 0:
            self._be(place, writer)
        self._pids[pid] = place

    def _be(self, place: int, writer: int) -> NoReturn:
        """In the new process: be the writer, or a worker, to the end."""
        code = 2
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == self._crew.supervisor:
                code = self._run(place, writer)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                log.error("failed", exc_info=error)
        finally:
            os._exit(code)

    def _run(self, place: int, writer: int) -> int:
        for one in self._kept:
            one.close()
        self._crew.board.begin(place, os.getpid())
        app.prepare(self._config, role=self._crew.role(place), pid=os.getpid())
        made, config, number = self._made(place, writer)
        for other in {*_ENDS, _DRAIN} - {number}:
            signal.signal(other, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})  # its own waits until the server listens to it
        try:
            app.run(app.Server(config, made), (number,))
        except (VecdbError, OSError) as error:
            log.error("not served", code=getattr(error, "code", "SYSTEM"), reason=str(error))
            return _NOT_SERVED
        return 0

    def _made(self, place: int, writer: int) -> tuple[CrewPlace, Config, signal.Signals]:
        """The place of a process, its settings, and the signal at which it drains."""
        config = self._config
        if place == WRITER:
            # with the certificate: its socket is without TLS, but the metrics page is not
            return WriterPlace(self._crew), replace(config, listen=self._crew.address(writer), reflection=False), _DRAIN
        share = -(-config.connections_max // self._workers)
        own: dict[str, Any] = {
            "read_only": True, "log": None, "lease": False, "durability": "full",
            "metrics": config.metrics if not self._crew.writes and place == 1 else None,
            "write_threads": 1,
            "connections_max": min(config.connections_max, share + max(32, share // 4)),
            "watches_max": -(-config.watches_max // self._workers),
        }  # fmt: skip
        return WorkerPlace(self._crew, place, config.slow_reader_s), replace(config, **own), signal.SIGTERM
