"""The memory that processes of a server share: counts that bound callers, rates, words of each, counts of calls. Forked
processes are real; what they do is compared with plain arithmetic.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from vecdb import Unavailable
from vecdb_server import app
from vecdb_server.config import Config
from vecdb_server.place import LogState
from vecdb_server.security.admission import Admission, AdmissionLimits
from vecdb_server.security.auth import ANONYMOUS
from vecdb_server.security.counters import NO_BOUND, Counters, LocalCounters
from vecdb_server.services.context import ServerContext
from vecdb_server.workers import board as boards
from vecdb_server.workers import counters
from vecdb_server.workers.board import Board
from vecdb_server.workers.place import Crew, WorkerPlace, WriterPlace
from vecdb_server.workers.series import SharedMetrics


def shared(workers: int = 3) -> tuple[Board, list[counters.SharedCounters]]:
    board = Board(workers, counters.words(workers + 1))
    return board, [counters.SharedCounters(board, board.parts[0], i) for i in range(workers + 1)]


def in_processes(count: int, work: Callable[[int], None]) -> None:
    """work(i) in a process of its own for each i."""
    pids = []
    for i in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                work(i)
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * count


@pytest.mark.parametrize("seed", range(3))
def test_counts_of_several_processes_are_those_of_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    _, all_of_them = shared()
    alone: Counters = LocalCounters()
    held: list[tuple[int, list[tuple[str, int]]]] = []
    for _ in range(2_000):
        place = int(rng.integers(4))
        if held and rng.integers(2):
            place, amounts = held.pop(int(rng.integers(len(held))))
            all_of_them[place].subtract(amounts)
            alone.subtract(amounts)
            continue
        names = rng.choice(8, 3, replace=False)
        wanted = [(f"n{n}", int(rng.integers(1, 4)), int(rng.choice([6, 10, NO_BOUND]))) for n in names]
        assert all_of_them[place].first_over(wanted) == alone.first_over(wanted)
        over = alone.try_add(wanted)
        said = all_of_them[place].try_add(wanted)
        assert (said is None) == (over is None)
        if over is None:
            held.append((place, [(name, amount) for name, amount, _ in wanted]))
        for n in range(8):
            assert {one.value(f"n{n}") for one in all_of_them} == {alone.value(f"n{n}")} == {alone.own(f"n{n}")}
            for i, one in enumerate(all_of_them):
                mine = [dict(amounts).get(f"n{n}", 0) for who, amounts in held if who == i]
                assert one.own(f"n{n}") == sum(mine)


def test_no_more_are_let_in_than_there_is_room_for_however_they_race() -> None:
    _, all_of_them = shared()

    def work(i: int) -> None:
        for _ in range(3_000):
            if all_of_them[i].try_add((("calls", 1, 2),)) is None:
                assert all_of_them[i].value("calls") <= 2 + 3, "others may have added, and take it back"
                all_of_them[i].subtract((("calls", 1),))
        while all_of_them[i].try_add((("kept", 1, 50),)) is None:
            pass

    in_processes(4, work)
    assert all_of_them[0].value("calls") == 0
    assert 46 <= all_of_them[0].value("kept") <= 50


def test_a_rate_is_of_all_processes() -> None:
    _, all_of_them = shared()
    now = 1_000.0
    local = LocalCounters()
    for i in range(200):
        now += 0.03
        said, alone = all_of_them[i % 4].take("rate of a", 5.0, now), local.take("rate of a", 5.0, now)
        assert (said == 0.0) == (alone == 0.0) and said == pytest.approx(alone, abs=1e-6)

    let_in = Board(3, 4)

    def work(i: int) -> None:
        for _ in range(500):
            if all_of_them[i].take("rate of b", 100.0, 5_000.0) == 0.0:
                let_in.parts[0][i] += 1

    in_processes(4, work)
    assert sum(let_in.parts[0]) == 100  # at one moment: a second's worth


def test_a_process_that_is_gone_holds_nothing() -> None:
    _, all_of_them = shared()
    for i, one in enumerate(all_of_them):
        one.try_add((("calls", i + 1, NO_BOUND), ("bytes", 100, NO_BOUND)))
    all_of_them[0].clear(2)
    assert all_of_them[3].value("calls") == 1 + 2 + 4 and all_of_them[1].value("bytes") == 300


def test_a_full_table_shares_its_slots_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "SLOTS", 64)
    _, all_of_them = shared(1)
    for i in range(300):
        assert all_of_them[0].try_add(((f"name {i}", 1, NO_BOUND),)) is None
    assert sum(all_of_them[1].value(f"name {i}") >= 1 for i in range(300)) == 300  # bounds are met sooner, not later
    for i in range(300):
        all_of_them[0].subtract(((f"name {i}", 1),))
    assert {all_of_them[1].value(f"name {i}") for i in range(300)} == {0}


@pytest.mark.parametrize("seed", range(3))
def test_names_may_come_and_go_without_end(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    now = [1_000.0]
    monkeypatch.setattr(counters, "SLOTS", 64)
    monkeypatch.setattr(counters.time, "monotonic_ns", lambda: int(now[0] * 1e9))
    rng = np.random.default_rng(seed)
    _, all_of_them = shared(2)
    alone = LocalCounters()
    held: list[tuple[int, list[tuple[str, int]]]] = []
    for i in range(3_000):
        now[0] += 0.1
        place, name, rate = (
            int(rng.integers(3)),
            f"name {rng.integers(i // 4, i // 4 + 6)}",
            f"rate {rng.integers(i + 1)}",
        )
        assert all_of_them[place].take(rate, 4.0, now[0]) == pytest.approx(alone.take(rate, 4.0, now[0]), abs=1e-6)
        if len(held) == 10:
            who, amounts = held.pop(int(rng.integers(len(held))))
            all_of_them[who].subtract(amounts)
            alone.subtract(amounts)
        wanted = [(name, 1, 2), ("all", 1, 9), (f"{name} bytes", int(rng.integers(3)), NO_BOUND)]
        over = alone.try_add(wanted)
        assert all_of_them[place].try_add(wanted) == over
        if over is None:
            held.append((place, [(one, amount) for one, amount, _ in wanted]))
        for one in ("all", name, f"{name} bytes"):
            assert {its.value(one) for its in all_of_them} == {alone.value(one)}
    assert all(len(one._slots) <= 64 for one in all_of_them)


def test_a_slot_is_not_given_away_while_somebody_counts_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "SLOTS", 12)
    _, all_of_them = shared()
    inside = Board(3, 4 * 40)  # whom each process has let in

    def work(i: int) -> None:
        rng, mine = np.random.default_rng(i), all_of_them[i]
        for name in rng.integers(40, size=2_000).tolist():
            if mine.try_add(((f"n{name}", 1, 1),)) is None:
                inside.parts[0][4 * name + i] = 1
                assert sum(inside.parts[0][4 * name : 4 * name + 4]) == 1
                inside.parts[0][4 * name + i] = 0
                mine.subtract(((f"n{name}", 1),))

    in_processes(4, work)
    assert {all_of_them[0].value(f"n{name}") for name in range(40)} == {0}
    assert not any(all_of_them[0]._words[slot + 2 + i] for slot in range(0, 12 * 6, 6) for i in range(4))


def test_who_adds_just_before_a_slot_is_given_away_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "SLOTS", 1)
    _, (one, other) = shared(1)
    looked = []

    def is_used(slot: int) -> bool:
        looked.append(counters.SharedCounters._is_used(other, slot))
        if len(looked) == 1:
            assert one.try_add((("a", 1, 1),)) is None
        return looked[-1]

    assert one.try_add((("a", 1, 1),)) is None
    one.subtract((("a", 1),))
    monkeypatch.setattr(other, "_is_used", is_used)
    assert other.try_add((("b", 1, 1),)) == "b" and looked == [False, True], "they share it"
    assert one.value("a") == 1
    one.subtract((("a", 1),))
    assert other.try_add((("b", 1, 1),)) is None and other.value("b") == 1


def test_words_of_each_process_are_its_own() -> None:
    board = Board(2)

    def work(i: int) -> None:
        board.begin(i, os.getpid())
        board.set_gauge(i, "kernels_queued", i + 1)
        board.set_state(i, boards.SERVING)

    in_processes(3, work)
    assert board.gauge("kernels_queued") == 6 and board.gauge("kernels_running") == 0
    assert [board.state(i) for i in range(3)] == [boards.SERVING] * 3 and len({board.pid(i) for i in range(3)}) == 3
    board.end(1)
    assert board.state(1) == boards.GONE and board.gauge("kernels_queued") == 4
    before = board.names_version
    in_processes(1, lambda i: board.names_changed())
    assert board.names_version == before + 1


def test_counts_of_calls_add_up_and_survive_their_process() -> None:
    rpcs = ["/a.B/C", "/a.B/D"]
    board = Board(2, SharedMetrics.words(len(rpcs), 3))
    metrics = SharedMetrics(rpcs, 3, board.parts[0])

    def work(i: int) -> None:
        own = metrics.of(i)
        series = own.series("/a.B/C")
        for _ in range(100):
            series.count("OK", 0.003)
        series.count("NOT_FOUND", 100.0)
        own.refused("/x/y", "UNIMPLEMENTED")

    in_processes(3, work)
    totals = metrics.totals()
    assert set(totals) == {"a.B/C", "unknown"} and totals["unknown"].codes == {"UNIMPLEMENTED": 3}
    assert totals["a.B/C"].codes == {"OK": 300, "NOT_FOUND": 3} and sum(totals["a.B/C"].times) == 303
    assert totals["a.B/C"].times[-1] == 3 and totals["a.B/C"].seconds == pytest.approx(300.9)


def test_a_process_that_ends_waits_for_its_own_calls_and_not_for_those_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app, "_DRAIN_POLL_S", 0.0)  # each turn of the loop
    _, all_of_them = shared(2)
    mine, others = (Admission(AdmissionLimits(100, 100, 1 << 20), one) for one in all_of_them[1:])
    for one in (mine, others):
        one.enter(one.account(ANONYMOUS), 10)
        one.open_stream(one.account(ANONYMOUS))
    asked: list[str] = []

    class Connected:
        """gRPC's server, whose clients stay connected. It is told without a grace once no call is left."""

        def __init__(self) -> None:
            self.stopped = asyncio.Event()

        async def stop(self, grace_s: float | None) -> None:
            asked.append("at once" if grace_s is None else "with grace")
            if grace_s is None:
                self.stopped.set()
            await self.stopped.wait()

    async def run() -> None:
        server: Any = app.Server(Config())
        server.context, server._grpc_server = SimpleNamespace(admission=mine), Connected()
        ending = asyncio.ensure_future(server._end_calls())
        for done in (
            lambda: mine.leave(mine.account(ANONYMOUS), 10),
            lambda: mine.close_stream(mine.account(ANONYMOUS)),
        ):
            for _ in range(50):
                await asyncio.sleep(0)
            assert asked == ["with grace"] and mine.held_here > 0
            done()
        async with asyncio.timeout(60):
            await ending
        assert asked == ["with grace", "at once"] and mine.held_here == 0 < others.held_here
        assert others.calls == others.streams == 1

    asyncio.run(run())


