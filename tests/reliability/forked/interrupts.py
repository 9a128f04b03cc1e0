"""The worker of test_interrupts.py: makes one call again and again, each time on a new copy of a database, stops where
the parent wants to interrupt it, and compares what is found afterwards with what was there before and would be after.

    child:  call ... "at the chosen function" --ready--> parent: kill(child, SIGINT) --go--> child: goes on
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import vecdb
from tests.reliability.forked.records import shrink
from tests.reliability.harness import DIM, NAME, ROOT, tenants_of, vectors_of
from tests.reliability.interrupts.calls import ROWS, N, Row, Stage
from tests.reliability.interrupts.commands import COMMANDS
from vecdb.embedded.open import open_database

OURS = tuple(str(ROOT / name) + os.sep for name in ("vecdb", "server", "datasets", "bench"))


class Stop:
    """Counts the calls of our functions in the main thread and in others, and stops at one of them.

    within : a function; what is called before it and after it does not count.
    """

    def __init__(self, ready: int, go: int, within: str) -> None:
        self._ready, self._go, self._within = ready, go, within
        self.at: tuple[str, int] | None = None  # "main" or "other", and which call
        self.counts = {"main": 0, "other": 0}
        self.reached = ""  # the function that was stopped at
        self.active = False
        self._stops = 0
        self._went_on = threading.Semaphore(0)
        self._main = threading.main_thread()
        threading.setprofile(self._see)

    def __enter__(self) -> Stop:
        self.counts = {"main": 0, "other": 0}
        self.reached = ""
        self._went_on = threading.Semaphore(0)
        self.active = not self._within
        sys.setprofile(self._see)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        self.active = False

    def wait(self) -> None:
        """Until the signal was sent, where a thread was stopped."""
        if self.reached:
            self._went_on.acquire()

    def _see(self, frame: Any, event: str, argument: Any) -> None:
        if event in ("c_call", "c_return", "c_exception"):
            return
        if self._within and frame.f_code.co_qualname == self._within:
            self.active = event == "call"
        elif event == "call" and self.active and frame.f_code.co_filename.startswith(OURS):
            self._count(frame.f_code)

    def _count(self, code: Any) -> None:
        thread = "main" if threading.current_thread() is self._main else "other"
        self.counts[thread] += 1
        if self.at == (thread, self.counts[thread]) and not self.reached:
            self.reached = f"{code.co_filename.removeprefix(str(ROOT) + os.sep)}:{code.co_qualname}"
            self._stops += 1
            os.write(self._ready, bytes([self._stops]))
            while os.read(self._go, 1) != bytes([self._stops]):
                pass  # of a stop before, which the signal ended before this came
            self._went_on.release()
            # CPython 3.11: a profiled thread turns on the spot while a signal waits for a main thread that waits
            sys.setprofile(None)


def interrupted(path: str, template: str, row: str, ready: str, go: str, points: int, seed: int) -> dict[str, Any]:
    """Interrupt `row` at `points` places. Returns what was wrong."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    to_parent = os.open(ready, os.O_WRONLY)
    try:
        within = "reports_errors.<locals>.wrapped" if row in COMMANDS else ""
        stop = Stop(to_parent, os.open(go, os.O_RDONLY), within)
        return _interrupted(Path(path), Path(template), row, stop, points, seed)
    finally:
        os.write(to_parent, bytes(1))


def _interrupted(folder: Path, template: Path, row: str, stop: Stop, points: int, seed: int) -> dict[str, Any]:
    rng = random.Random(f"{seed} {row}")
    shrink()
    trial = _Trial(folder, template, (ROWS | COMMANDS)[row], stop)
    trial.learn()
    places = [(thread, 1 + rng.randrange(seen)) for thread, seen in trial.counts.items() if seen]
    while len(places) < points:
        [thread] = rng.choices(list(trial.counts), list(trial.counts.values()))
        places.append((thread, 1 + rng.randrange(trial.counts[thread])))
    for place in places:
        trial.interrupt(place)
    return {"wrong": trial.wrong, "places": len(places), "counts": trial.counts}


def template(path: str) -> None:
    """A database with an index, a tail, dead rows, tenants and fields; its backups."""
    shrink()
    made = Path(path)
    made.mkdir()
    with open_database(made / "db", maintenance=False) as db:
        docs = db.create_collection(NAME, DIM, "l2")
        ids = [*range(900, 940), *range(N)]
        fields = [{"n": i, "kind": f"k{i % 5}", "text": f"text {i}"} for i in ids]
        tenants = [[*tenants_of(i), *(["mine"] if i < 300 else [])] if i < N else ["mine"] for i in ids]
        docs.upsert(ids[:350], vectors_of(ids[:350], [1] * 350), fields[:350], tenants[:350])
        docs.optimize()
        docs.upsert(ids[350:], vectors_of(ids[350:], [1] * (len(ids) - 350)), fields[350:], tenants[350:])
        docs.update(range(60), vectors_of(range(60), [2] * 60))
        docs.delete(range(900, 920))
        db.backup(made / "backup")
        db.backup(f"file://{made}/bucket")
    for name in ("export", "export, as an array"):
        COMMANDS[name].call(Stage(made / "db", made, made))


