"""A shard is born: built in a directory of its own, then put into the cluster's bucket as a log that begins with it.

    rows --> a directory, without a log --> its index --> log/1/..., snapshot/1/...   what a copy begins with

Each attempt has a log of its own name, so that one that was killed, or goes on somewhere unseen, disturbs no other; it
is noted before anything is written, and those that nobody uses go in the end (`remove_unused`).
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import vecdb
from vecdb.api.collection import Collection
from vecdb.errors import Unavailable
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log.snapshot import SnapshotKeeper
from vecdb.replication.objects import Bucket
from vecdb.schema import CollectionConfig
from vecdb.storage.disk import filesystem

ATTEMPTS = "attempts"  # attempts/<log>: one that was begun
_POLL_S = 0.05
_BORN_S = 24 * 3_600.0


def new_log(bucket: Bucket, shard: int) -> str:
    """The name of the log of one attempt to make a shard, noted."""
    log = f"shard-{shard}-{uuid.uuid4().hex[:8]}"
    bucket.create(f"{ATTEMPTS}/{log}", b"")
    return log


def remove_unused(bucket: Bucket, used: set[str]) -> None:
    """Remove logs of attempts that no shard has, and the notes of all."""
    for key, _ in list(bucket.list(ATTEMPTS)):
        log = key.rpartition("/")[2]
        if log not in used:
            remove_log(bucket, log)
        bucket.delete([key])


def remove_log(bucket: Bucket, log: str) -> None:
    bucket.delete([key for key, _ in list(bucket.list(log))])


class ShardBuilder:
    """Builds a shard in an empty directory. `with` removes the directory where it ends early."""

    def __init__(self, path: Path, *, log: str | None = None) -> None:
        """log : the URL into which it is born; from then on the directory writes it."""
        self.path = path
        self._log = log
        filesystem.make_dir(path.parent)
        self.db = vecdb.open(path, durability="relaxed", maintenance=False)

    def create(self, config: CollectionConfig) -> Collection:
        return self.db.create_collection(
            config.name, config.dim or None, config.metric, config.index, config.dtype,
            metadata=config.metadata or None, zero_vectors=config.zero_vectors,
        )  # fmt: skip

    def bear(self, threads: int | None = None) -> int:
        """Build the indexes, and put it into its log. Returns how many records it has. The directory stays."""
        records = 0
        for name in self.db.collections():
            docs = self.db.collection(name)
            docs.optimize(threads=threads)
            records += len(docs)
        self.db.close()
        assert self._log is not None
        with vecdb.open(self.path, log=self._log, maintenance=False) as db:
            wait_born(self._log, db)
        return records

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.db.close()
        if kind is not None:
            filesystem.remove_tree(self.path)


def wait_born(log: str, db: Any) -> None:
    """Until the log has a snapshot, from which copies begin. Raises Unavailable where the store is away."""
    bucket, ends = open_bucket(log), time.monotonic() + _BORN_S
    while SnapshotKeeper.newest(bucket) is None:
        if time.monotonic() > ends:
            raise Unavailable(f"{log}: no snapshot came: {db.stats(disk=False)['log']['trouble']}")
        time.sleep(_POLL_S)
