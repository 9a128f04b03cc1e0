"""Many queries on one stream, results in order. When the stream breaks, the unanswered queries are sent again.

    queries -> add -> (unanswered, at most `window`) -> result -> the caller
                 <- begin of another attempt: what is unanswered is sent again

Where the queries end with an error, it is raised after the results of the queries before it. Each attempt begins with
one query alone, so that an error that concerns all of them is reported for the first.

Threads: one. It knows nothing of gRPC, and both kinds of connection use it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from vecdb.client.retry import RetryPolicy
from vecdb.errors import Unavailable

Decode = Callable[[Any], Any]
MakeMessage = Callable[[Any], tuple[Any, Decode]]

NO_MORE = object()  # stands for the end of the queries


class QueryStream:
    """make_message(query) : the message, and what decodes its answer.   window : the most unanswered messages."""

    def __init__(self, make_message: MakeMessage, window: int) -> None:
        self._make_message = make_message
        self._window = window
        self._allowed = 1
        self._sent = 0  # of the unanswered messages, those that were sent in this attempt
        self._unanswered: deque[tuple[Any, Decode]] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._retry = RetryPolicy()
        self.wait_s = self._retry.wait_s

    def begin(self) -> None:
        """Another attempt begins."""
        self._allowed, self._sent = 1, 0

    def has_room(self) -> bool:
        """Whether one more message can be sent now: one that was sent in an earlier attempt, or the next query's."""
        return self._sent < self._allowed and (self._sent < len(self._unanswered) or not self._ended)

    def again(self) -> Any:
        """The next message that was made but not sent in this attempt; None where there is none."""
        if self._sent == len(self._unanswered):
            return None
        self._sent += 1
        return self._unanswered[self._sent - 1][0]

    def add(self, query: Any) -> Any:
        """The message of the next query; None for NO_MORE. Raises what `make_message` raises."""
        if query is NO_MORE:
            return self.end()
        self._unanswered.append(self._make_message(query))
        return self.again()

    def end(self, error: Exception | None = None) -> None:
        """There are no more queries."""
        self._ended, self._error = True, error

    def is_waiting(self) -> bool:
        """Whether an answer is still to come. Raises the error that ended the queries once all answers are there."""
        if not self._unanswered and self._error is not None:
            raise self._error
        return bool(self._unanswered)

    def result(self, answer: Any) -> Any:
        """answer : None where the server has ended the stream."""
        if answer is None:
            raise Unavailable("the server ended the stream before it had answered all queries")
        self._allowed = self._window
        self._sent -= 1
        self._retry.reset()
        return self._unanswered.popleft()[1](answer)