def held(db: Any) -> dict[str, Any]:
    """What a database holds, by record, once the writes that are on their way have come to their end."""
    found: dict[str, Any] = {}
    for name in db.collections():
        with suppress(vecdb.NotFound):
            db[name].set_metadata(db[name].metadata)  # stands behind them
    for name in db.collections():
        docs = db[name]
        for page in docs.iter(include_vectors=True):
            for one in page:
                vector = None if one.vector is None else one.vector.tobytes()
                key = f"{name}/{one.owner}/{one.id}"
                assert key not in found, f"{key} is there twice"
                found[key] = (vector, one.fields, sorted(one.tenants))
        found[f"{name}."] = (docs.count(), docs.metadata, list(docs.tenants()))
    return found


class _Trial:
    def __init__(self, folder: Path, template: Path, row: Row, stop: Stop) -> None:
        self._folder, self._template, self._row, self._stop = folder, template, row, stop
        self._n = 0
        self.wrong: list[str] = []

    def _stage(self) -> Stage:
        self._n += 1
        new = self._folder / str(self._n)
        (new / "place").mkdir(parents=True)
        shutil.copytree(self._template / "db", new / "db")
        stage = Stage(new / "db", new / "place", self._template)
        if self._row.opened:
            stage.db = open_database(stage.path, maintenance=False)
            stage.docs.count(filter="n = 1")
        return stage

    def learn(self) -> None:
        """What the call answers, what it leaves, and how many calls of functions it takes."""
        warm = self._stage()
        with self._stop:
            self._row.call(warm)
        self._end(warm)
        stage = self._stage()
        self.before = self._held(stage)
        with self._stop:
            self.answer = self._row.call(stage)
        self.counts = dict(self._stop.counts)
        self.after, self.names = self._end(stage), _names(stage.place)

    def _held(self, stage: Stage) -> dict[str, Any]:
        if stage.db is not None:
            return held(stage.db)
        with open_database(stage.path, maintenance=False) as db:
            return held(db)

    def _end(self, stage: Stage) -> dict[str, Any]:
        if stage.db is not None:
            stage.db.close()
        with open_database(stage.path, maintenance=False) as db:
            self._note([f"check: {one}" for one in db.check()])
            return held(db)

    def _note(self, wrong: list[str]) -> None:
        self.wrong += [f"{self._place}: {one}" for one in wrong]

    _place = "without an interruption"

    def interrupt(self, place: tuple[str, int]) -> None:
        stage, stop = self._stage(), self._stop
        stop.at, ended, lost = place, "", []
        sys.unraisablehook = lambda what: lost.append(what.exc_type)
        try:
            try:
                with stop:
                    self._row.call(stage)
            finally:
                if place[0] == "other":
                    stop.wait()
        except KeyboardInterrupt:
            ended = "interrupted"
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}"
        finally:
            sys.unraisablehook = sys.__unraisablehook__
        stop.at = None
        self._place = f"at call {place[1]:,} of {place[0]}, {stop.reached or 'not reached'}"
        if ended != "interrupted" and stop.reached and not any(issubclass(one, KeyboardInterrupt) for one in lost):
            self._note([f"it ended with {ended or 'an answer'}"])
        self._look(stage)
        shutil.rmtree(stage.path.parent)

    def _look(self, stage: Stage) -> None:
        """What is there is as before or as after; the call works again; nothing else lies about."""
        row = self._row
        gc.collect()  # what the frames of the interruption kept, in circles
        try:
            found = self._held(stage)
            if not self._allowed(found):
                differences = [_difference(found, one) for one in (self.before, self.after)]
                self._note([f"neither as before nor as after: {differences}"])
            names = _names(stage.place)
            if names not in ([], self.names) and row.again:
                self._note([f"it left {names}"])
            if row.again or (found == self.before and names == []):
                answer = row.call(stage)
                if answer != self.answer and found == self.before:
                    self._note([f"made again it answers {answer!r:.200}, not {self.answer!r:.200}"])
            elif row.partly and found != self.after:
                row.call(stage)
            if _names(stage.place) != self.names:
                self._note([f"made again it leaves {_names(stage.place)}"])
            if (found := self._end(stage)) != self.after:
                self._note([f"made again it is not as after: {_difference(found, self.after)}"])
        except BaseException as error:
            self._note([f"afterwards: {traceback.format_exc()[-1500:]} {type(error).__name__}: {error}"])

    def _allowed(self, found: dict[str, Any]) -> bool:
        if not self._row.partly:
            return found in (self.before, self.after)
        keys = self.before.keys() | self.after.keys() | found.keys()
        return all(
            found.get(key) in (self.before.get(key), self.after.get(key)) for key in keys if not key.endswith(".")
        )


def _names(place: Path) -> list[str]:
    """Names of what a call has made. Half-made files and folders, which have the number of their process or a lock, go
    as those of a killed process do: with the next one.
    """
    return sorted(one.name for one in place.iterdir() if ".part-" not in one.name and ".tmp-" not in one.name)


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    keys = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    return f"{len(keys)} differ: " + ", ".join(f"{key} {found.get(key)!r:.90}" for key in keys[:3])
