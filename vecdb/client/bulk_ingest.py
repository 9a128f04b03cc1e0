"""Many batches on one stream: at most 4 unanswered, and where the stream breaks, sent again from the first of those.

    source -> next -> (on its way, unanswered) -> answered
                 <- begin of another attempt: what was unanswered comes first, under the same request_ids

A batch that was carried out although its answer was lost is thus not carried out again. Batches are made when there is
room for them; an error in making one ends the stream once those before it are answered, and is raised then.

Each attempt begins with one batch alone, and each answer makes room for one more, so that what is wrong from the start
is said of the first. It lasts as long as one write may take; one that had answers is then followed by another.

Threads: `next` in the one that sends, all else in the one that reads answers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from vecdb.client.retry import RetryPolicy
from vecdb.errors import Unavailable
from vecdb.v1 import records_pb2

UNANSWERED_MAX = 4


class IngestStream:
    """writes : WriteRequests, each with its own request_id."""

    def __init__(self, writes: Iterator[Any]) -> None:
        self._writes = writes
        self._lock = threading.Lock()  # held while a batch is made: an attempt begins with all that was made
        self._attempt = 0
        self._made = 0
        self._patience = RetryPolicy()
        self._window = 0
        self._count = 0
        self._again: deque[Any] = deque()
        self._unanswered: deque[Any] = deque()
        self._error: BaseException | None = None

    def begin(self) -> int:
        with self._lock:
            self._attempt += 1
            self._window = 1
            self._again = self._unanswered + self._again
            self._unanswered = deque()
            return self._attempt

    def end(self, attempt: int) -> None:
        """Nothing more is sent in this attempt."""
        with self._lock:
            self._attempt += attempt == self._attempt

    def next(self, attempt: int) -> Any:
        """The next IngestRequest; None where there is none, or the attempt has ended."""
        with self._lock:
            if attempt != self._attempt:
                return None
            message = self._again.popleft() if self._again else self._make()
            if message is not None:
                self._unanswered.append(message)
            return message

    def _make(self) -> Any:
        if self._error is not None:
            return None
        try:
            write = next(self._writes, None)
        except BaseException as error:
            self._error = error
            return None
        if write is None:
            return None
        self._made += 1
        return records_pb2.IngestRequest(batch=self._made, write=write)

    def answered(self, answer: Any) -> int:
        """How many more may be sent now."""
        message = self._unanswered.popleft()
        assert answer.batch == message.batch, (answer.batch, message.batch)
        self._count += answer.count
        self._patience.renew()
        more = 2 if self._window < UNANSWERED_MAX else 1
        self._window += more - 1
        return more

    def wait_s(self, status: str) -> float | None:
        """Seconds until another attempt after one that ended with this gRPC status; None where there shall be none."""
        if status == "DEADLINE_EXCEEDED":
            return 0.0 if self._window > 1 else None
        return self._patience.wait_s(status)

    def total(self) -> int:
        """Records written, once all answers are there. Raises what making a batch has raised."""
        if self._error is not None:
            raise self._error
        if self._unanswered or self._again:
            raise Unavailable("the server ended the stream before it had answered all batches")
        return self._count
