"""What is measured of a service, one function a measure: each alternates, and keeps every round."""

from __future__ import annotations

import shlex
import statistics
from functools import partial
from typing import Any

import vecdb
from vecdb_bench.serving.client_driver import BRINGS
from vecdb_bench.serving.lineup import Field, Found, median, median_ratio

from . import servers


def single(field: Field) -> Found:
    """One client: what gRPC adds to a call of the embedded database."""
    turns = {
        "embedded": field.searches(field.near),
        "vecdb, bare client": field.closed("vecdb", field.vecdb.pid, 1),
        "vecdb, its client": field.searches(field.far),
        "echo, bare client": field.closed("echo", field.echo.pid, 1),
    }
    rounds = field.alternate(turns)
    added = {
        name: statistics.median(
            there["p50_us"] - here["p50_us"] for there, here in zip(turns, rounds["embedded"], strict=True)
        )
        for name, turns in rounds.items()
    }
    return {"rounds": rounds, "added_us": added, "medians": {name: median(turns) for name, turns in rounds.items()}}


def rate(field: Field) -> Found:
    """Many clients of one load process: the rate beside the echo's, and what a request costs the server."""
    found: Found = {}
    kernel_us = statistics.median(
        field.near.ask(do="batch", limit=field.plan.limit)["us"] for _ in range(field.plan.rounds)
    )
    for clients in field.plan.clients:
        field.say(f"{clients} clients")
        rounds = field.alternate(
            {
                "echo": field.closed("echo", field.echo.pid, clients),
                "vecdb": field.closed("vecdb", field.vecdb.pid, clients),
                "embedded": field.searches(field.near),
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


def batch(field: Field) -> Found:
    """Many queries a call, beside one a call: queries a second."""
    plan = field.plan
    rounds = field.alternate(
        {
            "one a call": field.closed("vecdb", field.vecdb.pid, plan.clients[0]),
            "many a call": field.closed("vecdb, many", field.vecdb.pid, plan.callers),
        }
    )
    for turn in rounds["many a call"]:
        turn["queries_per_second"] = turn["per_second"] * plan.batch
    for turn in rounds["one a call"]:
        turn["queries_per_second"] = turn["per_second"]
    return _compared(rounds, "many a call", "one a call", "queries_per_second")


def stream(field: Field) -> Found:
    """Single queries over bidirectional streams, beside calls."""
    rounds = field.alternate(
        {
            "calls": field.closed("vecdb", field.vecdb.pid, field.plan.clients[0]),
            "streams": field.streamed("vecdb, stream", field.vecdb.pid),
            "echo's streams": field.streamed("echo, stream", field.echo.pid),
        }
    )
    return _compared(rounds, "streams", "calls", "per_second")


def variants(field: Field) -> Found:
    """The server with other flags beside the server without, one client and many."""
    found: Found = {}
    for name, flags in field.plan.variants.items():
        field.say(f"variant {name}: {flags}")
        server = field.serve(field.copy(f"variant-{len(found)}"), shlex.split(flags))
        field.connect(name, server.target, servers.SEARCH, field.one)
        found[name] = {"flags": flags}
        for clients in (1, *field.plan.clients):
            rounds = field.alternate(
                {
                    "as it is": field.closed("vecdb", field.vecdb.pid, clients),
                    name: field.closed(name, server.pid, clients),
                }
            )
            found[name][str(clients)] = _compared(rounds, name, "as it is", "per_second")
        server.close()
    return found


def peers(field: Field) -> Found:
    """A peer's server at the first effort that reaches the recall: same data, clients and load, one query a call."""
    found: Found = {}
    for name, python in field.plan.peers.items():
        field.say(f"building {name}")
        peer = field.add(servers.Milvus(python, field.folder, field.data.metric, field.plan.limit))
        if not peer.built["index_files"]:
            raise vecdb.Unavailable(f"{name} has built no graph: its scans are nothing to compare with")
        effort, recall = _settled(field, name, peer)
        found[name] = {"effort": effort, "recall": recall, "built": peer.built}
        for clients in (1, *field.plan.clients):
            rounds = field.alternate(
                {
                    name: field.closed(name, peer.pid, clients),
                    "vecdb": field.closed("vecdb", field.vecdb.pid, clients),
                }
            )
            found[name][str(clients)] = _compared(rounds, "vecdb", name, "per_second")
        peer.close()
    return found


def _settled(field: Field, name: str, peer: servers.Milvus) -> tuple[int, float]:
    """(effort, recall), and its requests connected under `name`."""
    recall = 0.0
    for effort in peer.efforts:
        requests = peer.requests(effort, field.folder / f"requests-{effort}")
        answers = field.folder / f"answers-{effort}"
        field.connect(name, peer.target, peer.method, requests)
        field.load.ask(do="answers", name=name, count=min(300, len(field.data.queries)), file=str(answers))
        recall = field.recall_of(peer.rows(answers))
        if recall >= field.plan.recall:
            break
    return effort, recall


def ingest(field: Field) -> Found:
    """A bulk by the stream of the client, beside the embedded call: vectors alone, with fields, with tenants."""
    plan, made = field.plan, iter(range(1_000_000))

    def turn(program: Any, bring: str) -> Found:
        said: Found = program.ask(
            do="ingest", name=f"bulk-{next(made)}", rows=plan.ingest_rows, dim=plan.ingest_dim, bring=bring
        )
        assert said["count"] == plan.ingest_rows, "an acknowledged row is missing"
        return said

    found: Found = {}
    for bring in BRINGS:
        field.say(f"bulk ingest: {bring}")
        turns = {
            "embedded": partial(turn, field.near, bring),
            "stream": partial(turn, field.far, bring),
        }
        found[bring] = _compared(field.alternate(turns), "stream", "embedded", "rows_per_second")
    return found


def _compared(rounds: dict[str, list[Found]], over: str, under: str, figure: str) -> Found:
    return {
        "rounds": rounds,
        "ratio": median_ratio(rounds[over], rounds[under], figure),
        "medians": {name: median(turns) for name, turns in rounds.items()},
    }
