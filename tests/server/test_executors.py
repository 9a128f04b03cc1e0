"""Where work runs: turns between callers, jobs done together, jobs that nobody waits for any more."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from vecdb import InvalidArgument, Unavailable
from vecdb_server import executors
from vecdb_server.executors import FairThreadPool, LatencyModel, LongOperations, Stopped
from vecdb_server.status_errors import Refused


def on_a_pool(scenario: Any, **options: Any) -> Any:
    """Run scenario(pool, gate) with the pool's one thread held until gate is set."""

    async def main() -> Any:
        pool = FairThreadPool("test", 1, **options)
        gate = threading.Event()
        held = asyncio.ensure_future(pool.run("holder", lambda stop: gate.wait(60)))
        try:
            while not pool.busy:
                await asyncio.sleep(0)
            return await scenario(pool, gate)
        finally:
            gate.set()
            await held
            pool.close()

    return asyncio.run(main())


async def begun(pool: FairThreadPool, coming: Sequence[Any]) -> list[asyncio.Future[Any]]:
    tasks = [asyncio.ensure_future(one) for one in coming]
    while pool.queued < len(tasks):
        await asyncio.sleep(0)
    return tasks


def test_callers_take_turns_however_much_one_of_them_asks() -> None:
    order: list[str] = []

    async def scenario(pool: FairThreadPool, gate: threading.Event) -> None:
        many = [pool.run("many", lambda stop, i=i: order.append(f"many{i}")) for i in range(6)]
        few = [pool.run("few", lambda stop, i=i: order.append(f"few{i}")) for i in range(2)]
        tasks = await begun(pool, [*many, *few])
        gate.set()
        await asyncio.gather(*tasks)

    on_a_pool(scenario)
    assert order == ["many0", "few0", "many1", "few1", "many2", "many3", "many4", "many5"]


def test_a_thread_that_waits_keeps_nothing_of_its_last_job() -> None:
    """Of a bulk that would be megabytes, in each of many threads."""

    class Message:
        """Something that may be asked whether it is still there."""

    async def main() -> None:
        pool = FairThreadPool("test", 1)
        try:
            asked, answer = Message(), Message()
            gone = [weakref.ref(asked), weakref.ref(answer)]
            work = functools.partial(lambda given, answer, stop: answer, asked, answer)
            assert await pool.run("somebody", work) is answer
            del asked, answer, work
            while pool.busy or any(ref() is not None for ref in gone):  # the thread has told before it lets go
                await asyncio.sleep(0.001)
        finally:
            pool.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_jobs_that_are_alike_are_done_together_whoever_asked_and_others_are_not() -> None:
    calls: list[list[int]] = []

    def together(subjects: Sequence[int]) -> list[int]:
        calls.append(list(subjects))
        return [one * 10 for one in subjects]

    async def scenario(pool: FairThreadPool, gate: threading.Event) -> Any:
        jobs = [
            pool.run(
                f"caller{i % 3}", lambda stop, i=i: i * 10, batch_key=("a", i % 2), batch_item=i, run_batch=together
            )
            for i in range(12)
        ]
        tasks = await begun(pool, [*jobs, pool.run("x", lambda stop: 7)])
        gate.set()
        return await asyncio.gather(*tasks)

    assert on_a_pool(scenario, batch_max=4) == [*(i * 10 for i in range(12)), 7]
    assert max(map(len, calls)) == 4 and all(len({one % 2 for one in call}) == 1 for call in calls)
    assert sorted(one for call in calls for one in call)[:2] == [0, 1]


def test_a_thread_takes_no_more_than_its_share_of_what_is_alike() -> None:
    taken: list[int] = []

    async def main() -> None:
        pool, gate = FairThreadPool("test", 2, batch_max=8), threading.Event()
        held = [asyncio.ensure_future(pool.run("holder", lambda stop: gate.wait(60))) for _ in range(2)]
        while pool.busy < 2:
            await asyncio.sleep(0)

        def together(subjects: Sequence[int]) -> Sequence[int]:
            taken.append(len(subjects))
            return subjects

        jobs = [pool.run("c", lambda stop, i=i: i, batch_key="a", batch_item=i, run_batch=together) for i in range(6)]
        tasks = await begun(pool, jobs)
        gate.set()
        assert await asyncio.gather(*tasks) == list(range(6))
        await asyncio.gather(*held)
        pool.close()

    asyncio.run(main())
    assert taken[0] == 3 and max(taken) == 3


