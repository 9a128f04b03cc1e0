"""Servers that are measured, each in a process of its own, and their requests and answers.

Vecdb     `vecdb serve` on a database that was built and tuned before
Echo      echo.py, with answers from a file
Milvus    milvus-lite's server under an interpreter that has it (vecdb_bench/engines/serving_milvus.py)
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import vecdb
from vecdb.v1 import common_pb2, search_pb2
from vecdb_bench.child_process import EngineProcess, ModuleProcess, modules_path
from vecdb_bench.engines import length_prefixed
from vecdb_bench.serving.client_driver import COLLECTION

SEARCH, STREAM = "/vecdb.v1.SearchService/Search", "/vecdb.v1.SearchService/StreamSearch"
HEALTH = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"  # a HealthCheckResponse
_START_S = 120.0


class Vecdb:
    """`vecdb serve` until `close`. flags : of the command."""

    def __init__(self, database: Path, folder: Path, flags: Sequence[str] = ()) -> None:
        self._log = folder / f"server-{len(list(folder.glob('server-*.log')))}.log"
        command = [sys.executable, "-c", "from vecdb.cli import main; main()", "serve"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--path", str(database), "--listen", "127.0.0.1:0", *flags],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | modules_path(),
            )  # fmt: skip
        self.pid = self._process.pid
        self.target = f"127.0.0.1:{self._serving()}"

    def _serving(self) -> int:
        """The port, once the server says that it serves."""
        ends = time.monotonic() + _START_S
        while time.monotonic() < ends and self._process.poll() is None:
            port = re.search(r"listening on port (\d+)", self._log.read_text(encoding="utf-8"))
            if port is not None and _healthy(f"127.0.0.1:{port[1]}"):
                return int(port[1])
            time.sleep(0.05)
        self.close()
        raise vecdb.Unavailable(f"the server did not start: {self._log.read_text(encoding='utf-8')[-2_000:]}")

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def __enter__(self) -> Vecdb:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()


def _healthy(target: str) -> bool:
    with grpc.insecure_channel(target) as channel:
        answer: bytes = channel.unary_unary(HEALTH)(b"", timeout=_START_S)
    return answer == _SERVING


def search_requests(
    queries: Any, limit: int, batch: int = 1, params: search_pb2.SearchParams | None = None
) -> list[search_pb2.SearchRequest]:
    """Requests of `batch` queries each. params : None for the width that the collection was tuned to."""
    return [
        search_pb2.SearchRequest(
            collection=COLLECTION,
            vectors=common_pb2.Vectors(
                data=part.tobytes(), dtype=common_pb2.DATA_TYPE_FLOAT32, dim=queries.shape[1]
            ),
            limit=limit,
            params=params,
        )
        for part in (queries[start : start + batch] for start in range(0, len(queries) - batch + 1, batch))
    ]  # fmt: skip


def streamed_requests(file: Path) -> list[search_pb2.StreamSearchRequest]:
    """The requests of a file as messages of a stream."""
    return [
        search_pb2.StreamSearchRequest(search=search_pb2.SearchRequest.FromString(request))
        for request in length_prefixed.read(file)
    ]


def write_requests(file: Path, requests: Iterable[Any]) -> Path:
    length_prefixed.write(file, (request.SerializeToString() for request in requests))
    return file


def rows_of(file: Path) -> list[list[int]]:
    """The ids in a file of answers to single searches."""
    return [list(search_pb2.SearchResponse.FromString(answer).ids.ints.values) for answer in length_prefixed.read(file)]


class Echo(ModuleProcess):
    """Answers /echo/<n> with message n of the file `answers`."""

    def __init__(self, answers: Path) -> None:
        super().__init__("echo", "serving.echo", str(answers))
        self.target = str(self.ask(do="where")["target"])


class Milvus(EngineProcess):
    """milvus-lite's server, on the data of a folder. Its database is built when it starts."""

    method = "/milvus.proto.milvus.MilvusService/Search"
    efforts = (32, 48, 64, 80, 96, 128, 192, 256, 400)

    def __init__(self, python: str, folder: Path, metric: str, limit: int) -> None:
        super().__init__("milvus-lite", "serving_milvus.py", folder, {"metric": metric, "limit": limit}, python)
        self.built = self.ask(do="build")
        self.target = str(self.ask(do="where")["target"])

    def requests(self, effort: int, file: Path) -> Path:
        self.ask(do="requests", effort=effort, file=str(file))
        return file

    def rows(self, file: Path) -> list[list[int]]:
        return list(self.ask(do="rows", file=str(file))["rows"])


def build(database: Path, base: Any, metric: str, tuning: Any, recall: float, limit: int) -> dict[str, Any]:
    """Build a collection with a graph, tuned to `recall` on queries that are not measured later."""
    started = time.perf_counter()
    with vecdb.open(database) as db:
        docs = db.create_collection(
            COLLECTION, dim=base.shape[1], metric=metric, dtype=str(base.dtype), index=vecdb.Hnsw()
        )
        for start in range(0, len(base), 20_000):
            part = base[start : start + 20_000]
            docs.upsert(np.arange(start, start + len(part)), part)
        docs.optimize()
        docs.tune(tuning, recall, limit)
    return {"seconds": time.perf_counter() - started}
