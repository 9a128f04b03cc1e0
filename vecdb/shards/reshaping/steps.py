"""A cluster gets another number of shards. The order of what is done:

    COPY    each new shard gets the records of its slots from all old ones, builds its index, is born into its log
    PLACED  the placement has the new shards, without slots, and held: servers begin to follow them
            what was written meanwhile is caught up with from the logs, a few times
    HELD    the old shards lose their writers, which ship what they have acknowledged and only read from then on
    FENCED  each old log gets another epoch: whoever still writes is refused. The rest is caught up with; counts agree;
            the new shards know what the old ones have answered under request ids
    switch  one change of the placement: slots, writers, and the old shards are gone

Reads go on all the time, from the old shards up to the switch and from the new ones after it. Writes wait from HELD to
the switch, and are then done once: by the old shards before, by the new ones after. What is repeated under a request id
that an old shard knew is answered or refused, not done again.

Killed anywhere it is begun again with the same call, and goes on; or it is abandoned, up to the switch.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vecdb
from vecdb import limits
from vecdb.cluster.placement import Placement, Shard, bucket_url, cluster_bucket
from vecdb.cluster.slots import SLOTS
from vecdb.errors import Corruption, InvalidArgument, NotFound, Unavailable, VecdbError
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import epochs
from vecdb.replication.objects import Bucket
from vecdb.shards.birth import remove_log, remove_unused
from vecdb.shards.holding import hold, let_go
from vecdb.shards.reshaping.job import ReshapeJob, ReshapeState, Step, progress_of
from vecdb.shards.reshaping.new_shard import NewShard
from vecdb.shards.reshaping.old_shard import Mark, OldShard, even_table
from vecdb.shards.reshaping.workers import Workers

_TRIES = 8  # of a copy whose workers die
_ROUNDS, _FEW = 5, 256  # of catching up before the writers stop; with so few records left they may
_POLL_S = 0.1

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class ReshapeOptions:
    """work : a folder on each machine.   threads : of an index that is built.   drain_s : for the old writers to stop:
    those that nobody keeps (member.py) do not, and should have durability "remote".
    servers_s : for the new shards to have servers; 0: do not wait.   token, tls : with which servers are asked.
    remove_old : the logs of the old shards go.
    """

    work: str
    threads: int | None = None
    drain_s: float = 30.0
    servers_s: float = 120.0
    token: str | None = None
    tls: str | None = None
    remove_old: bool = False


def reshape_cluster(
    url: str, shards: int, workers: Workers, options: ReshapeOptions, report: Report = lambda *_: None
) -> dict[str, Any]:
    """Returns {"records": int, "shards": numbers of the new ones, "held_s": how long writes waited, "seconds": float}.

    Raises InvalidArgument where the cluster has that number of shards, or is on the way to another one; Unavailable
    where another goes on with the same job, or new shards get no servers.
    """
    began = time.monotonic()
    bucket = cluster_bucket(url, conditional=True)
    state = begun(url, bucket, shards)
    job = Reshaping(url, bucket, state, workers, options, report)
    try:
        if not job.switched():
            job.copy()
            job.place()
            job.catch_up_while_written()
            job.hold_writers()
            job.fence()
            job.switch()
        job.clean()
    finally:
        job.end_workers()
    return {
        "records": job.records,
        "shards": list(state.job.new),
        "held_s": job.held_s,
        "seconds": time.monotonic() - began,
    }


def begun(url: str, bucket: Bucket, shards: int) -> ReshapeState:
    placement = Placement.read(bucket)
    if not 1 <= shards <= limits.cluster_shards_max // 2:
        raise InvalidArgument(f"a cluster is reshaped to 1 to {limits.cluster_shards_max // 2} shards, got {shards}")
    state = ReshapeState.read(bucket)
    if state is not None:
        if len(state.job.new) != shards:
            raise InvalidArgument(
                f"{url} is on its way to {len(state.job.new)} shards: go on with that number, or abandon it"
            )
        return state
    old = placement.serving
    if len(old) == shards:
        raise InvalidArgument(f"{url} has {shards} shards already")
    first = max(placement.shards) + 1
    logs = {str(number): placement.shards[number].log for number in old}
    job = ReshapeJob(uuid.uuid4().hex[:12], old, tuple(range(first, first + shards)), logs)
    return ReshapeState.begin(bucket, job)


def abandon(url: str) -> None:
    """Give up a reshaping that has not switched yet: the old shards get their writers back, the new ones go.

    Raises NotFound where none is under way, InvalidArgument where it has switched already.
    """
    bucket = cluster_bucket(url, conditional=True)
    state = ReshapeState.read(bucket)
    if state is None:
        raise NotFound(f"{url} is not being reshaped")
    job = state.job
    if set(Placement.read(bucket).serving) & set(job.new):
        raise InvalidArgument(f"{url} has its new shards already: begin the same reshaping again, which cleans up")
    state.change(step=job.step)  # whoever goes on with it stops at its next step

    def change(now: Placement) -> Placement:
        for number, writer in job.writers.items():
            if int(number) in now.shards and now.shards[int(number)].writer is None:
                now = now.with_writer(int(number), writer)
        return replace(now, shards={number: one for number, one in now.shards.items() if number not in job.new})

    Placement.change(bucket, change)
    let_go(bucket)
    used = {one.log for one in Placement.read(bucket).shards.values()}
    remove_unused(bucket, used)
    state.end()


class Reshaping:
    """One run of the job, from where it is."""

    def __init__(
        self, url: str, bucket: Bucket, state: ReshapeState, workers: Workers, options: ReshapeOptions, report: Report
    ) -> None:
        self._url, self._bucket, self._state = url, bucket, state
        self._workers, self._options, self._report = workers, options, report
        self._old: dict[int, Any] = {}
        self._new: dict[int, Any] = {}
        self._table = even_table(state.job.new, SLOTS)
        self._held_at: float | None = None
        self.held_s = 0.0
        self.records = 0

    @property
    def _step(self) -> Step:
        return Step(self._state.job.step)

    def switched(self) -> bool:
        return set(Placement.read(self._bucket).serving) == set(self._state.job.new)

    # -- workers -----------------------------------------------------------------------------------

    def _start(self) -> None:
        job, work = self._state.job, f"{self._options.work}/{self._state.job.job}"
        for number in job.old:
            if number not in self._old:
                log = f"{bucket_url(self._url)}/{job.logs[str(number)]}"
                self._old[number] = self._workers.start(OldShard, log, work, self._table, job.new)
        for number in job.new:
            if number not in self._new:
                self._new[number] = self._workers.start(NewShard, self._url, number, work)

    def end_workers(self) -> None:
        for worker in (*self._old.values(), *self._new.values()):
            self._workers.end(worker)
        self._old, self._new = {}, {}

    def _of_all(self, workers: dict[int, Any], method: str, *args: Any) -> dict[int, Any]:
        """What a method returns, of each worker; all at once."""
        promises = [self._workers.call(worker, method, *args) for worker in workers.values()]
        return dict(zip(workers, [self._workers.get(one) for one in promises], strict=True))

    # -- COPY --------------------------------------------------------------------------------------

    def copy(self) -> None:
        """All new shards are born."""
        self._start()
        for _ in range(_TRIES):
            born = self._of_all(self._new, "is_born")
            missing = {number: worker for number, worker in self._new.items() if not born[number]}
            if not missing:
                return
            marks = self._of_all(self._old, "refresh")
            names = self._match(missing)
            total = sum(sum(one.values()) for one in self._of_all(self._old, "counts").values())
            self._copy_records(missing, names, total)
            wanted = {(old, name) for old, some in names.items() for name in some}
            self._of_all(missing, "bear", marks, wanted, self._options.threads)
        raise Unavailable(f"{self._url}: the workers of this reshaping died {_TRIES} times; begin it again")

    def _match(self, new: dict[int, Any]) -> dict[int, list[str]]:
        """Give new shards the collections of the old. Returns the names of those, by old shard."""
        schemas = self._of_all(self._old, "schema")
        self._of_all(new, "match", list(schemas.values()))
        return {old: sorted(collections) for old, (collections, _) in schemas.items()}

    def _copy_records(self, new: dict[int, Any], names: dict[int, list[str]], total: int) -> None:
        """Records of these collections, by old shard, from there to new shards."""
        done = 0
        lanes = [(old, name) for old, some in names.items() for name in some]
        cursors: dict[tuple[int, str], str | None] = dict.fromkeys(lanes)
        pages = dict.fromkeys(lanes, 0)
        for old, name in lanes:
            self._each(new, "begin", old, name)
        while lanes:
            asked = {lane: self._page(lane, cursors[lane]) for lane in lanes}
            taken = []
            for (old, name), parts in asked.items():
                by_number = dict(zip(self._state.job.new, parts[1:], strict=True))
                taken += [self._workers.call(new[number], "take", old, name, by_number[number]) for number in new]
            for lane, parts in asked.items():
                pages[lane] += 1
                cursors[lane] = self._workers.get(parts[0])
            for one in taken:
                self._workers.get(one)
            done = min(total, done + len(lanes) * 8_192)
            self._report("copying", done, total)
            lanes = [lane for lane in lanes if cursors[lane] is not None]
        self._finish(new, pages)

    def _page(self, lane: tuple[int, str], after: str | None) -> Any:
        old, name = lane
        return self._workers.call(self._old[old], "page", name, after, returns=1 + len(self._state.job.new))

    def _finish(self, new: dict[int, Any], pages: dict[tuple[int, str], int]) -> bool:
        """Whether all pages came to all new shards."""
        placement = Placement.read(self._bucket)
        promises = [
            self._workers.call(worker, "finish", old, name, count, self._slots_of(placement, old))
            for (old, name), count in pages.items()
            for worker in new.values()
        ]
        complete = [bool(self._workers.get(one)) for one in promises]
        return all(complete)

    def _slots_of(self, placement: Placement, number: int) -> NDArray[np.bool_]:
        return np.asarray(placement.table == number)

    def _each(self, workers: dict[int, Any], method: str, *args: Any) -> None:
        self._of_all(workers, method, *args)

    # -- PLACED ------------------------------------------------------------------------------------

    def place(self) -> None:
        """The placement has the new shards, which have servers."""
        logs = {number: progress_of(self._bucket, number) for number in self._state.job.new}
        if self._step < Step.HELD:
            hold(self._bucket, self._state.job.job, self._state.job.new)  # this job writes them, no server may

        def change(now: Placement) -> Placement:
            for number, progress in logs.items():
                assert progress is not None
                if number not in now.shards:
                    now = now.with_shard(number, Shard(progress.log))
            return now

        Placement.change(self._bucket, change)
        if self._step < Step.PLACED:
            self._state.change(step=int(Step.PLACED))
        ends = time.monotonic() + self._options.servers_s
        while self._options.servers_s and (late := self._without_servers()):
            if time.monotonic() > ends:
                raise Unavailable(
                    f"shards {late} of {self._url} have no servers after {self._options.servers_s:.0f} s: start some "
                    "with `vecdb cluster join`, and begin the reshaping again, which goes on"
                )
            self._report("waiting for servers of the new shards", len(logs) - len(late), len(logs))
            time.sleep(_POLL_S)

    def _without_servers(self) -> list[int]:
        shards = Placement.read(self._bucket).shards
        return [number for number in self._state.job.new if not shards[number].servers]

    # -- catching up -------------------------------------------------------------------------------

    def catch_up_while_written(self) -> None:
        if self._step >= Step.HELD:
            return
        for round_ in range(_ROUNDS):
            left = self._catch_up()
            self._report("catching up", round_ + 1, _ROUNDS)
            if left <= _FEW:
                return

    def _catch_up(self) -> int:
        """Give the new shards what was touched since they were noted to have all. Returns how many records that was."""
        self._start()
        job = self._state.job
        known = {number: progress_of(self._bucket, number) for number in job.new}
        marks: dict[int, Mark] = {}
        for old in job.old:
            marks[old] = min((one.marks[old] for one in known.values() if one is not None), key=lambda mark: mark.place)
        asked = {
            old: self._workers.call(worker, "changes", marks[old], returns=1 + len(job.new))
            for old, worker in self._old.items()
        }
        heads = {old: self._workers.get(parts[0]) for old, parts in asked.items()}
        self._match(self._new)
        applied = [
            self._workers.call(self._new[number], "apply", part)
            for parts in asked.values()
            for number, part in zip(job.new, parts[1:], strict=True)
        ]
        count = sum(int(self._workers.get(one)) for one in applied)
        whole = {old: names for old, (_, names) in heads.items() if names}
        for _ in range(_TRIES):
            if not whole or self._compare(whole):
                break
        else:
            raise Unavailable(f"{self._url}: the workers of this reshaping died {_TRIES} times; begin it again")
        self._each(self._new, "note", {old: mark for old, (mark, _) in heads.items()})
        return count + sum(len(names) for names in whole.values()) * (_FEW + 1)

    def _compare(self, names: dict[int, list[str]]) -> bool:
        """Compare collections as a whole, by old shard. Returns whether all pages came to all new shards."""
        lanes = [(old, name) for old, some in names.items() for name in some]
        pages = dict.fromkeys(lanes, 0)
        for old, name in lanes:
            self._each(self._new, "begin", old, name)
            cursor: str | None = None
            while True:
                parts = self._page((old, name), cursor)
                promises = [
                    self._workers.call(self._new[number], "take", old, name, part)
                    for number, part in zip(self._state.job.new, parts[1:], strict=True)
                ]
                pages[old, name] += 1
                cursor = self._workers.get(parts[0])
                for one in promises:
                    self._workers.get(one)
                if cursor is None:
                    break
        return self._finish(self._new, pages)

    # -- HELD, FENCED --------------------------------------------------------------------------------

    def hold_writers(self) -> None:
        """Nobody writes the old shards any more, as far as their servers keep to the placement."""
        job = self._state.job
        self._held_at = time.monotonic()
        if self._step < Step.HELD:
            shards = Placement.read(self._bucket).shards
            writers = {str(number): shards[number].writer for number in job.old}
            self._state.change(step=int(Step.HELD), writers=writers)
        hold(self._bucket, job.job, (*job.old, *job.new))

        def change(now: Placement) -> Placement:
            for number in job.old:
                now = now.with_writer(number, None)
            return now

        Placement.change(self._bucket, change)
        ends = time.monotonic() + self._options.drain_s
        while time.monotonic() < ends and (left := self._writing()):
            self._report("waiting for the writers to stop", len(job.old) - left, len(job.old))
            time.sleep(_POLL_S)
        self._check_shipped()

    def _check_shipped(self) -> None:
        """Raise Unavailable where a writer that has stopped has commits that its log has not: they would be lost."""
        shards = Placement.read(self._bucket).shards
        for number, address in self._state.job.writers.items():
            if address is None or address not in shards[int(number)].copies:
                continue
            log = f"{bucket_url(self._url)}/{shards[int(number)].log}"
            held, end = sequence_at(address, self._options), epochs.find_end(open_bucket(log))
            if held is not None and end is not None and held > end.position.sequence:
                raise Unavailable(
                    f"shard {number} at {address} has commits up to {held}, its log up to {end.position.sequence}: the "
                    "bucket was away when its writer stopped. Abandon this reshaping, which lets it ship them, and "
                    "begin again"
                )

    def _writing(self) -> int:
        """How many of the writers have not said that they only read now."""
        shards = Placement.read(self._bucket).shards
        known = self._state.job.writers.items()
        return sum(one is not None and one not in shards[int(number)].copies for number, one in known)

    def fence(self) -> None:
        """The old logs have ended, and the new shards have all that they held."""
        self._start()
        if self._step < Step.FENCED:
            self._each(self._old, "fence")
            self._state.change(step=int(Step.FENCED))
        self._catch_up()
        self._report("caught up", 1, 1)
        counts = [sum_of(self._of_all(workers, "counts").values()) for workers in (self._old, self._new)]
        if counts[0] != counts[1]:
            raise Corruption(
                f"{self._url}: the old shards have {counts[0]}, the new ones {counts[1]} records: nothing was "
                "switched. Abandon this reshaping, and report it"
            )
        self.records = sum(counts[0].values())
        self._each(self._new, "carry", list(self._of_all(self._old, "answers").values()))

    # -- the switch --------------------------------------------------------------------------------

    def switch(self) -> None:
        job = self._state.job
        sequences = self._of_all(self._new, "sequence")
        self.end_workers()  # they write the new logs
        placement = Placement.read(self._bucket)
        writers = {number: self._writer_of(placement.shards[number], sequences[number]) for number in job.new}
        self._state.change(step=int(Step.FENCED))  # nobody has abandoned it

        def change(now: Placement) -> Placement:
            for number in job.new:
                now = now.with_writer(number, writers[number])
            now = now.with_slots(self._table)
            return replace(now, shards={number: one for number, one in now.shards.items() if number not in job.old})

        Placement.change(self._bucket, change)
        if self._held_at is not None:
            self.held_s = time.monotonic() - self._held_at

    def _writer_of(self, shard: Shard, sequence: int) -> str | None:
        """Of the copies of a new shard one that has all of it, else any."""
        for address in shard.copies:
            held = sequence_at(address, self._options)
            if held is not None and held >= sequence:
                return address
        return shard.copies[0] if shard.copies else None

    def clean(self) -> None:
        """After the switch."""
        job = self._state.job
        let_go(self._bucket)
        remove_unused(self._bucket, {one.log for one in Placement.read(self._bucket).shards.values()})
        if self._options.remove_old:
            for log in job.logs.values():
                remove_log(self._bucket, log)
        self._state.end()


def sequence_at(address: str, options: ReshapeOptions) -> int | None:
    """The newest commit that a server has; None where it does not tell."""
    try:
        with vecdb.open(address, token=options.token, tls=options.tls, timeout=5.0) as db:
            return int(db.sequence())
    except VecdbError:
        return None


def sum_of(counts: Any) -> dict[str, int]:
    """Records by collection, of several shards together."""
    made: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            made[name] = made.get(name, 0) + count
    return made
