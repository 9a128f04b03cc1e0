"""`vecdb serve --workers N` in processes of its own, and clients of which each is known to reach another worker."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from tests.support.server.driver import Client, until_ready
from tests.support.server.process import Process
from vecdb.v1 import admin_pb2

_ESTABLISHED = "01"
_CLIENTS_MAX = 64  # that are connected until each worker has one: each goes to one of them by chance


class WorkersProcess(Process):
    """A server of several processes. token : of an administrator, where it wants tokens."""

    def __init__(
        self, path: Path, folder: Path, workers: int, *options: str, token: str | None = None, **more: Any
    ) -> None:
        super().__init__(path, folder, "--workers", str(workers), *options, **more)
        self.path = path
        self.workers = workers
        self.token = token
        self._clients: list[Client] = []

    def client(self, token: str | None = None, **options: Any) -> Client:
        """A client on a connection of its own; it is closed with the server."""
        self._clients.append(Client(self.address, token or self.token, **options))
        return self._clients[-1]

    def ready(self) -> Client:
        """A client, once the server serves."""
        client = self.client()
        until_ready(client)
        return client

    def clients(self, token: str | None = None) -> list[Client]:
        """A client of each worker."""
        found: dict[int, Client] = {}
        workers = self.pids("worker")
        for _ in range(_CLIENTS_MAX):
            before = self._connections()
            client = self.client(token)
            client(client.admin.GetServerInfo, admin_pb2.GetServerInfoRequest())
            [pid] = [pid for pid in workers if self._connections()[pid] - before[pid]]
            found.setdefault(pid, client)
            if len(found) == len(workers):
                return list(found.values())
        raise AssertionError(f"{_CLIENTS_MAX} connections went to {sorted(found)} of {workers}")

    def pids(self, role: str) -> list[int]:
        """Process numbers of the processes of a role that are there. The log says what each is, once it serves."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, _, rest = stat.read_text(encoding="utf-8").partition(" ")
                state, parent = rest.rpartition(")")[2].split()[:2]
                if int(parent) == self.process.pid and state != "Z" and self._role(int(pid)) == role:
                    found.append(int(pid))
        return found

    def whole(self) -> bool:
        """Whether all processes are there, and serve."""
        return len(self.pids("worker")) == self.workers and len(self.pids("writer")) == 1

    def _role(self, pid: int) -> str:
        roles = re.findall(rf'"role": "(\w+)", "pid": {pid}\b', self.log())
        return roles[-1] if roles else ""

    def _connections(self) -> dict[int, set[str]]:
        """The sockets of established connections to the port, by the process that has them."""
        port = f":{self.ports()[0]:04X}"
        inodes = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                words = line.split()
                if words[1].endswith(port) and words[3] == _ESTABLISHED:
                    inodes.add(words[9])
        found = {}
        for pid in self.pids("worker"):
            links = set()
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    links.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
            found[pid] = {inode for inode in inodes if f"socket:[{inode}]" in links}
        return found

    def __exit__(self, *raised: Any) -> None:
        for client in self._clients:
            client.close()
        super().__exit__(*raised)


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