@pytest.mark.parametrize("writes", [False, True])
def test_each_process_knows_them_all(tmp_path: Path, writes: bool) -> None:
    crew = Crew(2, tmp_path, 1_000, writes=writes)
    there = [0, 1, 2] if writes else [1, 2]
    for place in there:
        crew.board.begin(place, 2_000 + place)
    roles = {1_000: "supervisor", 2_000: "writer", 2_001: "worker", 2_002: "worker"}
    wanted = [{"pid": pid, "role": roles[pid]} for pid in (1_000, *(2_000 + place for place in there))]
    assert WorkerPlace(crew, 1, 1.0).processes() == wanted
    assert WriterPlace(crew).processes() == wanted


def test_workers_answer_no_more_once_the_writer_knows_that_it_was_replaced(tmp_path: Path) -> None:
    crew = Crew(2, tmp_path, 1_000, writes=True)
    writer, worker = WriterPlace(crew), WorkerPlace(crew, 1, 1.0)
    crew.board.begin(boards.WRITER, 7)
    writer.serves()
    assert worker.is_whole() and not worker.is_replaced()
    writer.replaced()
    assert worker.is_replaced() and not worker.is_whole() and not writer.is_whole()
    context = SimpleNamespace(place=worker, _names_version=worker.names_version(), _open={"docs": None}, _drops=0)
    context.check_answers = partial(ServerContext.check_answers, context)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="fenced"):
        ServerContext._follow_names(context)  # type: ignore[arg-type]
    crew.board.next_writer()
    assert worker.is_whole()
    ServerContext._follow_names(context)  # type: ignore[arg-type]


