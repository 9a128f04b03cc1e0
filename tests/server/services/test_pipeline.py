"""Work in two steps: what runs beside what, in which order, and what a failure leaves undone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vecdb_server.services.pipeline import TwoStagePipeline


def run(steps: int, fails: tuple[str, int] | None = None) -> tuple[list[tuple[str, int]], list[Any]]:
    """(steps as they began and ended, results) of pieces that are all begun at once."""
    log: list[tuple[str, int]] = []

    async def step(name: str, piece: int) -> int:
        log.append((name, piece))
        for _ in range(3 + piece % 2):
            await asyncio.sleep(0)
        log.append((f"{name} done", piece))
        if fails == (name, piece):
            raise ValueError(piece)
        return piece

    async def main() -> list[Any]:
        pipeline = TwoStagePipeline()
        pieces = [
            pipeline.run(lambda piece=piece: step("first", piece), lambda ready: step("second", ready))  # type: ignore[misc]
            for piece in range(steps)
        ]
        return await asyncio.gather(*pieces, return_exceptions=True)

    return log, asyncio.run(main())


def test_each_step_is_one_at_a_time_in_order_and_the_first_is_one_piece_ahead() -> None:
    log, results = run(6)
    assert results == list(range(6))
    for name in ("first", "second"):
        assert [one for one in log if one[0].startswith(name)] == [
            (word, piece) for piece in range(6) for word in (name, f"{name} done")
        ]
    for piece in range(1, 6):
        assert log.index(("first", piece)) < log.index(("second done", piece - 1)), "beside the one before it"
    for piece in range(2, 6):
        assert log.index(("first", piece)) > log.index(("second done", piece - 2)), "no further ahead"


@pytest.mark.parametrize("name", ["first", "second"])
def test_no_second_step_begins_after_a_failure(name: str) -> None:
    log, results = run(5, (name, 2))
    assert results[:2] == [0, 1] and isinstance(results[2], ValueError)
    assert all(isinstance(one, asyncio.CancelledError) for one in results[3:])
    assert [piece for word, piece in log if word == "second"] == [0, 1] + [2] * (name == "second")
