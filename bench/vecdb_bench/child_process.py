"""Child processes that answer lines of JSON: engines (vecdb_bench/engines) and modules of this package.

    parent --JSON line--> child      {"do": "build", ...}
    parent <--JSON line-- child      {"seconds": ..., ...}          until the child's standard input ends

Threads: one caller for each process.
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

_ENGINES = Path(__file__).parent / "engines"
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS", "LANCE_IO_THREADS"), "1"
)


class LineProcess:
    """A process that answers each line of JSON with a line of JSON."""

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
            raise vecdb.Unavailable(f"engine {self.name} ended without an answer; run its script by hand to see why")
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


class SharedEngine:
    """One engine in a process of several."""

    def __init__(self, name: str, process: LineProcess) -> None:
        self.name = name
        self._process = process

    def ask(self, **question: Any) -> dict[str, Any]:
        return self._process.ask(name=self.name, **question)


class SharedProcess(LineProcess):
    """Several engines in one process (vecdb_bench/engines/shared_process.py), on the data of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        command = [sys.executable, str(_ENGINES / "shared_process.py")]
        super().__init__("shared process", command, _engines_path() | ONE_THREAD)

    def add(self, name: str, script: str, spec: Mapping[str, Any]) -> SharedEngine:
        folder, base, queries = (str(self._folder / of) for of in (name, "base.npy", "queries.npy"))
        engine = SharedEngine(name, self)
        engine.ask(do="add", script=script, folder=folder, base=base, queries=queries, spec=dict(spec))
        return engine


class EngineProcess(LineProcess):
    """One engine: a script below engines/.

    script : its path there.   folder : holds base.npy and queries.npy; the engine builds in a folder of its name there.
    python : the interpreter that has the engine; None for this one.
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
        arguments = [str(folder / name), str(folder / "base.npy"), str(folder / "queries.npy"), json.dumps(spec)]
        command = [python or sys.executable, str(_ENGINES / script), *arguments]
        super().__init__(name, command, _engines_path() | (ONE_THREAD if one_thread else {}))


class ModuleProcess(LineProcess):
    """A module of this package, run by this interpreter with this process's import path."""

    def __init__(self, name: str, module: str, *arguments: str, one_thread: bool = False) -> None:
        command = [sys.executable, "-m", f"{__package__}.{module}", *arguments]
        super().__init__(name, command, modules_path() | (ONE_THREAD if one_thread else {}))


def modules_path() -> dict[str, str]:
    """An environment in which another process of this interpreter imports what this one does."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _engines_path() -> dict[str, str]:
    """An environment in which the scripts below engines/ import engine_process.py."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(_ENGINES), os.environ.get("PYTHONPATH"))))}


def answer_lines(answers: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """The child's side: `do` of each line names the function that answers it; the rest are its arguments."""
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(answers[question.pop("do")](**question)), flush=True)
