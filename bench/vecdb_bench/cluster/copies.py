"""Backups, copies and their takeover: how long they take, and what they send."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.child_process import modules_path
from vecdb_bench.cluster.lineup import Found, Lineup, Meanwhile, bytes_below, fill, filled
from vecdb_bench.runner import latencies_ms
from vecdb_bench.serving.client_driver import COLLECTION
from vecdb_bench.serving.servers import Vecdb

_VISIBLE_S = 30.0
_COMMAND = [sys.executable, "-c", "from vecdb.cli import main; main()"]
_OPEN = """
import json, sys, time, vecdb
began = time.perf_counter()
vecdb.open(":memory:").close()
loaded = time.perf_counter() - began
began = time.perf_counter()
db = vecdb.open(sys.argv[1], read_only=sys.argv[2] == "reading")
opened = time.perf_counter()
count = db[sys.argv[3]].count()
print(json.dumps({"open": opened - began, "count": time.perf_counter() - opened, "records": count,
                  "modules before": loaded}))
"""


def backup(lineup: Lineup) -> Found:
    """The first backup, the next ones of an unchanged database and of one with a few changes; a restore, whose records
    are compared one by one.
    """
    plan, folder = lineup.plan, lineup.folder
    data, url = lineup.data(plan.rows_of("backup")), lineup.store("backups")
    sent: list[Found] = []
    with vecdb.open(folder / "db") as db:
        docs = fill(db, data, vecdb.Flat())

        def back_up(what: str) -> None:
            before, began = bytes_below(folder / "backups"), time.perf_counter()
            db.backup(url)
            took = time.perf_counter() - began
            here = plan.store is None
            sent.append({"backup": what, "seconds": took, "bytes": bytes_below(folder / "backups") - before if here
                         else None})  # fmt: skip
            lineup.say(f"backup, {what}: {took:.2f} s")

        back_up("first")
        for _ in range(plan.rounds):
            back_up("unchanged")
        some = np.arange(100)
        docs.upsert(some, data.base[some])
        back_up("after 100 upserts")
    began = time.perf_counter()
    vecdb.restore(url, folder / "restored")
    seconds = time.perf_counter() - began
    wrong = _differences(folder / "restored", data.base)
    return {
        "sent": sent,
        "restore_seconds": seconds,
        "records_that_differ": wrong,
        "tables": {f"backups of {len(data.base):,} x {data.dim}; restored in {seconds:.1f} s, {wrong} differ": sent},
    }


def _differences(database: Path, base: Any) -> int:
    """Records that are not those of an array, or missing, or too many; all are read."""
    seen = np.zeros(len(base), bool)
    wrong = 0
    with vecdb.open(database) as db:
        assert db.check() == []
        for page in db[COLLECTION].iter(10_000, include_vectors=True):
            ids = np.array([one.id for one in page])
            same = (np.stack([one.vector for one in page]) == base[ids]).all(axis=1) & ~seen[ids]
            seen[ids] = True
            wrong += int((~same).sum())
    return wrong + int((~seen).sum())


def beside(lineup: Lineup) -> Found:
    """Searches of one thread, alone and while whole backups are made, in turns."""
    plan = lineup.plan
    data = lineup.data(plan.rows_of("beside"))
    queries = lineup.queries(data, 1_000)
    rounds: list[Found] = []
    with vecdb.open(lineup.folder / "db", maintenance=False) as db:  # for which a backup would wait
        docs = fill(db, data, vecdb.Hnsw())
        docs.optimize()
        ways = {
            "by the graph": {"params": vecdb.SearchParams(ef=64)},
            "exact": {"params": vecdb.SearchParams(exact=True)},
        }
        for at in range(plan.rounds):
            for way, how in ways.items():
                idle = latencies_ms(_searches(docs, queries, plan.seconds, how))
                with _Backups(db, lineup.store(f"round-{at}-{len(rounds)}")) as made:
                    busy = latencies_ms(_searches(docs, queries, plan.seconds, how))
                rounds.append(
                    {"way": way, "round": at + 1, "backups": made.count}
                    | {f"idle {mark} ms": idle[mark] for mark in ("p50", "p99", "max")}
                    | {f"beside {mark} ms": busy[mark] for mark in ("p50", "p99", "max")}
                    | {"p99 ratio": busy["p99"] / idle["p99"]}
                )
    return {"rounds": rounds, "tables": {f"searches of {len(data.base):,} x {data.dim} beside backups": rounds}}


class _Backups(Meanwhile):
    """One whole backup after another."""

    def __init__(self, db: Any, url: str) -> None:
        self._db, self._url = db, url
        self.count = 0

    def _once(self) -> None:
        self._db.backup(f"{self._url}/{self.count}")
        self.count += 1


def _searches(docs: Any, queries: Any, seconds: float, how: Any) -> list[float]:
    for query in queries[:20]:
        docs.search(query, 10, **how)
    times, at, ends = [], 0, time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        docs.search(queries[at % len(queries)], 10, **how)
        times.append(time.perf_counter() - began)
        at += 1
    return times


def open_(lineup: Lineup) -> Found:
    """A process opens a database, and counts, what it has read before still in the system's memory."""
    plan = lineup.plan
    data = lineup.data(plan.rows_of("open"))
    filled(lineup.folder / "db", data, vecdb.Flat())
    rows = []
    for at in range(plan.rounds):
        for way in ("writing", "reading"):
            done = subprocess.run(
                [sys.executable, "-c", _OPEN, str(lineup.folder / "db"), way, COLLECTION],
                env=os.environ | modules_path(), capture_output=True, text=True, check=True,
            )  # fmt: skip
            rows.append({"way": way, "round": at + 1} | json.loads(done.stdout))
    return {"rounds": rows, "tables": {f"seconds to open {len(data.base):,} x {data.dim}": rows}}


