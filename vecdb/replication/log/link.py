"""What ties an open directory to a log: it writes it, or follows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vecdb.errors import InvalidArgument, Unavailable
from vecdb.replication.bucket import is_url, open_bucket
from vecdb.replication.log.applying import followed
from vecdb.replication.log.following import LogFollower
from vecdb.replication.log.shipping import LogWriter
from vecdb.storage.kv.store import Store

_PATIENCE_S = 5.0  # in which one request is repeated; then the thread says that it waits, and tries again
STALENESS_S = 1.0


@dataclass(frozen=True)
class LogUse:
    """With which log a directory is opened. follows : it is a copy; otherwise it is what the log is of.

    remote : a commit is in the log before it is acknowledged.
    staleness_s : how long ago a copy may have known the end of the log when it answers; None: as long as it was. Of
        what the log is of: the most that its copies have, for which a revoke waits; None: it does not wait.
    lease : the writer answers reads only while it knew so lately that nobody has taken over.
    """

    url: str
    follows: bool = False
    remote: bool = False
    staleness_s: float | None = STALENESS_S
    lease: bool = False

    def __repr__(self) -> str:
        return repr(self.url)

    def write(self, path: Path, store: Store, *, durable: bool) -> LogWriter:
        """Begin to write the log of a directory that was opened for writing."""
        bucket = open_bucket(self.url, conditional=True, patience_s=_PATIENCE_S)
        asked = None
        if self.lease and self.staleness_s is not None:  # an answer that comes later than that is of no use
            asked = open_bucket(self.url, patience_s=min(_PATIENCE_S, self.staleness_s))
        return LogWriter(
            bucket, path, store, remote=self.remote, durable=durable, staleness_s=self.staleness_s, asked_by_lease=asked
        )

    def follow(self, path: Path, store: Store, *, durable: bool) -> LogFollower:
        """Begin to follow, in a directory that is empty or a copy already."""
        bucket = open_bucket(self.url, patience_s=_PATIENCE_S)
        return LogFollower(bucket, path, store, durable=durable, staleness_s=self.staleness_s)


def log_use(log: Any, follow: Any, staleness_s: Any, *, remote: bool = False, lease: bool = False) -> LogUse | None:
    """What the arguments of `open` ask for. Raises InvalidArgument."""
    for name, value in (("log", log), ("follow", follow)):
        if value is not None and not is_url(value):
            raise InvalidArgument(f"{name} must be the URL of a bucket, such as s3://bucket/prefix, got {value!r}")
    if log is not None and follow is not None:
        raise InvalidArgument("log= is for the database that is written, follow= for a copy of it; give one of them")
    if staleness_s is not None and (
        isinstance(staleness_s, bool) or not isinstance(staleness_s, (int, float)) or not 0 < staleness_s < 1e9
    ):
        raise InvalidArgument(f"staleness_s must be a positive number of seconds, or None, got {staleness_s!r}")
    if lease and log is None:
        raise InvalidArgument("lease=True is for a database with a log: give log='s3://bucket/prefix'")
    if follow is not None:
        return LogUse(follow, True, False, staleness_s)
    return None if log is None else LogUse(log, False, remote, staleness_s, lease)


def refuse_copy(path: Path, store: Store) -> None:
    """Raise Unavailable where a directory that is about to be written is a copy of another."""
    with store.read_all() as txn:
        if (found := followed(path, store, txn)) is not None:
            raise Unavailable(
                f"{path} is a copy that follows the log of database {found.database}: what is written here would be "
                "lost. Open it with follow=, or read_only=True; `vecdb promote` makes it the one that is written"
            )
