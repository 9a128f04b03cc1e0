"""Web servers of several processes over one directory, as server/README.md tells it: each process opens it for itself,
one of them or none writes, and what was opened before a fork is refused with words that help.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 60.0
ROWS = np.eye(8, dtype=np.float32)

# A pre-forking server, as gunicorn is one: it binds, forks its workers, and each of them answers what comes.
PREFORKING = """
import json, os, socket, sys
import vecdb

path, when, listening = sys.argv[1], sys.argv[2], socket.socket(fileno=int(sys.argv[3]))
db = vecdb.open(path, read_only=True) if when == "preload" else None
for _ in range(2):
    if os.fork() == 0:
        break
else:
    os.wait()
    os._exit(0)
if when != "preload":
    db = vecdb.open(path, read_only=when == "read")
while True:
    caller, _ = listening.accept()
    with caller:
        caller.recv(65536)
        try:
            answer = {"pid": os.getpid(), "count": db.collection("docs").count()}
        except vecdb.VecdbError as error:
            answer = {"pid": os.getpid(), "error": error.code, "text": str(error)}
        body = json.dumps(answer).encode()
        caller.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n" % len(body) + body)
"""


def environment() -> dict[str, str]:
    paths = (ROOT, ROOT / "server" / "examples", *map(Path, filter(None, sys.path)))
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}


@contextmanager
def running(command: list[str], fds: tuple[int, ...] = (), **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=environment() | variables, pass_fds=fds, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)


def asked(port: int, method: str = "GET", path: str = "/count", body: Any = None) -> Any:
    """The answer, once there is one."""
    ends = time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read())
        except (ConnectionError, http.client.HTTPException):
            assert time.monotonic() < ends
        finally:
            connection.close()


def of_both(port: int) -> list[Any]:
    """An answer of each of two processes."""
    found: dict[int, Any] = {}
    ends = time.monotonic() + PATIENCE_S
    while len(found) < 2:
        assert time.monotonic() < ends, found
        answer = asked(port)
        found[answer["pid"]] = answer
    return list(found.values())


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with vecdb.open(tmp_path / "db") as db:
        db.create_collection("docs", 8, "l2").upsert(range(3), ROWS[:3])
    return tmp_path / "db"


def preforking(path: Path, when: str, listening: socket.socket) -> Any:
    command = [sys.executable, "-c", PREFORKING, str(path), when, str(listening.fileno())]
    return running(command, (listening.fileno(),))


def test_forked_workers_that_open_for_themselves_read_what_another_process_writes(
    path: Path, listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    with preforking(path, "read", listening), vecdb.open(path) as db:
        assert [one["count"] for one in of_both(port)] == [3, 3]
        db.collection("docs").upsert([3], ROWS[3:4])
        assert [one["count"] for one in of_both(port)] == [4, 4]


def test_a_database_opened_before_the_fork_is_refused_with_the_remedy(path: Path, listening: socket.socket) -> None:
    with preforking(path, "preload", listening):
        for one in of_both(listening.getsockname()[1]):
            assert one["error"] == "UNAVAILABLE"
            assert re.search(r"opened by process \d+ and inherited by a fork; open it anew in process", one["text"])
            assert str(one["pid"]) in one["text"]


@pytest.mark.slow
def test_uvicorn_starts_workers_that_read_the_newest_commit(path: Path, listening: socket.socket) -> None:
    pytest.importorskip("uvicorn")
    port = listening.getsockname()[1]
    listening.close()
    command = [sys.executable, "-m", "uvicorn", "web_app:app", "--workers", "2", "--port", str(port)]
    with running([*command, "--log-level", "error"], VECDB_PATH=str(path)), vecdb.open(path) as db:
        for count in (3, 4):
            assert [one["count"] for one in of_both(port)] == [count, count]
            db.collection("docs").upsert([count], ROWS[count : count + 1])
            found = asked(port, "POST", "/search", ROWS[count].tolist())
            assert found["ids"][0] == count and found["distances"][0] == 0.0
        assert "dim" in asked(port, "POST", "/search", [1.0])["error"]