_TAKES_OVER = """
import sys, time, numpy as np, vecdb
path, log, name, dim = sys.argv[1:]
copy = vecdb.open(path, follow=log)
copy.wait_for(copy.sequence())
copy[name].count()
print("follows", flush=True)
began = float(sys.stdin.readline())
copy.close()
vecdb.promote(path, log)
with vecdb.open(path, log=log) as db:
    db[name].upsert([20_000_000], np.zeros((1, int(dim)), np.uint8))
    print(time.monotonic() - began, flush=True)
"""


def promote(lineup: Lineup) -> Found:
    """A server is killed; its copy stops, is promoted by the command, serves, and acknowledges a write: by commands,
    each a process that starts; and by a program that has the copy open.
    """
    plan = lineup.plan
    data = lineup.data(plan.rows_of("promote"))
    filled(lineup.folder / "start", data, vecdb.Flat())
    log, path = lineup.store("log"), lineup.folder / "start"
    server = lineup.serve(path, "--log", log)
    rows: list[Found] = []
    for at in range(plan.rounds):
        next_path = lineup.folder / f"copy-{at}"
        copy = lineup.serve(next_path, "--follow", log)
        with vecdb.open(f"grpc://{server.target}") as db:
            db[COLLECTION].upsert([at], data.base[:1])
            sequence = db.sequence()
        with vecdb.open(f"grpc://{copy.target}") as db:
            db.wait_for(sequence, timeout=_VISIBLE_S)
        rows.append({"round": at + 1} | _taken_over(lineup, server, copy, next_path, log, data.base[:1]))
        lineup.say(f"taken over after {rows[-1]['seconds']:.2f} s")
        server, path = rows[-1].pop("server"), next_path
        rows[-1]["by one program"] = _by_one_program(lineup, server, lineup.folder / f"program-{at}", log, data.dim)
        server = lineup.serve(lineup.folder / f"program-{at}", "--log", log)
    return {"rounds": rows, "tables": {f"seconds from the kill to a write, {len(data.base):,} x {data.dim}": rows}}


def _by_one_program(lineup: Lineup, server: Vecdb, path: Path, log: str, dim: int) -> float:
    """server : which is killed.   path : of a copy that is made."""
    with subprocess.Popen(
        [sys.executable, "-c", _TAKES_OVER, str(path), log, COLLECTION, str(dim)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | modules_path(),
    ) as program:  # fmt: skip
        assert program.stdin is not None and program.stdout is not None
        program.stdout.readline()
        began = time.monotonic()
        os.kill(server.pid, signal.SIGKILL)
        program.stdin.write(f"{began}\n")
        program.stdin.flush()
        return float(program.stdout.readline())


def _taken_over(lineup: Lineup, server: Vecdb, copy: Vecdb, path: Path, log: str, vector: Any) -> Found:
    """server, copy : that writes, and that is to write."""
    began = time.perf_counter()
    os.kill(server.pid, signal.SIGKILL)
    copy.close()
    stopped = time.perf_counter()
    subprocess.run([*_COMMAND, "promote", str(path), log], env=os.environ | modules_path(), check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    promoted = time.perf_counter()
    made = lineup.serve(path, "--log", log)
    with vecdb.open(f"grpc://{made.target}") as db:
        db[COLLECTION].upsert([10_000_000], vector)
        ended = time.perf_counter()
    return {
        "seconds": ended - began,
        "copy ended": stopped - began,
        "promoted": promoted - stopped,
        "served and wrote": ended - promoted,
        "server": made,
    }


def visible(lineup: Lineup) -> Found:
    """From the acknowledgement of a write until a copy, of another process, has the record."""
    plan, rows = lineup.plan, []
    data = lineup.data(plan.rows_of("visible"))
    for durability in ("full", "remote"):
        log, name = lineup.store(f"log-{durability}"), f"db-{durability}"
        filled(lineup.folder / name, data, vecdb.Flat())
        server = lineup.serve(lineup.folder / name, "--log", log, "--durability", durability)
        copy = lineup.serve(lineup.folder / f"copy-{durability}", "--follow", log)
        rng = np.random.default_rng(1)
        acknowledged, seen = [], []
        with vecdb.open(f"grpc://{server.target}") as db, vecdb.open(f"grpc://{copy.target}") as other:
            for at in range(plan.writes):
                time.sleep(float(rng.random()) * 0.3)  # at any moment between two looks of the copy
                began = time.perf_counter()
                db[COLLECTION].upsert([10_000_000 + at], data.base[:1])
                wrote = time.perf_counter()
                acknowledged.append(wrote - began)
                while other[COLLECTION].get(10_000_000 + at) is None:
                    if time.perf_counter() - wrote > _VISIBLE_S:
                        raise vecdb.Unavailable(f"the copy did not get record {at}")
                seen.append(time.perf_counter() - wrote)
        marks, wrote_in = latencies_ms(seen), latencies_ms(acknowledged)
        rows.append(
            {"durability": durability, "writes": len(seen)}
            | {f"visible {mark} ms": marks[mark] for mark in ("p50", "p99", "max")}
            | {f"write {mark} ms": wrote_in[mark] for mark in ("p50", "p99")}
        )
    return {"rows": rows, "tables": {"from the acknowledgement to the copy": rows}}
