"""The history of a database: which process wrote which commits. Two copies of a directory have one history up to where
they part, and different ones from there on, although their commits have the same numbers.

    state[b"history"] := crc32 u32 LE of the rest, last u64 LE, session*      session := first u64 LE, token 8 bytes

A process that opens the directory for writing draws a token, and notes it with the number of its first commit. So two
states of one database that name the same token for a commit agree about it and about all before.

`last` is the newest commit that was noted. Versions that do not know of this leave it behind: what they wrote is
nobody's, a session whose token is zeros. The newest sessions are kept.

Thread rule: the commit thread notes; anybody reads.
"""

from __future__ import annotations

import secrets
import struct
import zlib
from typing import NamedTuple

from vecdb.storage.kv.store import Store, Txn

HISTORY = b"history"
_SESSION = struct.Struct("<Q8s")
_SESSIONS_MAX = 32
_NOBODY = "00" * 8


class History(NamedTuple):
    """last : the newest commit that it speaks of.   sessions : (first commit, token in hex), ascending."""

    last: int = 0
    sessions: tuple[tuple[int, str], ...] = ()

    def token_of(self, sequence: int) -> str | None:
        """Who wrote that commit; None where that is not known."""
        if sequence <= self.last:
            for first, token in reversed(self.sessions):
                if first <= sequence:
                    return None if token == _NOBODY else token
        return None


class HistoryWriter:
    """Notes the commits of one process."""

    def __init__(self, store: Store) -> None:
        with store.read() as txn:
            self._before = read(store, txn)
        self._token = secrets.token_bytes(8)
        self._sessions = b""  # with this one, once it has begun

    def note(self, store: Store, txn: Txn, sequence: int) -> None:
        """In the write transaction that becomes commit `sequence`."""
        if not self._sessions:
            before = [one for one in self._before.sessions if one[0] < sequence]
            if self._before.last + 1 < sequence:
                before.append((self._before.last + 1, _NOBODY))
            sessions = [*before[1 - _SESSIONS_MAX :], (sequence, self._token.hex())]
            self._sessions = b"".join(_SESSION.pack(first, bytes.fromhex(token)) for first, token in sessions)
        body = sequence.to_bytes(8, "little") + self._sessions
        txn.put(HISTORY, zlib.crc32(body).to_bytes(4, "little") + body, db=store.state)


def read(store: Store, txn: Txn) -> History:
    """What `txn` sees; nothing where it is damaged, or no version has written that knows of it."""
    return decode(bytes(txn.get(HISTORY, db=store.state) or b""))


def decode(raw: bytes) -> History:
    """What a stored value says; nothing where it is damaged."""
    body = raw[4:]
    if len(body) < 8 or (len(body) - 8) % _SESSION.size or zlib.crc32(body).to_bytes(4, "little") != raw[:4]:
        return History()
    sessions = tuple((first, token.hex()) for first, token in _SESSION.iter_unpack(body[8:]))
    return History(int.from_bytes(body[:8], "little"), sessions)
