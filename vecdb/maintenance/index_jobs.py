"""What is done to one collection's index and files behind its users, each step a method, and when each is due.

    index_tail       tail rows -> structure      repair   deleted rows out of the structure
    grow_companion   what searches have asked for beside the index
    rebuild          the index built anew        seal     structure -> immutable file
    learn            recall of searches measured, and with it how wide they are
    vacuum           deleted rows out of every file (vacuum.py)

Threads: `lock` lets one step run at a time; searches and commits never wait for it, but for `clear` and for the first
vectors of a collection that has no dim, which make a generation. A step that gets it after a
drop raises NotFound: its files are gone. A step changes the live index in place (the index contract says how searches
stand that), or commits through the committer like any writer.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from vecdb import limits
from vecdb.commit.state_requests import InstallIndex, PatchState
from vecdb.commit.write_path import WritePath
from vecdb.errors import DiskFull, Unavailable
from vecdb.index.contract import HasCompanionGraph, IndexCorruption, Progress
from vecdb.maintenance.clearing import clear_records, fix_dim
from vecdb.maintenance.column_jobs import ColumnMaintenance
from vecdb.maintenance.disk_room import give_back_deleted_rows
from vecdb.maintenance.free_pages import give_back_free_pages
from vecdb.maintenance.garbage import collect_garbage
from vecdb.maintenance.vacuum import copy_generation
from vecdb.query.learning.recall_learning import RECALL_FLOOR, check_is_due, learn_recall
from vecdb.query.searcher import Searcher
from vecdb.state.collection_state import CollectionState
from vecdb.state.snapshot import Snapshot
from vecdb.storage.disk import filesystem, mapped_memory
from vecdb.storage.kv import catalog

_log = logging.getLogger("vecdb")

_REPAIR_SHARE = 0.02  # dead rows in the graph, as a share of its rows, that are worth a repair
_REPAIR_ROWS_MIN = 1_024
_REBUILD_SHARE = 0.2  # rows repaired away since the graph was built, as a share of those in it: past it build anew
_REST_SHARE, _REST_S_MAX = 3.0, 0.25  # of the time that a part of long work took; a close waits no longer
_SEAL_AT_CLOSE_ROWS = 1_024  # fewer rows than this are indexed again at the next open


class CollectionMaintenance:
    """The steps of one collection."""

    def __init__(self, state: CollectionState, writes: WritePath, searcher: Searcher) -> None:
        self.state = state
        self.writes = writes
        self.searcher = searcher
        self.columns = ColumnMaintenance(state, writes)
        self.lock = threading.RLock()
        self.is_ending: Callable[[], bool] = lambda: False  # whether the database is about to close
        self.repaired_sequence = 0  # deletions up to here are out of the live graph
        self.repaired_dead = 0  # dead rows at that time
        self._not_learned: int | None = None  # rows of the index with which learning failed, or found nothing
        self.unlinked_rows: int | None = None  # repaired away since the graph was built; None: as the state says

    # -- what maintenance asks ---------------------------------------------------------------------

    def tail_is_due(self) -> bool:
        return self._tail_is_long() and not self.tail_is_deferred()

    def tail_is_deferred(self) -> bool:
        """Whether the tail is left alone until a bulk load pauses."""
        index = self.state.snapshot.generation.index
        few = index.indexed_rows == 0 or self.state.tail_rows() < limits.tail_rows_bulk_max // 2
        return index.prefers_bulk_build and self._tail_is_long() and few and self.writes.is_loading()

    def _tail_is_long(self) -> bool:
        snapshot = self.state.snapshot
        index = snapshot.generation.index
        if not index.has_structure:
            return False
        if index.indexed_rows == 0:
            return snapshot.visibility.row_count >= (1 if self.state.sealed_damaged else limits.flat_rows_max)
        return snapshot.visibility.row_count - index.indexed_rows >= index.step_rows

    def repair_is_due(self) -> bool:
        snapshot = self.state.snapshot
        dead = self._dead_rows() - self.repaired_dead
        return snapshot.generation.index.indexed_rows > 0 and dead >= max(
            _REPAIR_ROWS_MIN, _REPAIR_SHARE * snapshot.generation.index.indexed_rows
        )

    def seal_is_due(self, rows_min: int | None = None) -> bool:
        snapshot = self.state.snapshot
        sealed = snapshot.state.sealed.rows if snapshot.state.sealed else 0
        unsealed = snapshot.generation.index.indexed_rows - sealed
        if not snapshot.generation.index.has_structure:
            return False
        if self.state.sealed_damaged and snapshot.generation.index.indexed_rows and unsealed > -limits.index_step_rows:
            return True
        index = snapshot.generation.index
        if isinstance(index, HasCompanionGraph) and index.needs_reseal():
            return True
        return unsealed >= (rows_min if rows_min is not None else max(limits.seal_rows_min, sealed // 8))

    def rebuild_is_due(self) -> bool:
        """Repairs keep every row reachable, yet cost recall bit by bit: 10,000 x 64 records replaced three times over
        had 0.74 at a beam where a fresh graph has 0.89; built anew at each fifth, 0.89. A structure that turned out
        to be spoiled is built anew, too.
        """
        index = self.state.snapshot.generation.index
        return index.is_spoiled or (index.indexed_rows > 0 and self._unlinked() > _REBUILD_SHARE * index.indexed_rows)

    def _unlinked(self) -> int:
        return self.state.snapshot.state.unlinked_rows if self.unlinked_rows is None else self.unlinked_rows

    def vacuum_is_due(self) -> bool:
        snapshot = self.state.snapshot
        dead = self._dead_rows()
        return dead >= limits.seal_rows_min // 4 and dead > limits.vacuum_dead_share * snapshot.visibility.row_count

    def _dead_rows(self) -> int:
        return _dead_rows(self.state.snapshot)

    def companion_is_due(self) -> bool:
        index = self.state.snapshot.generation.index
        return isinstance(index, HasCompanionGraph) and index.companion_is_due()

    def _check_open(self) -> None:
        if self.is_ending():
            raise Unavailable(f"collection {self.state.entry.name!r} is being closed; the work was given up")

    def _resting(self) -> Callable[[], None]:
        """`_check_open`, for long work that nobody waits for: while there are searches it rests three times as long as
        its last part took. Two cores of a cloud machine are often one, on which a kernel beside them takes as much of
        it as they do. A long tail is indexed once this is done, so nothing rests then.
        """
        began = time.monotonic()

        def check() -> None:
            nonlocal began
            self._check_open()
            if self.writes.is_searched() and not self._tail_is_long():
                time.sleep(min(_REST_S_MAX, _REST_SHARE * (time.monotonic() - began)))
                self._check_open()
            began = time.monotonic()

        return check

    def learning_is_due(self) -> bool:
        """Once the tail is short, while nobody loads in bulk."""
        return self._wants_to_learn() and not self.writes.is_loading()

    def _wants_to_learn(self) -> bool:
        snapshot = self.state.snapshot
        rows = snapshot.generation.index.indexed_rows
        if not snapshot.generation.index.has_structure or rows in (0, self._not_learned) or self._tail_is_long():
            return False
        return check_is_due(snapshot) or self.searcher.asked.check_is_due

    def waits_for_pause(self) -> bool:
        """Whether something is due once a bulk load pauses."""
        return self.writes.is_loading() and (
            self.tail_is_deferred() or self._wants_to_learn() or self.state.snapshot.state.has_fields
        )

    def merge_is_due(self) -> bool:
        """Of the journal of access lists."""
        return self.state.snapshot.generation.journal.waiting > 1

    def _stoppable(self, progress: Progress) -> Callable[[int, int], None]:
        """Progress of long work, which ends it where the database is about to close: nobody waits for a whole build."""

        def report(done: int, whole: int) -> None:
            self._check_open()
            if progress is not None:
                progress(done, whole)

        return report

    # -- steps -------------------------------------------------------------------------------------

    def index_tail(self, threads: int, progress: Progress = None, *, all_rows: bool = False) -> None:
        """Move tail rows into the graph: whole steps, or with `all_rows` to the last row."""
        with self.lock, self.rebuild_on_corruption():
            snapshot = self.state.current(to_change=True)
            index = snapshot.generation.index
            if not index.has_structure:
                return
            self.state.store.check_there()
            if index.indexed_rows == 0:
                index.remove(snapshot.visibility.sequence)  # what is dead before the graph is begun stays out of it
            stop = snapshot.visibility.row_count
            if not all_rows:
                stop = index.next_stop(stop - stop % limits.index_step_rows)
            report = self._stoppable(progress)
            if index.indexed_rows:
                report(index.indexed_rows, stop)  # where it begins
            while index.indexed_rows < stop:
                index.add(index.next_stop(stop), threads, report)
                self.writes.tail_shortened()
                report(index.indexed_rows, stop)
            self.state.index_rebuilt()
            if all_rows:
                mapped_memory.give_back_freed()

    def grow_companion(self, threads: int, *, all_rows: bool = False) -> None:
        """What searches have asked for beside the index: a step of it, or with `all_rows` all of them."""
        with self.lock:
            index = self.state.current(to_change=True).generation.index
            while isinstance(index, HasCompanionGraph) and index.companion_is_due(all_rows=all_rows):
                index.grow_companion(threads)
                if not all_rows:
                    return

    def repair(self, threads: int) -> None:
        """Take rows that died out of the graph and mend their neighbourhoods."""
        with self.lock, self.rebuild_on_corruption():
            snapshot = self.state.current(to_change=True)
            index = snapshot.generation.index
            if index.indexed_rows and snapshot.visibility.sequence > self.repaired_sequence:
                self.unlinked_rows = self._unlinked() + index.remove(snapshot.visibility.sequence, threads)
                self.repaired_sequence, self.repaired_dead = snapshot.visibility.sequence, self._dead_rows()

    def learn(self, threads: int, *, time_scans: bool = False, rests: bool = False) -> None:
        """Measure the recall of searches, and commit how wide they are from now on. time_scans : see `learn_recall`.
        rests : give searches the machine back after each part of it.
        """
        with self.lock, self.rebuild_on_corruption():
            snapshot = self.state.current(to_change=True)
            self._not_learned = snapshot.generation.index.indexed_rows  # until it is done: what fails is not repeated
            snapshot.generation.index.connect_unreachable(threads)  # as sealing does: what is measured is to stay
            asked, searcher = self.searcher.asked.take(), self.searcher
            changes = learn_recall(
                snapshot, self.state.entry.metric, searcher.search_snapshot, searcher.preparation.costs, asked, threads,
                self._resting() if rests else self._check_open, time_scans=time_scans,
            )  # fmt: skip
            if not changes:
                return
            self._not_learned = None
            name, old, new = self.state.entry.name, snapshot.state.recall_check, changes["recall_check"]
            if changes.get("default_scan") and not snapshot.state.default_scan:
                _log.warning(
                    "collection %r: no width of its index reaches recall %.2f on these data; searches that name none "
                    "compare all vectors", name, RECALL_FLOOR,
                )  # fmt: skip
            elif new.recall < RECALL_FLOOR:
                _log.warning("collection %r: searches have recall@%d of %.3f", name, new.limit, new.recall)
            elif old is not None and changes.get("default_width") not in (None, snapshot.state.default_width):
                _log.info("collection %r: searches are %s wide from now on", name, changes["default_width"])
            self.writes.submit(PatchState(self.state, snapshot.generation.number, changes))
            mapped_memory.give_back_freed()

    def seal(self, threads: int) -> None:
        """Write the live index as an immutable file and name it in the state: data first, then the pointer."""
        state = self.state
        with self.lock, self.rebuild_on_corruption():
            snapshot = state.current(to_change=True)
            index = snapshot.generation.index
            if not index.has_structure or index.indexed_rows == 0:
                return
            index.connect_unreachable(threads)
            old = snapshot.state.sealed
            rows = f"{index.indexed_rows}{index.seal_suffix if isinstance(index, HasCompanionGraph) else ''}"
            name = f"{index.kind}.{snapshot.generation.number}.{snapshot.visibility.sequence}.{rows}"
            if old is not None and old.file == name and not self.state.sealed_damaged:
                return
            state.store.check_there()
            before = index.file_names()
            facts = index.seal(state.folder / name)
            sealed = catalog.SealedIndex(name, facts.rows, facts.sequence, facts.bytes, facts.parts)
            changes = {"sealed": sealed, "unlinked_rows": self._unlinked()}
            if self.writes.submit(PatchState(state, snapshot.generation.number, changes)):
                self.state.index_sealed()
                self._remove_files((*before, *(old.files if old is not None else ())), sealed.files)

    def _remove_files(self, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        """Files of an index that its successor does not need."""
        self.state.store.check_there()
        for name in set(old) - set(new):
            filesystem.remove(self.state.folder / name)

    @contextmanager
    def rebuild_on_corruption(self) -> Iterator[None]:
        """A step that meets damage in what the index has on disk ends, and the index is built anew by the steps to
        come.
        """
        index = self.state.snapshot.generation.index
        try:
            yield
        except IndexCorruption as error:
            self.state.corrupt_index(index, error)

    def reindex(self, config: dict[str, Any] | None, threads: int, progress: Progress = None) -> None:
        """An index of another kind or other parameters; what was learned about the old one is forgotten."""
        forgotten = {
            "recall_curve": (),
            "default_width": None,
            "hundred_width": None,
            "tuned_by_user": False,
            "tenant_scan_rows_max": None,
            "recall_check": None,
            "default_scan": False,
        }
        self._rebuild_beside(config, {"index": config, **forgotten}, threads, progress)

    def rebuild(self, threads: int, progress: Progress = None) -> None:
        """The same index, built anew from the live rows; its recall is to be measured anew."""
        check = self.state.snapshot.state.recall_check
        unmeasured = {} if check is None else {"recall_check": msgspec.structs.replace(check, rows=0)}
        self._rebuild_beside(self.state.snapshot.state.index, unmeasured, threads, progress)

    def _rebuild_beside(
        self, config: dict[str, Any] | None, changes: dict[str, Any], threads: int, progress: Progress
    ) -> None:
        """Another index over the same rows, built beside the present one and then put in its place."""
        state = self.state
        with self.lock:
            snapshot = state.current(to_change=True)
            index = snapshot.generation.index
            changes = {**changes, "sealed": None, "unlinked_rows": 0}
            state.store.check_there()
            fresh = state.new_index(config, snapshot.generation.rows)
            fresh.publish_rows(snapshot.visibility.row_count)
            fresh.remove(snapshot.visibility.sequence)
            fresh.take_over(index)
            if isinstance(index, HasCompanionGraph) and isinstance(fresh, HasCompanionGraph) and index.has_graph():
                fresh.ask_for_graph()
            report = self._stoppable(progress)
            first, rounds = snapshot.visibility.row_count, 0
            # Rows that come meanwhile are the tail of the one as of the other. Were they all to be in it, writers who
            # wait for the present index would keep it from ever being done, and vacuums and repairs with it.
            while (
                fresh.has_structure
                and min(max(first, index.indexed_rows), state.snapshot.visibility.row_count) - fresh.indexed_rows
                >= limits.index_step_rows
            ):
                stop, rounds = state.snapshot.visibility.row_count, rounds + 1
                fresh.publish_rows(stop)
                fresh.add(fresh.next_stop(stop), threads, report)
                if rounds % 2 == 0 and self.tail_is_due():  # writers may be waiting; every other time, so that it ends
                    self.index_tail(threads)
                report(fresh.indexed_rows, stop)
            self.writes.submit(InstallIndex(PatchState(state, snapshot.generation.number, changes), fresh))
            sealed = snapshot.state.sealed
            self._remove_files((*index.file_names(), *(sealed.files if sealed is not None else ())), fresh.file_names())
            self.unlinked_rows = 0
            self.reset_repair_counters(snapshot.visibility.sequence, _dead_rows(snapshot))
            mapped_memory.give_back_freed()

    def reset_repair_counters(self, sequence: int = 0, dead: int = 0) -> None:
        """The index was replaced by one without the `dead` rows that had died by commit `sequence`; 0: by one of
        another generation, whose dead rows died while it was made, and are in it.
        """
        self.repaired_sequence, self.repaired_dead = sequence, dead

    def vacuum(self, threads: int = 1, progress: Progress = None) -> None:
        """Rewrite the collection without its deleted rows, the fields of before changes and the numbers of dropped
        tenants, where there are any.
        """
        with self.lock:
            snapshot = self.state.current(to_change=True)
            state = snapshot.state
            if not self._dead_rows() and state.field_changes is None and not state.dropped_tenants:
                return
            self._collect_garbage()  # a vacuum that failed leaves ids of records that may have been deleted since
            self.repair(threads)
            done = self._copied_generation(threads, progress)
            self.reset_repair_counters()
            if progress is not None:
                progress(done, done)
            if self.rebuild_is_due():
                self.rebuild(threads, progress)
            with suppress(OSError):  # a full disk has no room for it beside the old one
                self.seal(threads)
            self._collect_garbage()  # under the lock: it would remove the files of another vacuum or seal at work
            give_back_free_pages(self.state.store, self.writes)
            mapped_memory.give_back_freed()

    def clear(self, request_id: bytes | None) -> int:
        """Remove all records. Returns how many there were."""
        with self.lock:
            if not self.state.current(to_change=True).visibility.row_count and request_id is None:
                return 0
            self._collect_garbage()  # of a vacuum that failed: it would be of the new generation
            removed = clear_records(self.state, self.writes, request_id)
            self.reset_repair_counters()
            self.unlinked_rows = None
            self._collect_garbage()
            return removed

    def fix_dim(self, dim: int) -> None:
        """Give the collection its dim, where it has none."""
        with self.lock:
            self.state.current(to_change=True)
            if not self.state.entry.dim:
                self._collect_garbage()
                fix_dim(self.state, self.writes, dim)
                self.reset_repair_counters()
                self._collect_garbage()

    def _copied_generation(self, threads: int, progress: Progress) -> int:
        """`copy_generation`; on a full disk once more, after what makes room without needing any."""
        report = self._stoppable(progress)
        try:
            return copy_generation(self.state, self.writes, report, threads=threads)
        except (DiskFull, OSError) as error:
            if isinstance(error, OSError) and not filesystem.is_full(error):
                raise
            self._collect_garbage()  # the first part of the copy
            freed = give_back_deleted_rows(self.state)
            if not freed:
                raise
        try:
            return copy_generation(self.state, self.writes, report, threads=threads)
        except (DiskFull, OSError) as error:
            self._collect_garbage()
            raise DiskFull(
                f"{freed:,} bytes of deleted records were given back, and the disk has no room for a copy of the "
                f"others, which a whole vacuum needs; no record changed ({error})"
            ) from error

    def _collect_garbage(self) -> None:
        """Remove what a vacuum left behind."""
        state = self.state
        keep = state.snapshot.generation.index.file_names()  # in use although no state may name them yet
        collect_garbage(state.database, state.store, self.writes.submit, only_uid=state.entry.uid, keep=keep)

    def wait_idle(self) -> None:
        """Return when no step is running."""
        with self.lock:
            return

    def close(self) -> None:
        """Before the committer stops: keep what would take long to make again."""
        if self.seal_is_due(_SEAL_AT_CLOSE_ROWS):
            self.seal(1)
        with self.lock:
            if self.columns.seal_is_due(_SEAL_AT_CLOSE_ROWS):
                self.columns.seal()


def _dead_rows(snapshot: Snapshot) -> int:
    return snapshot.state.row_count - snapshot.state.live_count
