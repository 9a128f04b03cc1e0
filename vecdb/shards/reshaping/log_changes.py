"""Which records the commits of a log have touched since a place in it: keys and rows, without their values.

What a commit says of ids, changed fields and access lists names records; blocks, deletions and members go along with
those. A collection that has another uid or generation than before is to be compared as a whole: it is another one, or
was cleared, or a vacuum has given its rows new numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vecdb.errors import Corruption
from vecdb.replication.log import entry, epochs
from vecdb.replication.log.entry import DELETE, Commits, EpochEnd, Position
from vecdb.replication.objects import Bucket
from vecdb.storage.kv import keys, record_format
from vecdb.tenancy.pairs import rows_of

_IDS, _TENANTS = keys.IDS.decode(), keys.TENANTS.decode()
_BY_ROW = {keys.CHANGES.decode(), keys.ACCESS.decode()}
_JOURNAL = keys.JOURNAL.decode()


@dataclass(slots=True)
class Touched:
    """By (uid, generation): ids as (owner, bytes of the id), and rows. all : nobody knows what has changed.

    tenants : whether names of tenants have.
    """

    ids: dict[tuple[int, int], set[tuple[bytes, bytes]]] = field(default_factory=dict)
    rows: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    tenants: bool = False
    all: bool = False

    def add(self, found: Commits) -> None:
        for commit in found.commits:
            for code, number, changed in commit.operations:
                self._add(code, found.databases[number], changed)

    def _add(self, code: int, database: str, changed: list[bytes]) -> None:
        step = 1 if code == DELETE else 2
        if database == _IDS:
            for key in changed[::step]:
                self.ids.setdefault(keys.split_prefix(key), set()).add(keys.split_id(key))
        elif database in _BY_ROW:
            for key in changed[::step]:
                self.rows.setdefault(keys.split_prefix(key), set()).add(keys.number_of(key))
        elif database == _JOURNAL and step == 2:
            for key, raw in zip(changed[::2], changed[1::2], strict=True):
                granted, revoked = record_format.decode_journal(raw, keys.number_of(key), "the log")
                known = self.rows.setdefault(keys.split_prefix(key), set())
                known.update(rows_of(granted).tolist(), rows_of(revoked).tolist())
        elif database == _TENANTS:
            self.tenants = True


def touched_since(bucket: Bucket, at: tuple[int, int]) -> tuple[Touched, tuple[int, int]]:
    """What the log's commits behind a place have touched, and the place where it ends now. at : (epoch, sequence), of a
    commit. Raises Corruption.
    """
    found, (epoch, sequence) = Touched(), at
    while True:
        key = entry.log_key(epoch, sequence + 1)
        raw = bucket.get(key)
        if raw is None:
            mark = epochs.trimmed(bucket)
            found.all = found.all or (mark is not None and (epoch, sequence) < mark[:2])
            end = epochs.find_end(bucket) if found.all else None
            return found, (epoch, sequence) if end is None else end.position[:2]
        one = entry.decode(raw, f"{bucket.url}: {key}")
        if isinstance(one, Commits) and one.commits:
            found.add(one)
            sequence = one.commits[-1].sequence
        elif isinstance(one, EpochEnd):
            found.all = found.all or not one.continues or one.after != sequence
            epoch, sequence = one.next_epoch, one.after
        else:
            raise Corruption(f"{bucket.url}: {key} holds no commits")


def place_in(bucket: Bucket, position: Position) -> tuple[int, int]:
    """The place of a directory that stands at `position`. The object of the position may hold commits behind it, which
    `touched_since` would not see: the place is then the one before that object.
    """
    raw = bucket.get(position.key)
    one = None if raw is None else entry.decode(raw, position.key)
    if isinstance(one, Commits) and one.commits and one.commits[-1].sequence > position.sequence:
        return position.epoch, one.commits[0].sequence - 1
    return position.epoch, position.sequence
