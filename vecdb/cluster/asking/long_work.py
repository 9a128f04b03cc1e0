"""Work that takes long, on several shards at once: each in a thread of its own, progress in the caller's."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from vecdb.cluster.asking.shards import LongCall
from vecdb.errors import Unavailable, VecdbError

_ENDED = object()


class SharedProgress:
    """What several shards have done and have to do, added up."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self._progress = progress
        self._known: dict[int, tuple[int, int]] = {}

    def of(self, shard: int) -> Callable[[int, int], None] | None:
        """What the work of one shard is to call; None where nobody wants to know."""
        if self._progress is None:
            return None
        progress = self._progress

        def report(done: int, total: int) -> None:
            self._known[shard] = done, total
            progress(sum(done for done, _ in self._known.values()), sum(total for _, total in self._known.values()))

        return report


def run_all(calls: Sequence[LongCall]) -> list[Any]:
    """Do the work of all, and return what each found. Where one fails, or a report raises, the others are broken off,
    as far as they can be, and the error is raised.
    """
    answers: queue.SimpleQueue[tuple[LongCall, Any]] = queue.SimpleQueue()
    streams: list[Any] = []
    last: dict[LongCall, Any] = {}
    try:
        for call in calls:
            server = call.members.writer(call.shard)
            if server is None:
                raise Unavailable(f"shard {call.shard} of {call.members.url} has no server that writes at this moment")
            stream = server.start(call.rpc, call.request, None, streamed=True)
            streams.append(stream)
            threading.Thread(target=_pump, args=(call, server, stream, answers), daemon=True).start()
        open_calls = len(calls)
        while open_calls:
            call, answer = answers.get()
            if isinstance(answer, VecdbError):
                raise answer
            if answer is _ENDED:
                open_calls -= 1
                continue
            last[call] = answer
            call.report(answer)
    finally:
        for stream in streams:
            stream.cancel()
    for call in calls:
        call.members.note_write(call.shard, 0)
    return [call.decode(last.get(call)) for call in calls]


def _pump(call: LongCall, server: Any, stream: Any, answers: queue.SimpleQueue[tuple[LongCall, Any]]) -> None:
    try:
        for answer in stream:
            answers.put((call, answer))
        answers.put((call, _ENDED))
    except grpc.RpcError as failed:
        answers.put((call, server.error(failed, call.rpc, None)))
