"""How far a reshaping is: objects of the cluster's bucket, so that whoever begins it again goes on.

reshaping/job        which shards become which, with which slots, and the step that it has come to
reshaping/<number>   a new shard that is born: its log, and to where each old shard was read for it

COPY    new shards are made; nobody else knows of them
PLACED  they are in the placement, without slots: servers follow them
HELD    the old shards have no writer, and will have none
FENCED  their logs have ended; the new shards are given what is left
then one change of the placement gives the slots to the new shards and forgets the old, and these objects go
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from vecdb.errors import Unavailable
from vecdb.replication.objects import Bucket, Conflict
from vecdb.shards.notes import decoded_note
from vecdb.shards.reshaping.old_shard import Mark

FOLDER = "reshaping"
_JOB = f"{FOLDER}/job"


class Step(IntEnum):
    COPY = 0
    PLACED = 1
    HELD = 2
    FENCED = 3


class ReshapeJob(msgspec.Struct, frozen=True):
    """job : a name.   old, new : numbers of shards.   logs : of the old ones.   writers : of the old ones, before they
    were held.
    """

    job: str
    old: tuple[int, ...]
    new: tuple[int, ...]
    logs: dict[str, str]
    step: int = 0
    writers: dict[str, str | None] = {}


class Progress(msgspec.Struct, frozen=True):
    """Of a new shard. marks : by old shard."""

    log: str
    marks: dict[int, Mark]


class ReshapeState:
    """The job's object, changed by compare-and-swap: of two who go on with one job the slower stops."""

    def __init__(self, bucket: Bucket, job: ReshapeJob, version: str) -> None:
        self._bucket, self.job, self._version = bucket, job, version

    @staticmethod
    def read(bucket: Bucket) -> ReshapeState | None:
        found = bucket.get_versioned(_JOB)
        if found is None:
            return None
        return ReshapeState(bucket, decoded_note(found[0], ReshapeJob, f"{bucket.url}: {_JOB}"), found[1])

    @staticmethod
    def begin(bucket: Bucket, job: ReshapeJob) -> ReshapeState:
        """Raises Unavailable where another began at this moment."""
        try:
            return ReshapeState(bucket, job, bucket.replace(_JOB, msgspec.json.encode(job), None))
        except Conflict:
            raise Unavailable(f"{bucket.url}: another has begun to reshape this cluster; try again") from None

    def change(self, **changes: Any) -> None:
        made = msgspec.structs.replace(self.job, **changes)
        try:
            self._version = self._bucket.replace(_JOB, msgspec.json.encode(made), self._version)
        except Conflict:
            raise Unavailable(f"{self._bucket.url}: another goes on with this reshaping; this one stops") from None
        self.job = made

    def end(self) -> None:
        keys = [key for key, _ in list(self._bucket.list(FOLDER))]
        self._bucket.delete([key for key in keys if key != _JOB])
        self._bucket.delete([_JOB])


def progress_of(bucket: Bucket, number: int) -> Progress | None:
    key = f"{FOLDER}/{number}"
    raw = bucket.get(key)
    return None if raw is None else decoded_note(raw, Progress, f"{bucket.url}: {key}")


def note_progress(bucket: Bucket, number: int, made: Progress) -> None:
    bucket.put(f"{FOLDER}/{number}", msgspec.json.encode(made))
