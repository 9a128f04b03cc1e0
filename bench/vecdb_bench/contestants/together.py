"""A process of several contestants: whatever one of them does to caches, the next one meets.

{"do": "enter", "name", "script", "folder", "base", "queries", "spec"}   makes one, of a script beside this one
{"name", ...}                                                            is for that one, as contest.py answers it
"""

from __future__ import annotations

import importlib

import contest


def kind_of(script: str) -> type[contest.Contestant]:
    """The contestant that a script serves."""
    module = importlib.import_module(script.removesuffix(".py"))
    return next(
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, contest.Contestant) and one.__module__ == module.__name__
    )


class Together:
    def __init__(self) -> None:
        self._sessions: dict[str, contest.Session] = {}

    def answer(self, asked: contest.Spec) -> contest.Spec:
        name = asked.pop("name")
        if asked["do"] != "enter":
            return self._sessions[name].answer(asked)
        kind = kind_of(asked["script"])
        self._sessions[name] = contest.enter(kind, asked["folder"], asked["base"], asked["queries"], asked["spec"])
        return {}


if __name__ == "__main__":
    contest.answer_lines(Together().answer)
