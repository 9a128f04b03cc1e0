"""Processes of their own, asked by lines: contestants (vecdb_bench/engines/engine_process.py answers), modules of this
package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import vecdb

_CONTESTANTS = Path(__file__).parent / "engines"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS", "LANCE_IO_THREADS"), "1"
)


class Asked:
    """A process that answers a line of JSON with a line of JSON, until its standard input ends."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL,
            env=os.environ | (env or {}),
        )  # fmt: skip
        self.name = name

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, **question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise vecdb.Unavailable(
                f"contestant {self.name} ended without an answer; run its script by hand to see why"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of: object) -> None:
        self.close()


class Seat:
    """A contestant's place in a process of several."""

    def __init__(self, name: str, process: Asked) -> None:
        self.name = name
        self._process = process

    def ask(self, **question: Any) -> dict[str, Any]:
        return self._process.ask(name=self.name, **question)


class Together(Asked):
    """vecdb_bench/engines/shared_process.py: several scripts of engines/ in one process, on the data of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__("together", [sys.executable, str(_CONTESTANTS / "shared_process.py")], ONE_THREAD)

    def enter(self, name: str, script: str, spec: Mapping[str, Any]) -> Seat:
        folder, base, queries = (str(self._folder / of) for of in (name, "base.npy", "queries.npy"))
        seat = Seat(name, self)
        seat.ask(do="enter", script=script, folder=folder, base=base, queries=queries, spec=dict(spec))
        return seat


class Process(Asked):
    """A script of engines/.

    folder : holds base.npy and queries.npy, and what the contestant builds in a folder of its name.   python : the
    interpreter that has its engine; None: this one.
    """

    def __init__(
        self,
        name: str,
        script: str,
        folder: Path,
        spec: dict[str, Any],
        python: str | None = None,
        *,
        one_thread: bool = False,
    ) -> None:
        path = _CONTESTANTS / script
        arguments = [str(folder / name), str(folder / "base.npy"), str(folder / "queries.npy"), json.dumps(spec)]
        super().__init__(name, [python or sys.executable, str(path), *arguments], ONE_THREAD if one_thread else None)


class Module(Asked):
    """A module of this package, run by this interpreter, which finds what this process finds."""

    def __init__(self, name: str, module: str, *arguments: str, one_thread: bool = False) -> None:
        command = [sys.executable, "-m", f"{__package__}.{module}", *arguments]
        super().__init__(name, command, modules_path() | (ONE_THREAD if one_thread else {}))


def modules_path() -> dict[str, str]:
    """An environment in which another process of this interpreter imports what this one does."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def answer_lines(answers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """The other end: each line's `do` names who answers it, the rest are its arguments."""
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(answers[question.pop("do")](**question)), flush=True)
