"""Several engines in one process, so that they meet the same state of caches and memory.

{"do": "add", "name", "script", "folder", "base", "queries", "spec"}   makes an engine; script: its path in this folder
{"name", ...}                                                          is for that engine; engine_process.py answers it
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import engine_process


def engine_of(script: str) -> type[engine_process.Engine]:
    """The engine that a script defines."""
    path = Path(__file__).parent / script
    sys.path.insert(0, str(path.parent))  # as when the script is run: it imports its neighbours
    module = importlib.import_module(path.stem)
    return next(
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, engine_process.Engine) and one.__module__ == module.__name__
    )


class SharedProcess:
    def __init__(self) -> None:
        self._sessions: dict[str, engine_process.Session] = {}

    def answer(self, line: engine_process.Spec) -> engine_process.Spec:
        name = line.pop("name")
        if line["do"] != "add":
            return self._sessions[name].answer(line)
        self._sessions[name] = engine_process.session(
            engine_of(line["script"]), line["folder"], line["base"], line["queries"], line["spec"]
        )
        return {}


if __name__ == "__main__":
    engine_process.answer_lines(SharedProcess().answer)
