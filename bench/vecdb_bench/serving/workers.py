"""Servers of one process and of several, each under many client processes, in turns.

    for each number of workers   a server of its own on a copy of the database; the first is what the others are
                                 compared with
    for each number of clients   so many load processes, one client and one connection each, all at once

    python -c "from vecdb.cli import main; main()" bench serve --dataset clustered-1000000x128 --measures workers \\
        --workers 1,15 --worker-clients 1,4,12,16,32 --cores 0 --rounds 3
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Any

from vecdb_bench.child_process import ModuleProcess
from vecdb_bench.serving import servers
from vecdb_bench.serving.lineup import Found, Lineup, median, median_ratio


def workers(lineup: Lineup) -> Found:
    """Queries a second by workers, clients and queries a call."""
    plan, found = lineup.plan, {}
    with ExitStack() as stack:
        crews = {}
        for count in plan.workers:
            lineup.say(f"starting a server of {count} workers")
            server = lineup.serve(lineup.copy(f"workers-{count}"), ["--workers", str(count)])
            stack.callback(server.close)
            crews[str(count)] = server
        loads = [lineup.add(ModuleProcess("load", "serving.load_process")) for _ in range(max(plan.worker_clients))]
        everybody = stack.enter_context(ThreadPoolExecutor(len(loads)))
        for queries, requests in ((1, lineup.one), (plan.batch, lineup.many)):
            for clients in plan.worker_clients:
                lineup.say(f"{clients} clients, {queries} a call")
                for name, server in crews.items():  # connected anew: the system spreads them by chance
                    _connect(loads[:clients], f"{name}-{queries}-{clients}", server, requests)
                turns = {
                    name: partial(
                        _turn, everybody, loads[:clients], f"{name}-{queries}-{clients}", plan.seconds, queries
                    )
                    for name in crews
                }
                rounds = lineup.alternate(turns)
                first = str(plan.workers[0])
                found[f"{clients} clients, {queries} a call"] = {
                    "rounds": rounds,
                    "ratios": {
                        name: median_ratio(rounds[name], rounds[first], "queries_per_second") for name in rounds
                    },
                    "medians": {name: median(one) for name, one in rounds.items()},
                }
    return found


def _connect(loads: list[Any], name: str, server: servers.Vecdb, requests: Any) -> None:
    for load in loads:
        load.ask(do="connect", name=name, target=server.target, method=servers.SEARCH, requests=str(requests))


def _turn(everybody: ThreadPoolExecutor, loads: list[Any], name: str, seconds: float, queries: int) -> dict[str, Any]:
    """All load processes at once; the rate is theirs together, p50 and p99 those of the slowest."""
    answers = list(
        everybody.map(lambda load: load.ask(do="closed", name=name, clients=1, seconds=seconds), loads)
    )  # fmt: skip
    per_second = sum(one["per_second"] for one in answers)
    return {
        "per_second": per_second,
        "queries_per_second": per_second * queries,
        "p50_us": max(one.get("p50_us", 0.0) for one in answers),
        "p99_us": max(one.get("p99_us", 0.0) for one in answers),
        "load_cpu_us": sum(one.get("load_cpu_us", 0.0) for one in answers) / len(answers),
    }
