"""A process of several contestants: whatever one of them does to caches, the next one meets.

{"do": "enter", "name", "script", "folder", "base", "queries", "spec"}   makes one, of a script beside this one
{"name", ...}                                                          is for that one, as engine_process.py answers it
"""

from __future__ import annotations

import importlib

import engine_process


def kind_of(script: str) -> type[engine_process.Contestant]:
    """The contestant that a script serves."""
    module = importlib.import_module(script.removesuffix(".py"))
    return next(
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, engine_process.Contestant) and one.__module__ == module.__name__
    )


class Together:
    def __init__(self) -> None:
        self._sessions: dict[str, engine_process.Session] = {}

    def answer(self, asked: engine_process.Spec) -> engine_process.Spec:
        name = asked.pop("name")
        if asked["do"] != "enter":
            return self._sessions[name].answer(asked)
        kind = kind_of(asked["script"])
        self._sessions[name] = engine_process.enter(
            kind, asked["folder"], asked["base"], asked["queries"], asked["spec"]
        )
        return {}


if __name__ == "__main__":
    engine_process.answer_lines(Together().answer)
