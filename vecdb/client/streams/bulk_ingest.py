"""Many batches on one stream, at most 4 unanswered. When the stream breaks, the unanswered ones are sent again.

    source -> next -> (on its way, unanswered) -> answered
                 <- begin of another attempt: what was unanswered comes first, under the same request_ids

So a batch that was written although its answer was lost is not written twice. A batch is made when there is room for
it; an error in making one is raised after the batches before it are answered.

Each attempt begins with one batch alone, and each answer makes room for one more, so that an error that concerns all of
them is reported for the first. An attempt lasts at most as long as one write may take; after that, one that had answers
is followed by another.

Threads: `next` is called on the thread that sends, everything else on the thread that reads answers. It knows nothing
of gRPC, and both kinds of connection use it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from vecdb.client.retry import RetryPolicy
from vecdb.errors import Unavailable
from vecdb.wire.bulk_writes import BulkWrite

UNANSWERED_MAX = 4


class _Message(NamedTuple):
    """data : of an IngestRequest.   dim : of its vectors; 0 where it has none."""

    batch: int
    data: bytes
    dim: int


class IngestStream:
    """writes : each with its own request_id.   written : called with the dim of each that was carried out."""

    def __init__(self, writes: Iterator[BulkWrite], written: Callable[[int], None] = lambda dim: None) -> None:
        self._writes = writes
        self._written = written
        self._lock = (
            threading.Lock()
        )  # held while a batch is made, so that an attempt begins with all batches that were made
        self._attempt = 0
        self._made = 0
        self._retry = RetryPolicy()
        self._window = 0
        self._count = 0
        self._again: deque[_Message] = deque()
        self._unanswered: deque[_Message] = deque()
        self._error: BaseException | None = None

    def begin(self) -> int:
        """Another attempt begins. Returns its number."""
        with self._lock:
            self._attempt += 1
            self._window = 1
            self._again = self._unanswered + self._again
            self._unanswered = deque()
            return self._attempt

    def end(self, attempt: int) -> None:
        """Send nothing more in this attempt."""
        with self._lock:
            self._attempt += attempt == self._attempt

    def next(self, attempt: int) -> bytes | None:
        """The bytes of the next IngestRequest; None where there are no more, or the attempt has ended."""
        with self._lock:
            if attempt != self._attempt:
                return None
            message = self._again.popleft() if self._again else self._make()
            if message is None:
                return None
            self._unanswered.append(message)
            return message.data

    def _make(self) -> _Message | None:
        if self._error is not None:
            return None
        try:
            write = next(self._writes, None)
            if write is None:
                return None
            self._made += 1
            return _Message(self._made, write.packed(self._made), write.dim)
        except BaseException as error:
            self._error = error
            return None

    def answered(self, answer: Any) -> int:
        """Takes an answer. Returns how many more batches may be sent now."""
        message = self._unanswered.popleft()
        assert answer.batch == message.batch, (answer.batch, message.batch)
        self._count += answer.count
        self._written(message.dim)
        self._retry.reset()
        more = 2 if self._window < UNANSWERED_MAX else 1
        self._window += more - 1
        return more

    def wait_s(self, status: str) -> float | None:
        """Seconds until the next attempt, after one that ended with this gRPC status; None: make no other attempt."""
        if status == "DEADLINE_EXCEEDED":
            return 0.0 if self._window > 1 else None
        return self._retry.wait_s(status)

    def total(self) -> int:
        """Records written, once all answers are there. Raises the error that making a batch raised."""
        if self._error is not None:
            raise self._error
        if self._unanswered or self._again:
            raise Unavailable("the server ended the stream before it had answered all batches")
        return self._count
