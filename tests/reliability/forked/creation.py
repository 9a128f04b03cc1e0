"""Workers that open one directory and stand still between any two steps of it."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from types import FunctionType
from typing import Any

from tests.reliability.forked.records import put
from tests.reliability.harness import DIM, NAME
from vecdb.embedded.open import open_database
from vecdb.errors import VecdbError
from vecdb.storage.disk import filesystem
from vecdb.storage.kv import store


def on_each_step(before: Any) -> None:
    """Call `before` ahead of every call of the seam to the system, and of LMDB's opening."""

    def wrapped(real: Any) -> Any:
        def twin(*arguments: Any, **named: Any) -> Any:
            before()
            return real(*arguments, **named)

        return twin

    for name, value in list(vars(filesystem).items()):
        if isinstance(value, FunctionType) and value.__module__ == filesystem.__name__ and not name.startswith("_"):
            setattr(filesystem, name, wrapped(value))
    store.lmdb.open = wrapped(store.lmdb.open)


def stalled_open(path: str, at: int, reached: str, go: str) -> dict[str, Any]:
    """Open, but wait at the step of that number (0: never) until told to go on; then keep it open until told again."""
    steps = 0

    def told(word: str) -> None:
        with open(reached, "w") as telling:
            telling.write(word)
        with open(go) as waiting:
            waiting.read()

    def before() -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            told("stalled")

    on_each_step(before)
    try:
        db = open_database(path, maintenance=False)
    except VecdbError as error:
        return {"error": type(error).__name__, "text": str(error), "steps": steps}
    opened = steps
    told("opened")
    db.close()
    return {"error": None, "steps": opened}


def racing_open(path: str, seed: int, at: float, round_seconds: float) -> dict[str, Any]:
    """Open at the moment `at` with short stalls at random steps; write ten records while it holds the database."""
    rng = random.Random(seed)

    def before() -> None:
        if rng.random() < 0.3:
            time.sleep(rng.random() * 0.004)

    on_each_step(before)
    while time.time() < at:
        time.sleep(0)
    ends = at + round_seconds
    while True:
        try:
            db = open_database(path, maintenance=False)
            break
        except VecdbError as error:
            if type(error).__name__ != "Locked":
                return {"error": type(error).__name__, "text": str(error)}
            if time.time() > ends:
                return {"error": "Locked"}
    fd = os.open(Path(path) / "held", os.O_CREAT | os.O_EXCL)  # fails where another holds the database, too
    c = db.create_collection(NAME, DIM, "l2", exist_ok=True)
    ids = [10 * seed + i for i in range(10)]
    put(c, ids, [1] * 10)
    os.unlink(Path(path) / "held")
    os.close(fd)
    db.close()
    return {"error": None, "ids": ids}
