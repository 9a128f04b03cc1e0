"""Idempotent writes: the first write with a request id is carried out, later ones with the same id get its answer.

    requests   id of the request -> the commit that carried it out, when, what the write returned, what it was of
                                                                                                         (keys.py)
    answer  := sequence u64, time u64 in s, returned i64 (-1: None), kind of write 16 bytes, digest 16 bytes
               without the digest where an earlier version wrote it
               with sequence 0 where another shard of a cluster carried it out (`CarryAnswers`)

The answer is stored in the commit of the write itself, so that after any crash either both are stored or neither. A
client that lost the answer, not knowing whether the write happened, sends it again with the same id. Answers are kept
for `request_age_max_s`, the newest `requests_max` of a collection; a request that is repeated later writes again.

An id that comes again with another write is refused, where it would otherwise write nothing in silence: the digest is
of all that the caller gave. It tells mistakes apart, such as a counter that starts anew; vectors and fields go into it
as checksums of 32 bits, so it is no proof against somebody who wants two writes of his own to look the same.

A cluster that gets other shards gives each of them the answers of all shards before, under the same ids. There a write
that comes again is what it was where it names the same records with the same content, as that of one record always is.
Of any other nobody can tell which part was carried out: it is refused, and nothing of it is written a second time.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from vecdb import limits
from vecdb.commit.committer import CommitGroup, Request
from vecdb.errors import Corruption, InvalidArgument
from vecdb.storage.kv import keys
from vecdb.storage.kv.store import Store, Txn
from vecdb.validate import AccessLists, IdBatch
from vecdb.validate.common import short_repr

_KIND_BYTES = 16
_DIGEST_BYTES = 16
_ANSWER = struct.Struct(f"<QQq{_KIND_BYTES}s")  # what an earlier version wrote
_SIZES = (_ANSWER.size, _ANSWER.size + _DIGEST_BYTES)
_COUNT = struct.Struct("<Q")
_CARRIED = 0  # in place of a sequence
# Kinds of writes whose content names all their records, so that equal content is of the same shard: not those that go
# to all shards, each of which has done its own.
_OF_RECORDS = (b"Put", b"Update", b"Delete", b"ChangeAccess")
_EVICTED_MAX = 4  # answers that one write removes at most: more than one, so that an old backlog shrinks


class RepeatableRequest(Request, Protocol):
    """A write whose answer can be stored."""

    kind: ClassVar[bytes]  # stored with the answer: at most 16 bytes, never changed, whatever the class is called

    def content(self) -> Iterable[bytes]:
        """What the caller gave: other contents, or others in order or length, are another write."""


@dataclass(slots=True)
class IdempotentWrite:
    """A write under a request id. now_s : Unix time."""

    request: RepeatableRequest
    uid: int
    request_id: bytes
    now_s: int
    digest: bytes = field(init=False)

    def __post_init__(self) -> None:  # on the caller's thread
        self.digest = _digest(self.request.content())

    @property
    def kind(self) -> bytes:
        return self.request.kind

    @property
    def size_bytes(self) -> int:
        return self.request.size_bytes

    @property
    def exclusive(self) -> bool:
        return self.request.exclusive

    def apply(self, group: CommitGroup) -> Any:
        """What the write returned, now or the first time. Raises InvalidArgument where the id was that of another
        write.
        """
        kind = self.request.kind
        assert len(kind) <= _KIND_BYTES, kind
        table, known = group.store.requests, keys.request_ids(self.uid) + self.request_id
        raw = group.txn.get(known, db=table)
        if raw is not None:
            return self._answer(bytes(raw), kind)
        result = self.request.apply(group)
        first = keys.requests_in_order(self.uid)
        number = group.answered = group.answered + 1
        stored = _ANSWER.pack(group.sequence, self.now_s, -1 if result is None else result, kind) + self.digest
        group.txn.put(known, stored, db=table)
        group.txn.put(first + struct.pack(">QI", group.sequence, number), self.request_id, db=table)
        self._evict(group, first)
        group.changed = True
        return result

    def _answer(self, raw: bytes, kind: bytes) -> Any:
        if not is_stored_answer(raw):
            name = short_repr(self.request_id.decode())
            raise Corruption(f"the answer of request {name} is damaged; restore from a backup")
        sequence, _, result, stored = _ANSWER.unpack_from(raw)
        same = stored.rstrip(b"\0") == kind and raw[_ANSWER.size :] == self.digest
        if sequence == _CARRIED and not (same and kind in _OF_RECORDS):
            raise InvalidArgument(
                "this request_id was that of a write which was carried out, in part or wholly, before the cluster got "
                "other shards, and this one was not carried out: look at its records, and write what is missing under "
                "a new request_id"
            )
        if stored.rstrip(b"\0") != kind:
            raise InvalidArgument("this request_id was that of another kind of write; make a new one for each write")
        if raw[_ANSWER.size :] not in (b"", self.digest):
            raise InvalidArgument(
                "this request_id was that of a write of other content, and this one was not carried out; make a new "
                "request_id for each write"
            )
        return None if result < 0 else result

    def _evict(self, group: CommitGroup, first: bytes) -> None:
        """Count the answer that was added, and remove those that are too many or too old."""
        table = group.store.requests
        count = request_count(group.store, group.txn, self.uid) + 1
        cursor = group.txn.cursor(db=table)
        for _ in range(_EVICTED_MAX):
            if not cursor.set_range(first) or not bytes(cursor.key()).startswith(first):
                break
            known = keys.request_ids(self.uid) + bytes(cursor.value())
            oldest = group.txn.get(known, db=table)
            age_s = self.now_s - _ANSWER.unpack_from(oldest)[1] if oldest is not None else limits.request_age_max_s + 1
            if count <= limits.requests_max and age_s <= limits.request_age_max_s:
                break
            cursor.delete()
            group.txn.delete(known, db=table)
            count -= 1
        group.txn.put(keys.requests_counted(self.uid), _COUNT.pack(count), db=table)


@dataclass(slots=True)
class CarryAnswers:
    """Know what other shards have answered, and nothing else that was carried here before. answers : as `carried` makes
    them. The same once more changes nothing.
    """

    uid: int
    answers: Mapping[bytes, bytes]
    exclusive: bool = True

    @property
    def size_bytes(self) -> int:
        return sum(len(known) + len(raw) for known, raw in self.answers.items())

    def apply(self, group: CommitGroup) -> None:
        table = group.store.requests
        ids, order = keys.request_ids(self.uid), keys.requests_in_order(self.uid) + struct.pack(">Q", _CARRIED)
        count = request_count(group.store, group.txn, self.uid)
        cursor = group.txn.cursor(db=table)
        while cursor.set_range(order) and bytes(cursor.key()).startswith(order):
            group.txn.delete(ids + bytes(cursor.value()), db=table)
            cursor.delete()
            count -= 1
        by_age = sorted(self.answers.items(), key=lambda one: (_ANSWER.unpack_from(one[1])[1], one[0]))
        for number, (request_id, raw) in enumerate(by_age[-limits.requests_max :]):
            if group.txn.get(ids + request_id, db=table) is None:  # else it was repeated here meanwhile
                group.txn.put(ids + request_id, raw, db=table)
                group.txn.put(order + struct.pack(">I", number), request_id, db=table)
                count += 1
        group.txn.put(keys.requests_counted(self.uid), _COUNT.pack(count), db=table)
        group.changed = True


def answers_of(store: Store, txn: Txn, uid: int) -> dict[bytes, bytes]:
    """All answers of a collection, as they are stored, by the id of the request."""
    first, found = keys.request_ids(uid), {}
    cursor = txn.cursor(db=store.requests)
    there = cursor.set_range(first)
    while there and bytes(cursor.key()).startswith(first):
        found[bytes(cursor.key())[len(first) :]] = bytes(cursor.value())
        there = cursor.next()
    return found


def carried(answers: Iterable[Mapping[bytes, bytes]]) -> dict[bytes, bytes]:
    """The answers of several shards as each of the shards behind them keeps them. Of a request that several of them
    have carried out, each its part, one is enough: a part that is no part of before is refused.
    """
    made: dict[bytes, bytes] = {}
    for of_shard in answers:
        for request_id, raw in of_shard.items():
            if not is_stored_answer(raw):
                continue  # it is damaged: `check` tells
            _, time_s, result, kind = _ANSWER.unpack_from(raw)
            one = _ANSWER.pack(_CARRIED, time_s, result, kind) + raw[_ANSWER.size :]
            known = made.get(request_id)
            if known is None or _ANSWER.unpack_from(known)[1] <= time_s:
                made[request_id] = one
    return made


def request_count(store: Store, txn: Txn, uid: int) -> int:
    """Requests that a collection knows."""
    raw = txn.get(keys.requests_counted(uid), db=store.requests)
    return int(_COUNT.unpack(raw)[0]) if raw else 0


def is_stored_answer(raw: bytes | None) -> bool:
    return raw is not None and len(raw) in _SIZES


def _digest(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def content_of_ids(ids: IdBatch) -> Iterable[bytes]:
    return ids.kind.encode(), ids.blob, ids.ends.tobytes()


def content_of_bytes(values: list[bytes] | None) -> Iterable[bytes]:
    """Of many values: where each ends, and a checksum of all of them, which is ten times as fast as a hash."""
    if values is None:
        return (b"none",)
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    return lengths.tobytes(), zlib.crc32(b"".join(values)).to_bytes(4, "little")


def content_of_lists(lists: AccessLists | None) -> Iterable[bytes]:
    if lists is None:
        return (b"none",)
    return *lists.names, b"", lists.records.tobytes(), lists.which.tobytes(), bytes([lists.kept])
