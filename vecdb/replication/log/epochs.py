"""Where a log ends, and how a writer takes it over.

    epoch 1   begin, commits ..., end --> epoch 2   begin, commits ..., end --> epoch 4   begin, commits ...

The object behind the last commit of an epoch is created by its writer, with the next commit, or by whoever takes over,
with `EpochEnd`: one of them is told that it is there already. So an epoch that is over stays over, and a writer that
was paused, or cut off, learns it with its next object.

The beginning of an epoch is written before the end of the one before names it. One that nothing names was left by a
writer that died in between, or lost.
"""

from __future__ import annotations

import time
import uuid
import zlib
from dataclasses import dataclass

from vecdb.errors import AlreadyExists, Corruption, Locked
from vecdb.replication.log import entry
from vecdb.replication.log.entry import DELETE, DELETE_PAIR, PUT, Commit, Commits, EpochBegin, EpochEnd, Position
from vecdb.replication.objects import Bucket
from vecdb.storage.kv import history, keys
from vecdb.storage.kv.store import Store, Txn

_TRIMMED = f"{entry.TRIMMED}/mark"
FOLLOWED = b"followed"  # in `state` of a copy, beside the uids: where in which log it is (applying.py)


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The last commit of a log. database : whose log it is.   last : the object that it lies in.   complete_from : a
    snapshot of this position or a later one, and the log behind it, is all there is.   newest_epoch : the largest
    number that any epoch has, also one that lost.   epochs : how many there are since the newest snapshot.
    """

    position: Position
    database: str
    last: Commits | EpochBegin
    complete_from: tuple[int, int]
    newest_epoch: int
    epochs: int


def find_end(bucket: Bucket) -> LogEnd | None:
    """The end of the log; None where there is none. Raises Corruption."""
    whole = snapshots(bucket)
    begin = whole[-1] if whole else None
    last_of: dict[int, int] = {}
    for key, _ in bucket.list(entry.LOG, None if begin is None else f"{entry.LOG}/{begin[0]:08d}"):
        epoch, number = entry.split_key(key)
        last_of[epoch] = number
    if not last_of:
        return None
    epoch, walked = (min(last_of) if begin is None else begin[0]), 0
    complete_from = (epoch, 0) if begin is None else begin
    while True:
        if epoch not in last_of:
            raise Corruption(f"{bucket.url}: the log goes on with epoch {epoch}, of which there is nothing")
        found = read(bucket, entry.log_key(epoch, last_of[epoch]))
        if isinstance(found, EpochEnd):
            epoch, walked = found.next_epoch, walked + 1
            if not found.continues:
                complete_from = (epoch, found.after)
            continue
        assert isinstance(found, (Commits, EpochBegin))
        sequence = found.after if isinstance(found, EpochBegin) else found.commits[-1].sequence
        position = Position(epoch, sequence, last_of[epoch])
        return LogEnd(position, found.database, found, complete_from, max(last_of), walked)


def snapshots(bucket: Bucket) -> list[tuple[int, int]]:
    """(epoch, sequence) of all snapshots that are whole, ascending."""
    return [entry.split_key(key) for key, _ in bucket.list(entry.SNAPSHOTS) if key.endswith(f"/{entry.MANIFEST}")]


def read(bucket: Bucket, key: str) -> Commits | EpochBegin | EpochEnd:
    """An object of the log. Raises Corruption where it is damaged or gone."""
    raw = bucket.get(key)
    if raw is None:
        raise Corruption(f"{bucket.url}: {key} is missing from the log")
    found = entry.decode(raw, f"{bucket.url}: {key}")
    if not isinstance(found, (Commits, EpochBegin, EpochEnd)) or (isinstance(found, Commits) and not found.commits):
        raise Corruption(f"{bucket.url}: {key} holds no part of a log")
    return found


def trimmed(bucket: Bucket) -> Position | None:
    """Where the log begins by now; None where nothing was ever removed. Raises Corruption."""
    raw = bucket.get(_TRIMMED)
    words = [] if raw is None else raw.split()
    if raw is None:
        return None
    try:
        epoch, sequence, number = map(int, words)
        return Position(epoch, sequence, number)
    except ValueError:
        raise Corruption(f"{bucket.url}: {_TRIMMED} is damaged; whoever writes the log makes it anew") from None


def note_trimmed(bucket: Bucket, position: Position) -> None:
    """Say that what lies before a position is about to be removed."""
    bucket.put(_TRIMMED, b"%d %d %d\n" % position)


def trimmed_at(bucket: Bucket) -> float | None:
    """When that was said last, by the clock of the store, in seconds since 1970."""
    return next((one.modified for one in bucket.entries(entry.TRIMMED)), None)


def create_own(bucket: Bucket, key: str, data: bytes) -> bool:
    """Create an object, and say whether what lies there is this one: the answer of an attempt before may be lost."""
    try:
        bucket.create(key, data)
        return True
    except AlreadyExists:
        return bucket.get(key) == data


def begin_epoch(
    bucket: Bucket, database: str, after: int, fingerprint: int, end: LogEnd | None, *, continues: bool, writer: str
) -> Position:
    """Take the log over, or begin it. Returns the position of the beginning. writer : made for it by `new_writer`.
    Raises Locked where another writer was faster.
    """
    epoch = 1 if end is None else end.newest_epoch + 1
    begin = EpochBegin(database, epoch, after, time.time_ns(), writer, fingerprint)
    taken = create_own(bucket, entry.log_key(epoch, after), entry.encode(begin))
    if taken and end is not None:
        last = EpochEnd(database, end.position.epoch, epoch, after, continues, writer)
        taken = create_own(bucket, end.position.next_key, entry.encode(last))
    if not taken:
        raise Locked(f"another process has begun to write the log {bucket.url} at this moment; close it there first")
    return Position(epoch, after, after)


def new_writer() -> str:
    return uuid.uuid4().hex


# -- what a directory and a log have in common -----------------------------------------------------


def fingerprint(store: Store, txn: Txn) -> int:
    """A number of what is committed: CRC-32 of all states and entries of collections."""
    crc = 0
    for database in (store.catalog, store.state):
        for key, value in txn.cursor(db=database):
            if bytes(key) != FOLLOWED:
                crc = zlib.crc32(bytes(value), zlib.crc32(bytes(key), crc))
    return crc


def is_newest(store: Store, txn: Txn, last: Commits | EpochBegin) -> bool:
    """Whether what is committed is what the log's last object left behind."""
    if isinstance(last, EpochBegin):
        return fingerprint(store, txn) == last.fingerprint
    return _has_left(store, txn, last.commits[-1], [name.encode() for name in last.databases])


