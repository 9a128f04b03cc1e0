"""The thread of a copy: it looks for the next object of the log, applies it, and knows how old its knowledge is.

    GET log/<epoch>/<next>   commits: apply, look again | nothing: this is the end, at the time of asking
                             the end of the epoch: go on in the next one, or from a snapshot of it

`fresh` lets a read through only while the end was known less than `staleness_s` ago, by this machine's own monotonic
clock: a copy that is cut off stops answering, instead of answering from the past.

An object that is missing because it was removed, and not because it was not written yet, is told apart by the mark that
whoever removes puts there ten minutes before (epochs.trimmed): a copy looks at it once a minute.

Threads: one follows; `fresh`, `wait_for` and `facts` from any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from vecdb import limits
from vecdb.errors import Corruption, InvalidArgument, Locked, NotFound, Stale, Unavailable, VecdbError
from vecdb.replication.log import entry, epochs
from vecdb.replication.log.applying import CopyDirectory
from vecdb.replication.log.entry import Commits, EpochBegin, EpochEnd, Position
from vecdb.replication.log.snapshot import SnapshotKeeper, read_manifest
from vecdb.replication.objects import Bucket
from vecdb.storage.kv.store import Store

_RETRY_LAST_S = 2.0
_PROMOTE_TRIES = 100
_log = logging.getLogger("vecdb")


class LogFollower:
    """Keeps a directory equal to what a log says."""

    def __init__(self, bucket: Bucket, path: Path, store: Store, *, durable: bool, staleness_s: float | None) -> None:
        """Makes the copy where there is none, and brings one up to the end of the log, if the store can be reached.

        Raises NotFound where there is no log, Unavailable where it has no snapshot yet.
        """
        self.staleness_s = staleness_s
        self._bucket = bucket
        self._path = path
        self._changed = threading.Condition()
        self._confirmed_at = -float("inf")
        self._looked_at = -float("inf")
        self._trouble = ""
        self._whole = False  # the object of the position is applied to its end
        self._stop = threading.Event()
        self._copy = CopyDirectory(path, store, bucket, durable=durable)
        self._sequence = 0 if self._copy.position is None else self._copy.position.sequence
        try:
            if self._copy.position is None:
                self._install(None)
            self._catch_up()
        except (NotFound, InvalidArgument):
            raise
        except VecdbError as error:
            if self._copy.position is None:
                raise
            self._note(error)
        self._thread = threading.Thread(target=self._run, name="vecdb-follow", daemon=True)
        self._thread.start()

    # -- from any thread ---------------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """Number of the newest commit that is applied."""
        return self._sequence

    def fresh(self) -> None:
        """Raise Stale where the end of the log was last known longer ago than `staleness_s`."""
        if not self._is_fresh():
            age = time.monotonic() - self._confirmed_at
            since = f"{age:.1f} s ago" if age < float("inf") else "never since it was opened"
            raise Stale(
                f"this copy knew the end of its log {since}, staleness_s={self.staleness_s}: it does not answer from "
                f"the past. Ask another copy or the writer{'; ' + self._trouble if self._trouble else ''}"
            )

    def _is_fresh(self) -> bool:
        return self.staleness_s is None or time.monotonic() - self._confirmed_at <= self.staleness_s

    def wait_for(self, sequence: int, timeout_s: float | None) -> bool:
        """Wait until a commit is applied, and the copy answers. Returns whether that is so."""
        with self._changed:
            return (
                self._changed.wait_for(
                    lambda: (self._sequence >= sequence and self._is_fresh()) or self._stop.is_set(), timeout_s
                )
                and not self._stop.is_set()
            )

    def facts(self) -> dict[str, Any]:
        """For `stats()`. confirmed_s : how long ago the end of the log was known; None: never.   answers : whether it
        answers reads.
        """
        age = time.monotonic() - self._confirmed_at
        position = self._copy.position
        return {
            "url": self._bucket.url,
            "epoch": None if position is None else position.epoch,
            "sequence": self._sequence,
            "confirmed_s": None if age == float("inf") else age,
            "staleness_s": self.staleness_s,
            "answers": self._is_fresh(),
            "writes": False,
            "trouble": self._trouble or None,
        }

    def close(self) -> None:
        self._end()
        self._copy.close()

    def _end(self) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    def promote(self, fingerprint: Callable[[], int]) -> int:
        """Apply the log to its end, end it there for whoever writes it, and make the directory a database of its own.
        Returns the number of the newest commit. It follows no more. fingerprint : of what is committed here.
        """
        self._end()
        self._stop.clear()
        for _ in range(_PROMOTE_TRIES):
            self._catch_up()
            end, at = epochs.find_end(self._bucket), self._copy.position
            assert end is not None and at is not None
            if end.position[:2] != at[:2]:
                continue
            writer, database = epochs.new_writer(), self._copy.database or ""
            with suppress(Locked):  # its writer was faster
                epochs.begin_epoch(
                    self._bucket, database, at.sequence, fingerprint(), end, continues=True, writer=writer
                )
                self._copy.become_own()
                return at.sequence
        raise Unavailable(f"the log {self._bucket.url} goes on as fast as it is read; stop its writer, then try again")

    # -- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        delay = limits.log_poll_s
        while not self._stop.wait(delay):
            try:
                self._catch_up()
                self._trouble, delay = "", limits.log_poll_s
            except (VecdbError, OSError) as error:
                self._note(error)
                delay = min(2 * delay, _RETRY_LAST_S)
            except Exception as error:
                _log.exception("the copy at %s stands still", self._path)
                self._trouble, delay = f"following failed ({error!r})", _RETRY_LAST_S

    def _note(self, error: Exception) -> None:
        if str(error) != self._trouble:
            _log.warning("the copy at %s waits: %s", self._path, error)
        self._trouble = str(error)

    def _catch_up(self) -> None:
        """Apply all that there is. Raises what stands in the way; a snapshot of later helps over damage."""
        try:
            while not self._stop.is_set() and self._step():
                pass
        except Corruption as damage:
            try:
                moved = self._install(self._copy.position)
            except NotFound:
                moved = False
            if not moved:
                raise
            _log.warning("the copy at %s began anew from a snapshot: %s", self._path, damage)
            self._catch_up()

    def _step(self) -> bool:
        """Apply the next object. Returns whether there may be more."""
        at = self._copy.position
        assert at is not None
        if not self._whole:
            return self._finish_object(at)
        asked = time.monotonic()
        raw = self._bucket.get(at.next_key)
        if raw is None:
            if asked - self._looked_at > limits.log_trim_look_s:
                if self._is_behind(at):
                    self._install_or_fail(at)
                    return True
                self._looked_at = asked
            with self._changed:
                self._confirmed_at = asked
                self._changed.notify_all()
            return False
        found = entry.decode(raw, f"{self._bucket.url}: {at.next_key}")
        if isinstance(found, EpochEnd):
            return self._end_epoch(at, found)
        if not isinstance(found, Commits):
            raise Corruption(f"{self._bucket.url}: {at.next_key} holds no commits")
        self._apply(found, at.sequence + 1)
        return True

    def _finish_object(self, at: Position) -> bool:
        """At the beginning, and after a snapshot: the object of the position may hold more commits than are applied."""
        if self._is_behind(at):
            self._install_or_fail(at)
            return True
        found = epochs.read(self._bucket, at.key)
        if isinstance(found, Commits):
            self._apply(found, at.object)
        elif not isinstance(found, EpochBegin) or found.database != self._copy.database:
            raise Corruption(f"{self._bucket.url}: {at.key} is not what this copy has applied")
        self._whole = True
        return True

    def _apply(self, found: Commits, number: int) -> None:
        self._copy.apply(found, number)
        self._moved()

    def _moved(self) -> None:
        position = self._copy.position
        assert position is not None
        with self._changed:
            self._sequence = position.sequence
            self._changed.notify_all()

    def _end_epoch(self, at: Position, end: EpochEnd) -> bool:
        begins = Position(end.next_epoch, end.after, end.after)
        if end.continues and end.after == at.sequence:
            self._copy.go_to(begins)
            return True
        return self._install(begins)

    def _is_behind(self, at: Position) -> bool:
        mark = epochs.trimmed(self._bucket)
        return mark is not None and at[:2] < mark[:2]

    def _install_or_fail(self, at: Position) -> None:
        if not self._install(at):
            raise Unavailable(f"{self._bucket.url}: the log behind commit {at.sequence} is gone, no snapshot is there")

    def _install(self, least: Position | None) -> bool:
        """Become the newest snapshot, where it is none before `least`. Returns whether that was done."""
        newest = SnapshotKeeper.newest(self._bucket)
        if newest is None:
            if epochs.find_end(self._bucket) is None:
                raise NotFound(f"{self._bucket.url} holds no log; open the database with log= there first")
            raise Unavailable(f"{self._bucket.url}: its writer has not finished the first snapshot yet; try again")
        at = self._copy.position
        if (least is not None and newest < least[:2]) or (at is not None and newest <= at[:2]):
            return False
        found = read_manifest(self._bucket, *newest)
        if found is None:
            raise Unavailable(f"{self._bucket.url}: snapshot {newest[1]} is gone; another has taken its place")
        self._whole = False
        self._copy.install(found)
        self._moved()
        return True