def test_a_job_that_fails_does_not_harm_those_that_were_done_with_it() -> None:
    def together(subjects: Sequence[int]) -> list[int]:
        raise InvalidArgument("one of them")

    def alone(i: int) -> int:
        if i == 2:
            raise InvalidArgument("this one")
        return i

    async def scenario(pool: FairThreadPool, gate: threading.Event) -> Any:
        jobs = [
            pool.run("c", lambda stop, i=i: alone(i), batch_key="a", batch_item=i, run_batch=together) for i in range(4)
        ]
        tasks = await begun(pool, jobs)
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    zero, one, two, three = on_a_pool(scenario, batch_max=8)
    assert (zero, one, three) == (0, 1, 3) and str(two) == "this one"


def test_what_nobody_waits_for_and_what_is_late_is_not_begun() -> None:
    ran: list[str] = []

    async def scenario(pool: FairThreadPool, gate: threading.Event) -> Any:
        jobs = [
            pool.run("c", lambda stop: ran.append("gone")),
            pool.run("c", lambda stop: ran.append("late"), time.monotonic() - 1),
            pool.run("c", lambda stop: ran.append("fine"), time.monotonic() + 60),
        ]
        tasks = await begun(pool, jobs)
        tasks[0].cancel()
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    gone, late, fine = on_a_pool(scenario)
    assert isinstance(gone, asyncio.CancelledError) and isinstance(late, Unavailable) and fine is None
    assert ran == ["fine"]


def test_what_would_be_done_after_half_of_its_time_is_refused_and_each_caller_has_a_queue_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("vecdb_server.executors.time.monotonic", lambda: now[0])

    def works(stop: Any) -> None:
        now[0] += 0.1

    async def scenario(pool: FairThreadPool, gate: threading.Event) -> None:
        pool.check_wait("c", now[0])  # nobody waits: it would begin at once
        tasks = await begun(pool, [pool.run("c", works)])
        gate.set()
        await asyncio.gather(*tasks)
        gate.clear()
        held = asyncio.ensure_future(pool.run("holder", lambda stop: gate.wait(60)))
        while not pool.busy:
            await asyncio.sleep(0)
        waiting = await begun(pool, [pool.run("c", works) for _ in range(6)])
        pool._job_s = 1.0
        for caller, done_in_s in (("c", 6 + 1 + 1), ("d", 1 + 1 + 1)):  # those ahead, one that runs, itself
            pool.check_wait(caller, float("inf"))
            pool.check_wait(caller, now[0] + 2 * done_in_s + 0.01)
            with pytest.raises(Refused, match="before this call's deadline") as caught:
                pool.check_wait(caller, now[0] + 2 * done_in_s - 1.0)
            assert caught.value.retry_s == pytest.approx(0.5)
        gate.set()
        await asyncio.gather(held, *waiting)

    on_a_pool(scenario)


def test_what_is_done_together_leaves_out_who_is_gone() -> None:
    seen: list[int] = []

    async def scenario(pool: FairThreadPool, gate: threading.Event) -> None:
        def together(subjects: Sequence[int]) -> Sequence[int]:
            seen.extend(subjects)
            return subjects

        jobs = [pool.run("c", lambda stop, i=i: i, batch_key="a", batch_item=i, run_batch=together) for i in range(5)]
        tasks = await begun(pool, jobs)
        tasks[3].cancel()
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)

    on_a_pool(scenario, batch_max=8)
    assert seen == [0, 1, 2, 4]


def test_a_pool_that_closes_finishes_what_waits_and_takes_nothing_more() -> None:
    async def main() -> None:
        pool = FairThreadPool("test", 2)
        done = await asyncio.gather(*(pool.run("c", lambda stop, i=i: i) for i in range(50)))
        assert done == list(range(50))
        pool.close()
        with pytest.raises(Unavailable):
            await pool.run("c", lambda stop: None)

    before = threading.active_count()
    asyncio.run(main())
    assert threading.active_count() == before


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_TURN_S", 0.0)


