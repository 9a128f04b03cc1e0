"""Lineup: the servers and clients that are compared, started, connected and warm.

    embedded   a program with the database in its process (a copy, because only one process may have a database open)
    remote     the same program over gRPC
    vecdb      the server, called by the load generator        echo   the ceiling, called by the same

All of them stay up between turns; an idle one costs nothing.
"""

from __future__ import annotations

import math
import shutil
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vecdb_bench.child_process import ModuleProcess
from vecdb_bench.engines import length_prefixed
from vecdb_bench.serving import servers
from vecdb_bench.serving.plan import Plan
from vecdb_datasets import Dataset, recall
from vecdb_datasets import load as load_dataset

Say = Callable[[str], None]
Turn = Callable[[], dict[str, Any]]
Found = dict[str, Any]


class Lineup:
    """folder : for the files of this run.   say : called with messages about progress."""

    def __init__(self, plan: Plan, folder: Path, say: Say) -> None:
        self.plan, self.folder, self.say = plan, folder, say
        self._stack = ExitStack()
        self.data, tuning = _data(plan)
        np.save(folder / "base.npy", self.data.base)
        np.save(folder / "queries.npy", self.data.queries)
        self.database = Path(plan.kept) if plan.kept else folder / "database"
        if not self.database.exists():
            say(f"building {self.data.name}")
            servers.build(self.database, self.data.base, self.data.metric, tuning, plan.recall, plan.limit)

    def __enter__(self) -> Lineup:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *of: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        plan, queries = self.plan, self.data.queries
        self.say("starting servers")
        self.embedded = self.client(str(self.copy("near")))
        self.vecdb = self.serve(self.copy("served"))
        self.load = self.add(ModuleProcess("load", "serving.load_process"))
        self.one = servers.write_requests(self.folder / "one", servers.search_requests(queries, plan.limit))
        self.many = servers.write_requests(
            self.folder / "many", servers.search_requests(queries, plan.limit, min(plan.batch, len(queries)))
        )
        self.connect("vecdb", self.vecdb.target, servers.SEARCH, self.one)
        self.connect("vecdb, many", self.vecdb.target, servers.SEARCH, self.many)
        streamed = servers.write_requests(self.folder / "stream", servers.streamed_requests(self.one))
        self.connect("vecdb, stream", self.vecdb.target, servers.STREAM, streamed, stream=True)
        answers = self.folder / "answers"
        self.load.ask(do="answers", name="vecdb", count=len(queries), file=str(answers))
        self.recall = self.recall_of(servers.rows_of(answers))
        self.echo = self.add(servers.Echo(_typical(answers)))
        self.connect("echo", self.echo.target, "/echo/0", self.one)
        self.connect("echo, stream", self.echo.target, "/stream/0", streamed, stream=True)

    @cached_property
    def remote(self) -> ModuleProcess:
        return self.client(f"grpc://{self.vecdb.target}")

    # -- processes -----------------------------------------------------------------------------------

    def add(self, started: Any) -> Any:
        """It ends with the lineup."""
        return self._stack.enter_context(started)

    def serve(self, database: Path, flags: Sequence[str] = ()) -> servers.Vecdb:
        server: servers.Vecdb = self.add(servers.Vecdb(database, self.folder, flags))
        return server

    def client(self, where: str) -> ModuleProcess:
        program: ModuleProcess = self.add(
            ModuleProcess("client", "serving.client_driver", where, str(self.folder / "queries.npy"), one_thread=True)
        )
        return program

    def copy(self, name: str) -> Path:
        """A copy of the database, because only one process may have a database open."""
        shutil.copytree(self.database, self.folder / name)
        return self.folder / name

    def connect(
        self, name: str, target: str, method: str, requests: Path, *, stream: bool = False, connections: int = 1
    ) -> None:
        self.load.ask(
            do="connect", name=name, target=target, method=method, requests=str(requests), stream=stream,
            connections=connections,
        )  # fmt: skip

    # -- turns ---------------------------------------------------------------------------------------

    def closed(self, name: str, pid: int, clients: int) -> Turn:
        return lambda: self.load.ask(do="closed", name=name, clients=clients, seconds=self.plan.seconds, pid=pid)

    def streamed(self, name: str, pid: int) -> Turn:
        return lambda: self.load.ask(
            do="streamed", name=name, streams=self.plan.callers, window=self.plan.window, seconds=self.plan.seconds,
            pid=pid,
        )  # fmt: skip

    def searches(self, program: ModuleProcess) -> Turn:
        return lambda: program.ask(do="search", limit=self.plan.limit, seconds=self.plan.seconds)

    def recall_of(self, rows: list[list[int]]) -> float:
        truth = self.data.truth_for(self.plan.limit)
        return float(recall(rows, truth.ids[: len(rows)], truth.distances[: len(rows)], self.plan.limit))

    def alternate(self, turns: Mapping[str, Turn]) -> dict[str, list[Found]]:
        """Every turn once in each round; each round has another order."""
        names = list(turns)
        found: dict[str, list[Found]] = {name: [] for name in names}
        for at in range(self.plan.rounds):
            for name in names[at % len(names) :] + names[: at % len(names)]:
                found[name].append(turns[name]())
        return found


def median(rounds: Iterable[Mapping[str, Any]]) -> Found:
    """The median of each figure."""
    rows = list(rounds)
    names = [name for name, value in rows[0].items() if isinstance(value, (int, float))]
    return {name: statistics.median(row[name] for row in rows if name in row) for name in names}


def median_ratio(over: Sequence[Found], under: Sequence[Found], figure: str) -> float:
    """The median ratio of pairs that were measured one right after the other."""
    return statistics.median(a[figure] / b[figure] if b[figure] else math.inf for a, b in zip(over, under, strict=True))


def _data(plan: Plan) -> tuple[Dataset, Any]:
    """The data set, and the queries to tune on, which are others than those that are measured."""
    data = load_dataset(plan.dataset, plan.folder)
    base = np.asarray(data.base[: plan.rows], np.float32)
    queries = np.asarray(data.queries, np.float32)
    measured, spare = queries[: plan.queries], queries[plan.queries : plan.queries + 1_000]
    return Dataset(data.name, base, measured, data.metric), spare if len(spare) >= 100 else measured


def _typical(answers: Path) -> Path:
    """A file with one answer, of the median size."""
    sizes = sorted(length_prefixed.read(answers), key=len)
    file = answers.with_name("typical")
    length_prefixed.write(file, [sizes[len(sizes) // 2]])
    return file
