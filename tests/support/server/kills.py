"""A server of several processes that is killed under load, and who calls it meanwhile, beside the ledger's writers.

    Adder     adds records whose ids the server makes, each under one request id until it is answered: what was done
              twice would be there twice
    Revoker   makes a token, waits until it was let in, and revokes it, again and again
    Stranger  calls with the token that counts and with those that were revoked: reads, writes, and on a stream that
              was opened while the token counted
    Probe     calls again and again, and knows when it was answered

Threads: each is one; what they share is appended to by one of them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

import vecdb
from tests.support.server.driver import Client, search_request, token
from tests.support.server.ledger import DIM, PAUSE_S, RESUMED, Worker
from vecdb.v1 import records_pb2, search_pb2
from vecdb.wire.arrays import vectors_message
from vecdb_server.security import tokens

ADDED = 3  # records of one call
REVOKED_MAX_S = 1.0  # how long after a revoke a call that was under way may still be answered
_PAUSE_S = 0.005  # after each call that was answered: the machine has others to run
_CALL_S = 5.0
_USED = 3  # calls that are answered under a token before it is revoked
_PASSING = {*RESUMED, grpc.StatusCode.UNAUTHENTICATED}
ROW = np.ones(DIM, np.float32)


class Probe(Worker):
    """answered : when each call was that was answered, and when it had begun."""

    def __init__(self, number: int, stop: threading.Event) -> None:
        super().__init__(number, stop)
        self.answered: list[tuple[float, float]] = []

    def call(self) -> None:
        raise NotImplementedError

    def step(self) -> None:
        begun = time.monotonic()
        try:
            self.call()
        except (grpc.RpcError, vecdb.Unavailable) as error:
            assert not isinstance(error, grpc.RpcError) or error.code() in RESUMED, error
            self.repeats += 1
            self.stop.wait(PAUSE_S)
        else:
            self.answered.append((begun, time.monotonic()))
            self.done += 1
            self.stop.wait(_PAUSE_S)

    def first_after(self, moment: float) -> float | None:
        """When the first call was answered that had begun after that moment; None: none was so far."""
        found = None
        for begun, ended in reversed(self.answered):
            if begun < moment:
                break
            found = ended
        return found


class RawReader(Probe):
    """A client without retries, on a connection of its own."""

    def __init__(self, number: int, stop: threading.Event, client: Client) -> None:
        super().__init__(number, stop)
        self.client = client

    def call(self) -> None:
        request = records_pb2.CountRequest(collection="docs")
        self.client.records.Count(request, metadata=self.client.metadata, timeout=_CALL_S)


class Embedder(Probe):
    """vecdb's own client, which repeats by itself what was cut off."""

    def __init__(self, number: int, stop: threading.Event, docs: vecdb.Collection) -> None:
        super().__init__(number, stop)
        self.docs = docs

    def call(self) -> None:
        self.docs.search(ROW, 3)


class Adder(Probe):
    """added : the ids that were told, by the number of the call."""

    def __init__(self, number: int, stop: threading.Event, client: Client) -> None:
        super().__init__(number, stop)
        self.client = client
        self.added: dict[int, list[int]] = {}
        self.begun = 0

    def call(self) -> None:
        if self.begun in self.added or not self.begun:
            self.begun += 1
        vectors = np.full((ADDED, DIM), self.begun, np.float32)
        request = records_pb2.WriteRequest(
            collection="added", mode=records_pb2.WRITE_MODE_ADD, vectors=vectors_message(vectors),
            request_id=f"add-{self.begun}",
        )  # fmt: skip
        patience_s = float(self.rng.choice([0.005, 0.02, _CALL_S]))
        answer = self.client.records.Write(request, metadata=self.client.metadata, timeout=patience_s)
        assert answer.count == ADDED
        self.added[self.begun] = list(answer.ids.ints.values)

    def check(self, added: vecdb.Collection) -> None:
        """Each call was done once; one that was given up was done once, or never."""
        there: dict[int, list[int]] = {}
        for part in added.iter(1_000, include_vectors=True):
            for one in part:
                assert one.vector is not None
                there.setdefault(int(one.vector[0]), []).append(int(one.id))
        unknown = there.pop(self.begun, []) if self.begun not in self.added else []
        assert len(unknown) in (0, ADDED)
        assert {number: sorted(ids) for number, ids in there.items()} == {
            number: sorted(ids) for number, ids in self.added.items()
        }


