"""A directory as a log has it at a commit, or at a moment: the newest snapshot before it, and the commits since.

The log goes back to the older of its two snapshots. Commits that were let go while the store was away are in none; what
was asked for between those is not found, rather than something else.
"""

from __future__ import annotations

from contextlib import closing
from datetime import datetime
from pathlib import Path

from msgspec import structs

from vecdb.errors import Corruption, InvalidArgument, NotFound, Unavailable
from vecdb.replication.backups.contents import (
    complete_directory,
    files_of_collections,
    path_in_database,
    whole_directory,
)
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import entry, epochs
from vecdb.replication.log.applying import CopyDirectory
from vecdb.replication.log.entry import Commit, Commits, EpochBegin, EpochEnd, Position
from vecdb.replication.log.snapshot import SnapshotManifest, read_manifest
from vecdb.replication.objects import Bucket
from vecdb.storage.disk import filesystem, manifest
from vecdb.storage.kv.store import Store

_NEVER = 1 << 63


class Until:
    """Which commits are wanted: up to a number, to a time, or all."""

    def __init__(self, at: int | datetime | None) -> None:
        if isinstance(at, datetime) and at.tzinfo is None:
            raise InvalidArgument(f"at={at!r} says no time zone; give one, such as at.astimezone() for this machine's")
        self.at = at
        self._number = at if isinstance(at, int) else _NEVER
        self._time_ns = int(at.timestamp() * 1e9) if isinstance(at, datetime) else _NEVER

    def has(self, sequence: int, time_ns: int) -> bool:
        return sequence <= self._number and time_ns <= self._time_ns

    def kept(self, commits: tuple[Commit, ...]) -> tuple[Commit, ...]:
        """Those before the first one that is later."""
        count = next((at for at, one in enumerate(commits) if not self.has(one.sequence, one.time_ns)), len(commits))
        return commits[:count]


def holds_log(url: str) -> bool:
    return next(open_bucket(url).list(entry.LOG), None) is not None


def restore_from_log(url: str, target: Path, at: int | datetime | None) -> None:
    """Make the new directory `target` a database as the log at `url` has it at a commit or a time, None: at its end.

    Raises NotFound where the log does not go back so far, or has let go what was committed then.
    """
    bucket, until = open_bucket(url), Until(at)
    chosen = _snapshot_before(bucket, until)
    with whole_directory(target) as folder:
        for name in ("lmdb", "collections"):
            filesystem.make_private_dir(folder / name)
        manifest.write(folder, chosen.manifest)
        with closing(Store(folder / "lmdb", read_only=False, durability="full")) as store:
            with closing(CopyDirectory(folder, store, bucket, durable=True)) as copy:
                copy.install(chosen)
                _replay(bucket, copy, until)
                copy.become_own()
            names = {path_in_database(uid, name) for uid, some in files_of_collections(store).items() for name in some}
        complete_directory(folder, names)


def _snapshot_before(bucket: Bucket, until: Until) -> SnapshotManifest:
    oldest = None
    for epoch, sequence in reversed(epochs.snapshots(bucket)):
        found = read_manifest(bucket, epoch, sequence)
        if found is not None and until.has(sequence, found.time_ns):
            return found
        oldest = found or oldest
    if oldest is None:
        raise Unavailable(f"{bucket.url}: its writer has not finished the first snapshot yet; try again")
    raise NotFound(f"the log {bucket.url} goes back to commit {oldest.position[1]}, to nothing that is {until.at}")


def _replay(bucket: Bucket, copy: CopyDirectory, until: Until) -> None:
    """Apply the commits that are wanted. The object of a snapshot's position may hold more than the snapshot has."""
    at = _position(copy)
    found: Commits | EpochBegin | EpochEnd | None = epochs.read(bucket, at.key)
    number = at.object
    while found is not None:
        if isinstance(found, Commits):
            kept = until.kept(found.commits)
            copy.apply(structs.replace(found, commits=kept), number)
            if len(kept) < len(found.commits):
                return
        elif isinstance(found, EpochEnd) and not _go_on(bucket, copy, found, until):
            return
        at = _position(copy)
        raw, number = bucket.get(at.next_key), at.sequence + 1
        found = None if raw is None else _decoded(raw, f"{bucket.url}: {at.next_key}")


def _go_on(bucket: Bucket, copy: CopyDirectory, end: EpochEnd, until: Until) -> bool:
    """Into the next epoch. Returns whether it is wanted."""
    at = _position(copy)
    if end.continues and end.after == at.sequence:
        copy.go_to(Position(end.next_epoch, end.after, end.after))
        return True
    begin = epochs.read(bucket, entry.log_key(end.next_epoch, end.after))
    if isinstance(begin, EpochBegin) and not until.has(at.sequence + 1, begin.time_ns):
        return False
    raise NotFound(
        f"the log {bucket.url} has let go the commits after {at.sequence} up to {end.after}, while its store was away: "
        f"it has nothing of {until.at}. Ask for commit {at.sequence}, or a later one"
    )


def _position(copy: CopyDirectory) -> Position:
    assert copy.position is not None
    return copy.position


def _decoded(raw: bytes, where: str) -> Commits | EpochBegin | EpochEnd:
    found = entry.decode(raw, where)
    if not isinstance(found, (Commits, EpochEnd)):
        raise Corruption(f"{where} holds no commits")
    return found
