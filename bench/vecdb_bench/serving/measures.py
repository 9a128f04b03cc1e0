"""The measurements of a service, one function each. Each alternates between what it compares and keeps every round."""

from __future__ import annotations

import shlex
import statistics
from functools import partial
from typing import Any

import vecdb
from vecdb_bench.serving import servers
from vecdb_bench.serving.client_driver import EXTRAS
from vecdb_bench.serving.lineup import Found, Lineup, median, median_ratio


def single(lineup: Lineup) -> Found:
    """One client: the time that gRPC adds to a call of the embedded database."""
    turns = {
        "embedded": lineup.searches(lineup.embedded),
        "vecdb, bare client": lineup.closed("vecdb", lineup.vecdb.pid, 1),
        "vecdb, its client": lineup.searches(lineup.remote),
        "echo, bare client": lineup.closed("echo", lineup.echo.pid, 1),
    }
    rounds = lineup.alternate(turns)
    added = {
        name: statistics.median(
            there["p50_us"] - here["p50_us"] for there, here in zip(turns, rounds["embedded"], strict=True)
        )
        for name, turns in rounds.items()
    }
    return {"rounds": rounds, "added_us": added, "medians": {name: median(turns) for name, turns in rounds.items()}}


def rate(lineup: Lineup) -> Found:
    """Many clients in one load process: the rate beside the echo's, and the server's CPU time for a request."""
    found: Found = {}
    kernel_us = statistics.median(
        lineup.embedded.ask(do="batch", limit=lineup.plan.limit)["us"] for _ in range(lineup.plan.rounds)
    )
    for clients in lineup.plan.clients:
        lineup.say(f"{clients} clients")
        rounds = lineup.alternate(
            {
                "echo": lineup.closed("echo", lineup.echo.pid, clients),
                "vecdb": lineup.closed("vecdb", lineup.vecdb.pid, clients),
                "embedded": lineup.searches(lineup.embedded),
            }
        )
        cost = statistics.median(
            served["server_cpu_us"] - echoed["server_cpu_us"]
            for served, echoed in zip(rounds["vecdb"], rounds["echo"], strict=True)
        )
        found[str(clients)] = {
            "rounds": rounds,
            "ratio": median_ratio(rounds["vecdb"], rounds["echo"], "per_second"),
            "cpu_above_echo_us": cost,
            "cpu_above_echo_and_kernel_us": cost - kernel_us,
            "cpu_above_echo_and_call_us": cost - median(rounds["embedded"])["cpu_us"],
            "kernel_us": kernel_us,
            "medians": {name: median(turns) for name, turns in rounds.items()},
        }
    return found


def batch(lineup: Lineup) -> Found:
    """Queries a second with many queries in a call, beside one in a call."""
    plan = lineup.plan
    rounds = lineup.alternate(
        {
            "one a call": lineup.closed("vecdb", lineup.vecdb.pid, plan.clients[0]),
            "many a call": lineup.closed("vecdb, many", lineup.vecdb.pid, plan.callers),
        }
    )
    for turn in rounds["many a call"]:
        turn["queries_per_second"] = turn["per_second"] * plan.batch
    for turn in rounds["one a call"]:
        turn["queries_per_second"] = turn["per_second"]
    return _compared(rounds, "many a call", "one a call", "queries_per_second")


def stream(lineup: Lineup) -> Found:
    """Single queries over bidirectional streams, beside unary calls."""
    rounds = lineup.alternate(
        {
            "calls": lineup.closed("vecdb", lineup.vecdb.pid, lineup.plan.clients[0]),
            "streams": lineup.streamed("vecdb, stream", lineup.vecdb.pid),
            "echo's streams": lineup.streamed("echo, stream", lineup.echo.pid),
        }
    )
    return _compared(rounds, "streams", "calls", "per_second")


def variants(lineup: Lineup) -> Found:
    """The server with other flags beside the server without them, for one client and for many."""
    found: Found = {}
    for name, flags in lineup.plan.variants.items():
        lineup.say(f"variant {name}: {flags}")
        server = lineup.serve(lineup.copy(f"variant-{len(found)}"), shlex.split(flags))
        lineup.connect(name, server.target, servers.SEARCH, lineup.one)
        found[name] = {"flags": flags}
        for clients in (1, *lineup.plan.clients):
            rounds = lineup.alternate(
                {
                    "as it is": lineup.closed("vecdb", lineup.vecdb.pid, clients),
                    name: lineup.closed(name, server.pid, clients),
                }
            )
            found[name][str(clients)] = _compared(rounds, name, "as it is", "per_second")
        server.close()
    return found


def peers(lineup: Lineup) -> Found:
    """A peer's server at the lowest effort that reaches the recall: the same data and load, one query a call."""
    found: Found = {}
    for name, python in lineup.plan.peers.items():
        lineup.say(f"building {name}")
        peer = lineup.add(servers.Milvus(python, lineup.folder, lineup.data.metric, lineup.plan.limit))
        if not peer.built["index_files"]:
            raise vecdb.Unavailable(f"{name} has built no graph: its scans are nothing to compare with")
        effort, recall = _reach_recall(lineup, name, peer)
        found[name] = {"effort": effort, "recall": recall, "built": peer.built}
        for clients in (1, *lineup.plan.clients):
            rounds = lineup.alternate(
                {
                    name: lineup.closed(name, peer.pid, clients),
                    "vecdb": lineup.closed("vecdb", lineup.vecdb.pid, clients),
                }
            )
            found[name][str(clients)] = _compared(rounds, "vecdb", name, "per_second")
        peer.close()
    return found


def _reach_recall(lineup: Lineup, name: str, peer: servers.Milvus) -> tuple[int, float]:
    """(effort, recall) of the lowest effort that reaches the recall. Connects the load generator to it as `name`."""
    recall = 0.0
    for effort in peer.efforts:
        requests = peer.requests(effort, lineup.folder / f"requests-{effort}")
        answers = lineup.folder / f"answers-{effort}"
        lineup.connect(name, peer.target, peer.method, requests)
        lineup.load.ask(do="answers", name=name, count=min(300, len(lineup.data.queries)), file=str(answers))
        recall = lineup.recall_of(peer.rows(answers))
        if recall >= lineup.plan.recall:
            break
    return effort, recall


def ingest(lineup: Lineup) -> Found:
    """A bulk upsert through the client's stream, beside the embedded call: vectors alone, with fields, with tenants."""
    plan, numbers = lineup.plan, iter(range(1_000_000))

    def turn(program: Any, extra: str) -> Found:
        answer: Found = program.ask(
            do="ingest", name=f"bulk-{next(numbers)}", rows=plan.ingest_rows, dim=plan.ingest_dim, extra=extra
        )
        assert answer["count"] == plan.ingest_rows, "an acknowledged row is missing"
        return answer

    found: Found = {}
    for extra in EXTRAS:
        lineup.say(f"bulk ingest: {extra}")
        turns = {
            "embedded": partial(turn, lineup.embedded, extra),
            "stream": partial(turn, lineup.remote, extra),
        }
        found[extra] = _compared(lineup.alternate(turns), "stream", "embedded", "rows_per_second")
    return found


def _compared(rounds: dict[str, list[Found]], over: str, under: str, figure: str) -> Found:
    return {
        "rounds": rounds,
        "ratio": median_ratio(rounds[over], rounds[under], figure),
        "medians": {name: median(turns) for name, turns in rounds.items()},
    }