@pytest.mark.usefixtures("short_turns")
def test_work_in_chunks_gives_up_its_turn_to_others_and_goes_on() -> None:
    order: list[str] = []

    def chunks(name: str) -> Any:
        def work(stop: Any) -> str:
            for i in range(4):
                assert not stop()
                order.append(f"{name}{i}")
            return name

        return work

    async def scenario(pool: FairThreadPool, gate: threading.Event) -> None:
        coming = [pool.run("a", chunks("a")), pool.run("b", chunks("b")), pool.run("c", lambda stop: order.append("c"))]
        tasks = await begun(pool, coming)
        gate.set()
        assert (await asyncio.gather(*tasks))[:2] == ["a", "b"]
        assert (pool.queued, pool.paused, pool.busy) == (0, 0, 0)

    on_a_pool(scenario)
    assert order.index("c") < order.index("a1") and order.index("c") < order.index("b2")
    assert [one for one in order if one != "c"] == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3"]


@pytest.mark.usefixtures("short_turns")
def test_work_that_nobody_else_waits_for_keeps_its_turn() -> None:
    async def main() -> None:
        pool = FairThreadPool("test", 2)
        before = threading.active_count()
        await asyncio.gather(*(pool.run("a", lambda stop: [stop() for _ in range(100)]) for _ in range(20)))
        assert threading.active_count() == before
        pool.close()

    asyncio.run(main())


@pytest.mark.usefixtures("short_turns")
def test_work_that_is_paused_ends_when_its_caller_goes_away_and_the_number_of_threads_has_a_bound() -> None:
    ended: list[bool] = []

    def endless(stop: Any) -> None:
        while not stop():
            pass
        ended.append(True)

    async def main() -> None:
        pool = FairThreadPool("test", 1)
        before = threading.active_count()
        tasks = [asyncio.ensure_future(pool.run(f"caller {i}", endless)) for i in range(40)]
        while pool.paused < executors._PAUSED_MAX:
            await asyncio.sleep(0)
        assert threading.active_count() <= before + executors._PAUSED_MAX
        assert pool.busy <= 1
        for task in tasks:
            task.cancel()
        while pool.queued or pool.paused or pool.busy:
            await asyncio.sleep(0)
        assert await pool.run("somebody", lambda stop: "done") == "done"
        pool.close()

    asyncio.run(main())
    assert ended


@pytest.mark.usefixtures("short_turns")
def test_a_pool_that_closes_lets_paused_work_end() -> None:
    done: list[int] = []

    async def main() -> None:
        pool, go = FairThreadPool("test", 1), threading.Event()

        def work(stop: Any) -> None:
            for _ in range(50):
                stop()
            go.wait(60)
            done.append(1)

        tasks = [asyncio.ensure_future(pool.run(f"caller {i}", work)) for i in range(4)]
        while pool.queued + pool.paused < 3:
            await asyncio.sleep(0)
        go.set()
        await asyncio.to_thread(pool.close)
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert done == [1] * 4


def test_what_a_search_cost_says_whether_the_next_is_short() -> None:
    model = LatencyModel(500)
    latency = model.of("a")
    assert not latency.is_short(1) and not latency.is_short(0)  # nobody knows yet
    latency.update(10, 1e-3)  # 100 us each
    assert latency.is_short(5) and not latency.is_short(6)
    latency.update(1, 1.0)  # one that was held up does not make its kind slow
    assert model.of("a").is_short(3) and not model.of("b").is_short(1)
    for _ in range(100):
        latency.update(1, 1e-3)
    assert not latency.is_short(1)


def test_a_long_operation_ends_at_its_next_report_once_it_is_stopped() -> None:
    reports: list[int] = []

    def endless(progress: Any) -> None:
        for i in range(10**9):
            reports.append(i)
            progress(i, 10**9)

    async def main() -> None:
        operations = LongOperations(1)
        operation = operations.start(endless)
        assert operations.full
        while not reports:
            await asyncio.sleep(0)
        operations.stop()
        with pytest.raises(Stopped):
            await operation.future
        assert not operations.full

    asyncio.run(main())