class Revoker(Worker):
    """secret : of the token that counts.   revoked : when each secret was revoked."""

    def __init__(self, number: int, stop: threading.Event, path: Path) -> None:
        super().__init__(number, stop)
        self.path = path
        self.revoked: dict[str, float] = {}
        self.used: Counter[str] = Counter()
        self.secret = ""

    def step(self) -> None:
        name = f"short-{self.done}"
        secret = self.secret = token(self.path, name, "write")
        while self.used[secret] < _USED:
            if self.stop.wait(_PAUSE_S):
                return
        tokens.revoke(self.path, name)
        self.revoked[secret] = time.monotonic()
        self.done += 1


class Stranger(Worker):
    """longest_s : after a revoke, when a call that had begun before was answered."""

    def __init__(self, number: int, stop: threading.Event, client: Client, revoker: Revoker) -> None:
        super().__init__(number, stop)
        self.client, self.revoker = client, revoker
        self.refused = 0
        self.longest_s = 0.0
        self._stream: Any = None
        self._asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._of_stream = ""

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._close()

    def step(self) -> None:
        revoked = list(self.revoker.revoked)
        secret = self.revoker.secret
        if revoked and self.rng.integers(2):
            newest = min(len(revoked), 3 if self.rng.integers(2) else len(revoked))
            secret = revoked[-int(self.rng.integers(1, newest + 1))]
        if not secret:
            return
        for call in (self._read, self._write, self._ask):
            begun = time.monotonic()
            try:
                used = call(secret)
            except grpc.RpcError as error:
                assert error.code() in _PASSING, error
                self.refused += error.code() is grpc.StatusCode.UNAUTHENTICATED
                if call == self._ask:
                    self._close()
            else:
                self._check(call.__name__, used, begun, time.monotonic())
        self.stop.wait(PAUSE_S)

    def _check(self, what: str, secret: str, begun: float, answered: float) -> None:
        self.revoker.used[secret] += 1
        self.done += 1
        since = self.revoker.revoked.get(secret)
        if since is None:
            return
        assert begun < since, f"{what}: let in {begun - since:.3f} s after the token was revoked"
        self.longest_s = max(self.longest_s, answered - since)
        late_s = answered - since
        assert late_s < REVOKED_MAX_S, (
            f"{what}: answered {late_s:.3f} s after the token was revoked, asked {since - begun:.3f} s before"
        )

    # -- calls: each returns the secret that it was made under ---------------------------------------

    def _read(self, secret: str) -> str:
        request = records_pb2.CountRequest(collection="docs")
        self.client.records.Count(request, metadata=_bearer(secret), timeout=_CALL_S)
        return secret

    def _write(self, secret: str) -> str:
        request = records_pb2.WriteRequest(
            collection="strangers", mode=records_pb2.WRITE_MODE_ADD, vectors=vectors_message(ROW[None])
        )
        self.client.records.Write(request, metadata=_bearer(secret), timeout=_CALL_S)
        return secret

    def _ask(self, secret: str) -> str:
        """On the stream that is there, whose token may have been revoked since; else on one of this secret."""
        if self._stream is None:
            self._asked = queue.SimpleQueue()
            self._of_stream = secret
            self._stream = self.client.search.StreamSearch(_messages(self._asked), metadata=_bearer(secret))
        self._asked.put(search_pb2.StreamSearchRequest(search=search_request("docs", ROW, 1)))
        next(self._stream)
        return self._of_stream

    def _close(self) -> None:
        if self._stream is not None:
            self._asked.put(None)
            self._stream.cancel()
            self._stream = None


def _messages(asked: queue.SimpleQueue[Any]) -> Iterator[Any]:
    while (message := asked.get()) is not None:
        yield message


def _bearer(secret: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {secret}"),)
