"""Idempotent writes: the first write with a request id is carried out, later ones with the same id get its answer.

    requests   id of the request -> the commit that carried it out, when, and what the write returned   (keys.py)

The answer is stored in the commit of the write itself, so that after any crash either both are stored or neither. A
client that lost the answer, not knowing whether the write happened, sends it again with the same id. Answers are kept
for `request_age_max_s`, the newest `requests_max` of a collection; a request that is repeated later writes again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from vecdb import limits
from vecdb.commit.committer import CommitGroup, Request
from vecdb.errors import Corruption, InvalidArgument
from vecdb.storage.kv import keys
from vecdb.storage.kv.store import Store, Txn
from vecdb.validate.common import short_repr

_KIND_BYTES = 16
_ANSWER = struct.Struct(f"<QQq{_KIND_BYTES}s")  # sequence, time in s, what was returned, kind of write
_COUNT = struct.Struct("<Q")
_EVICTED_MAX = 4  # answers that one write removes at most: more than one, so that an old backlog shrinks


class RepeatableRequest(Request, Protocol):
    """A write whose answer can be stored."""

    kind: ClassVar[bytes]  # stored with the answer: at most 16 bytes, never changed, whatever the class is called


@dataclass(slots=True)
class IdempotentWrite:
    """A write under a request id. now_s : Unix time."""

    request: RepeatableRequest
    uid: int
    request_id: bytes
    now_s: int

    @property
    def size_bytes(self) -> int:
        return self.request.size_bytes

    @property
    def exclusive(self) -> bool:
        return self.request.exclusive

    def apply(self, group: CommitGroup) -> Any:
        """What the write returned, now or the first time. Raises InvalidArgument where the id was that of another kind
        of write.
        """
        kind = self.request.kind
        assert len(kind) <= _KIND_BYTES, kind
        table, known = group.store.requests, keys.request_ids(self.uid) + self.request_id
        raw = group.txn.get(known, db=table)
        if raw is not None:
            return _answer(bytes(raw), kind, self.request_id)
        result = self.request.apply(group)
        first = keys.requests_in_order(self.uid)
        number = group.answered = group.answered + 1
        stored = _ANSWER.pack(group.sequence, self.now_s, -1 if result is None else result, kind)
        group.txn.put(known, stored, db=table)
        group.txn.put(first + struct.pack(">QI", group.sequence, number), self.request_id, db=table)
        self._evict(group, first)
        group.changed = True
        return result

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
            age_s = self.now_s - _ANSWER.unpack(oldest)[1] if oldest is not None else limits.request_age_max_s + 1
            if count <= limits.requests_max and age_s <= limits.request_age_max_s:
                break
            cursor.delete()
            group.txn.delete(known, db=table)
            count -= 1
        group.txn.put(keys.requests_counted(self.uid), _COUNT.pack(count), db=table)


def request_count(store: Store, txn: Txn, uid: int) -> int:
    """Requests that a collection knows."""
    raw = txn.get(keys.requests_counted(uid), db=store.requests)
    return int(_COUNT.unpack(raw)[0]) if raw else 0


def is_stored_answer(raw: bytes | None) -> bool:
    return raw is not None and len(raw) == _ANSWER.size


def _answer(raw: bytes, kind: bytes, request_id: bytes) -> Any:
    if not is_stored_answer(raw):
        raise Corruption(f"the answer of request {short_repr(request_id.decode())} is damaged; restore from a backup")
    _, _, result, stored = _ANSWER.unpack(raw)
    if stored.rstrip(b"\0") != kind:
        raise InvalidArgument("this request_id was that of another kind of write; make a new one for each write")
    return None if result < 0 else result
