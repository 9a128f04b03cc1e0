"""Many questions on one stream, their answers in order; where the stream breaks, unanswered ones are asked again.

    queries -> add -> (unanswered, at most `window`) -> result -> the caller
                 <- begin of another attempt: what is unanswered is sent again

What ends the queries, which may be an error of theirs, waits until those before it are answered. Each attempt begins
with one question alone, so that what is wrong from the start is said of it.

Threads: one; what sends takes messages from a queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from vecdb.client.retry import RetryPolicy
from vecdb.errors import Unavailable

Decode = Callable[[Any], Any]
Asked = Callable[[Any], tuple[Any, Decode]]


class QueryStream:
    """asked(query) : the message, and what makes a result of its answer.   window : unanswered messages at most."""

    def __init__(self, asked: Asked, window: int) -> None:
        self._asked = asked
        self._window = window
        self._allowed = 1
        self._sent = 0
        self._unanswered: deque[tuple[Any, Decode]] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._patience = RetryPolicy()
        self.wait_s = self._patience.wait_s

    def begin(self) -> None:
        self._allowed, self._sent = 1, 0

    def wants(self) -> bool:
        """Whether one more can be sent now: one that was sent before, or the next query."""
        return self._sent < self._allowed and (self._sent < len(self._unanswered) or not self._ended)

    def again(self) -> Any:
        """The next one that was sent in another attempt; None where there is none."""
        if self._sent == len(self._unanswered):
            return None
        self._sent += 1
        return self._unanswered[self._sent - 1][0]

    def add(self, query: Any) -> Any:
        """The message of the next query; None where it is none."""
        try:
            self._unanswered.append(self._asked(query))
        except Exception as error:
            self.end(error)
        return self.again()

    def end(self, error: Exception | None = None) -> None:
        """There are no more queries."""
        self._ended, self._error = True, error

    def is_waiting(self) -> bool:
        """Whether an answer is to come. Raises what has ended the queries, once all are there."""
        if not self._unanswered and self._error is not None:
            raise self._error
        return bool(self._unanswered)

    def result(self, answer: Any) -> Any:
        """answer : None where the stream has ended."""
        if answer is None:
            raise Unavailable("the server ended the stream before it had answered all queries")
        self._allowed = self._window
        self._sent -= 1
        self._patience.renew()
        return self._unanswered.popleft()[1](answer)