def has_parted(store: Store, txn: Txn, end: LogEnd) -> bool:
    """Whether this directory has another commit of the number with which the log ends: known only where both note who
    wrote it.
    """
    if isinstance(end.last, EpochBegin):
        return False
    return _differ(store, txn, _history_in(end.last, -1), end.position.sequence)


def leads_on(store: Store, txn: Txn, found: Commits, sequence: int) -> bool:
    """Whether the first of some commits was made where this directory is, at commit `sequence`, as far as is known."""
    return not _differ(store, txn, _history_in(found, 0), sequence)


def _history_in(found: Commits, place: int) -> history.History:
    """What a commit says of who wrote which commits."""
    number, raw = found.databases.index(keys.STATE.decode()), b""
    for code, where, changed in found.commits[place].operations:
        if code == PUT and where == number and history.HISTORY in changed[::2]:
            raw = changed[2 * changed[::2].index(history.HISTORY) + 1]
    return history.decode(raw)


def _differ(store: Store, txn: Txn, theirs: history.History, sequence: int) -> bool:
    other, own = theirs.token_of(sequence), history.read(store, txn).token_of(sequence)
    return other is not None and own is not None and other != own


def _has_left(store: Store, txn: Txn, commit: Commit, databases: list[bytes]) -> bool:
    """Whether LMDB holds what a commit, the newest, has put."""
    values: dict[tuple[bytes, bytes], bytes | None] = {}
    for code, number, changed in commit.operations:
        name = databases[number]
        if not keys.DATABASES[name].get("dupsort"):  # pairs say no more than the rest
            for at in range(0, len(changed), 1 if code == DELETE else 2):
                values[name, changed[at]] = None if code in (DELETE, DELETE_PAIR) else changed[at + 1]
    return all(txn.get(key, db=store.databases[name]) == value for (name, key), value in values.items())