def test_health_of_a_worker_is_what_the_writer_knows_of_the_log(tmp_path: Path) -> None:
    crew = Crew(2, tmp_path, 1_000, writes=True)
    writer, worker = WriterPlace(crew), WorkerPlace(crew, 1, 1.0)
    for bits in range(8):
        state = LogState(*(bool(bits >> at & 1) for at in range(3)))
        writer.note_log(state)
        assert worker.log_state == writer.log_state == state
    assert not worker.takes_writes
    crew.board.begin(boards.WRITER, 7)
    writer.serves()
    assert worker.takes_writes
    writer.note_log(LogState(False, False, False))
    crew.board.next_writer()
    assert worker.log_state == LogState()
    assert not WorkerPlace(Crew(2, tmp_path, 1_000, writes=False), 1, 1.0).takes_writes


def test_workers_answer_no_longer_than_the_writer_has_said_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    crew = Crew(2, tmp_path, 1_000, writes=True, leased=True)
    writer, worker = WriterPlace(crew), WorkerPlace(crew, 1, 1.0)
    crew.board.begin(boards.WRITER, 7)
    writer.serves()
    context: Any = SimpleNamespace(place=worker)
    with pytest.raises(Unavailable, match="not answered from the past"):  # it has said nothing yet
        ServerContext.check_answers(context)
    writer.leased(now + 1.0)
    assert worker.is_whole()
    ServerContext.check_answers(context)
    now += 0.999
    ServerContext.check_answers(context)
    crew.gone(boards.WRITER)  # which renews it no more; another may begin
    crew.board.next_writer()
    now += 0.002
    with pytest.raises(Unavailable, match="not answered from the past"):
        ServerContext.check_answers(context)
    assert not worker.is_whole() and writer.refusal() is None  # its own database knows
    assert WorkerPlace(Crew(2, tmp_path, 1_000, writes=True), 1, 1.0).refusal() is None
