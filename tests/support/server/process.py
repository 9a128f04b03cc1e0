"""`vecdb serve` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.server.driver import PATIENCE_S

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(ROOT), *(str(ROOT / name) for name in ("datasets", "bench", "server"))]),
    "VECDB_WORKERS": "1",  # one process, however many cores there are; tests of workers say how many
}
VECDB = (sys.executable, "-c", "from vecdb.cli import main; main()")


class Process:
    """A server that runs until it is told to end, or killed. options : of `vecdb serve`.   prefix : words before its
    own, of a program that becomes it.   environment : beside that of all.
    before : Python that it runs first.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        *options: str,
        listen: str = "127.0.0.1:0",
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        before: str = "",
    ) -> None:
        self._log = folder / f"log-{len(list(folder.glob('log-*')))}"
        words = ["serve", "--path", str(path), "--listen", listen, *options]
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *VECDB[:2], f"{before}\n{VECDB[2]}", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                env=ENVIRONMENT | dict(environment or {}),
                text=True,
            )
        self.said: list[str] = []

    def ports(self, count: int = 1) -> list[int]:
        """What it prints once it listens. Raises AssertionError where it ends before."""
        assert self.process.stdout is not None
        while len(self.said) < count:
            line = self.process.stdout.readline()
            assert line, self.log()
            self.said.append(line)
        return [int(re.findall(r"\d+", line)[-1]) for line in self.said]

    @property
    def address(self) -> str:
        return f"localhost:{self.ports()[0]}"

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(PATIENCE_S) == -signal.SIGKILL

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def memory_bytes(self) -> int:
        """Anonymous memory: neither files nor what is only reserved."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"RssAnon:\s+(\d+) kB", text)
        assert found is not None
        return int(found[1]) * 1_024

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
