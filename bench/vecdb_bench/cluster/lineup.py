"""What is measured: data, directories, servers, and shards with the placement that names them."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

import vecdb
from vecdb_bench.child_process import ModuleProcess
from vecdb_bench.cluster.plan import Plan
from vecdb_bench.serving.client_driver import COLLECTION
from vecdb_bench.serving.servers import Vecdb
from vecdb_datasets import Dataset, load

Say = Callable[[str], None]
Found = dict[str, Any]
_BATCH = 20_000
_SLOTS = 4_096


class Lineup:
    """Used with `with`, which ends all processes. folder : for the files of one measure."""

    def __init__(self, plan: Plan, folder: Path, say: Say) -> None:
        self.plan, self.folder, self.say = plan, folder, say
        self._stack = ExitStack()
        self._servers = 0

    def __enter__(self) -> Lineup:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def data(self, rows: int) -> Any:
        """The first rows of the plan's set, or so many clustered bytes, l2."""
        if self.plan.dataset is None:
            return load(f"clustered-{rows}x{self.plan.dim}-uint8")
        data = load(self.plan.dataset)
        return Dataset(data.name, np.asarray(data.base[:rows]), np.asarray(data.queries), data.metric)

    def queries(self, data: Any, count: int) -> Any:
        """count queries, drawn as the data are; the same ones again where the set has fewer."""
        return np.resize(data.queries, (count, data.dim)).astype(np.float32)

    def store(self, name: str) -> str:
        """The URL of a place of its own."""
        return f"{self.plan.store}/{name}" if self.plan.store else f"file://{self.folder.absolute()}/{name}"

    def add(self, started: Any) -> Any:
        """It ends with the lineup."""
        return self._stack.enter_context(started)

    def serve(self, database: Path, *flags: str) -> Vecdb:
        server: Vecdb = self.add(Vecdb(database, self.folder, flags))
        return server

    def client(self, where: str, queries: Any) -> ModuleProcess:
        """A program that searches there, in a process of its own."""
        file = self.folder / f"queries-{len(queries)}.npy"
        np.save(file, queries)
        program: ModuleProcess = self.add(ModuleProcess("client", "serving.client_driver", where, str(file)))
        return program

    def placed(self, name: str, shards: Sequence[tuple[str, Sequence[str]]]) -> str:
        """The address of a cluster. shards : of each the address of its writer, and those of its copies."""
        bucket = self.folder / name
        bucket.mkdir(exist_ok=True)
        share = [_SLOTS * (at + 1) // len(shards) - _SLOTS * at // len(shards) for at in range(len(shards))]
        placement = {
            "format": 1,
            "epoch": 1,
            "slots": [[at, slots] for at, slots in enumerate(share)],
            "shards": {
                str(at): {"log": f"shard-{at}", "writer": writer, "copies": list(copies)}
                for at, (writer, copies) in enumerate(shards)
            },
        }
        (bucket / "placement.json").write_text(json.dumps(placement))
        return f"cluster://{bucket.absolute()}"


class Meanwhile(ABC):
    """What a thread does again and again within a `with` block, once at the least. Its error is raised
    at the end of the block.

    rest_s : between two times.
    """

    rest_s = 0.0

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._pool = futures.ThreadPoolExecutor(1)
        self._running = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._running.result()

    def _run(self) -> None:
        self._once()
        while not self._stop.wait(self.rest_s):
            self._once()

    @abstractmethod
    def _once(self) -> None: ...


def filled(database: Path, data: Any, index: Any, **options: Any) -> float:
    """Make a database of the rows of a data set, and close it. Returns the seconds that it took."""
    began = time.perf_counter()
    with vecdb.open(database, **options) as db:
        fill(db, data, index).optimize()
    return time.perf_counter() - began


def fill(db: Any, data: Any, index: Any) -> Any:
    """The collection of a data set's rows; their numbers are the ids."""
    docs = db.create_collection(COLLECTION, dim=data.dim, metric=data.metric, dtype=str(data.base.dtype), index=index)
    for start in range(0, len(data.base), _BATCH):
        part = data.base[start : start + _BATCH]
        docs.upsert(np.arange(start, start + len(part)), part)
    return docs


def bytes_below(folder: Path) -> int:
    return sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) if folder.is_dir() else 0
