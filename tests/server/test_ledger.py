"""A server that is killed, or told to end, again and again under writers and readers, and a ledger of what they heard.

Every block of ten records has one writer, which repeats a change under one request id until it is answered. The
ledger says how far the writer is, and each state of a block follows from its changes alone: whoever reads a block must
find all ten records in one state, which lies between what was acknowledged before and what was intended after.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import vecdb
from tests.support.server.driver import FAST_RECONNECTS, Client, int_ids, names, until_ready, write_request
from tests.support.server.process import Process
from vecdb.v1 import records_pb2, tenants_pb2

DIM, ROWS, TENANTS = 8, 10, ("acme", "beta")
# RESOURCE_EXHAUSTED: there was less patience than work.   CANCELLED: a server that ends has not taken the call in yet
RESUMED = {grpc.StatusCode[name] for name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED")}
State = tuple[int, frozenset[str]] | None  # version and tenants; None: not there


def vectors_of(ids: Any, version: int) -> np.ndarray:
    """They say whose they are, and of which version."""
    made = np.ones((len(ids), DIM), np.float32)
    made[:, 0] = np.array(ids) % 1_000_000
    made[:, 1] = np.array(ids) // 1_000_000
    made[:, 2] = version
    return made


@dataclass
class Block:
    """Ten records. states : after each change, the first before all.   acknowledged : the last change heard of."""

    start: int
    states: list[State] = field(default_factory=lambda: [None])
    acknowledged: int = 0

    @property
    def ids(self) -> range:
        return range(self.start, self.start + ROWS)

    def check(self, records: list[Any], since: int) -> None:
        """records : as they were read after change `since` was acknowledged."""
        seen = {None if one is None else (int(one.vector[2]), frozenset(one.tenants)) for one in records}
        assert len(seen) == 1, f"half a change of {self.start}: {seen}"
        possible = self.states[since:]
        assert seen <= set(possible), f"{self.start}: {seen}, where {possible[0]} was acknowledged"
        for id, one in zip(self.ids, records, strict=True):
            if one is not None:
                assert np.array_equal(one.vector, vectors_of([id], int(one.vector[2]))[0])


class Worker(threading.Thread):
    """Goes on until it is told to stop, and keeps what went wrong."""

    def __init__(self, number: int, stop: threading.Event) -> None:
        super().__init__()
        self.number, self.stop = number, stop
        self.rng = np.random.default_rng(number)
        self.done = self.repeats = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.step()
        except BaseException as error:
            self.error = error

    def step(self) -> None:
        raise NotImplementedError


class Writer(Worker):
    """Inserts, overwrites, grants, revokes and deletes whole blocks; often without the patience to hear the answer."""

    def __init__(self, number: int, stop: threading.Event, client: Client) -> None:
        super().__init__(number, stop)
        self.client = client
        self.blocks: list[Block] = []

    def step(self) -> None:
        if not self.blocks or self.rng.integers(4) == 0:
            self.blocks.append(Block(self.number * 1_000_000 + len(self.blocks) * ROWS))
        block = self.blocks[int(self.rng.integers(max(0, len(self.blocks) - 20), len(self.blocks)))]
        number = len(block.states)
        rpc, request, state = self._change(block, number)
        request.request_id = f"{block.start}-{number}"
        block.states.append(state)
        while True:
            try:
                patience_s = float(self.rng.choice([0.002, 0.005, 0.01, 5]))
                answer = rpc(request, timeout=patience_s)
                break
            except grpc.RpcError as error:
                assert error.code() in RESUMED, error
                self.repeats += 1
                if self.stop.is_set():
                    return
        assert answer.count == ROWS, f"{request.request_id} was applied to {answer.count}: a second time?"
        block.acknowledged = number
        self.done += 1

    def _change(self, block: Block, number: int) -> tuple[Any, Any, State]:
        """rpc, request and what the block is afterwards; every change changes ten records, or ten pairs."""
        state, records = block.states[-1], self.client.records
        vectors = vectors_of(block.ids, number)
        if state is None:
            request = write_request("docs", block.start, vectors, tenants=names("acme"))
            request.mode = records_pb2.WRITE_MODE_INSERT
            return records.Write, request, (number, frozenset({"acme"}))
        version, tenants = state
        kind, ids = int(self.rng.integers(4)), int_ids(block.ids)
        if kind == 0:
            return records.Delete, records_pb2.DeleteRequest(collection="docs", ids=ids), None
        if kind == 1:
            return records.Write, write_request("docs", block.start, vectors), (number, tenants)
        name = TENANTS[int(self.rng.integers(2))]
        settings = {"collection": "docs", "ids": ids, "tenants": names(name)}
        if name in tenants:
            return self.client.tenants.Revoke, tenants_pb2.RevokeRequest(**settings), (version, tenants - {name})
        return self.client.tenants.Grant, tenants_pb2.GrantRequest(**settings), (version, tenants | {name})


class Streamer(Worker):
    """Inserts bulks by a stream of batches that resumes by itself: what was written twice would be there already."""

    rows = 12_000

    def __init__(self, number: int, stop: threading.Event, docs: vecdb.Collection) -> None:
        super().__init__(number, stop)
        self.docs = docs

    def step(self) -> None:
        ids = range(self.done * self.rows, (self.done + 1) * self.rows)
        vectors = np.full((self.rows, self.docs.dim), self.done, np.float32)
        assert self.docs.insert(ids, vectors, [{"n": n} for n in ids], atomic=False) == self.rows
        self.done += 1
        self.stop.wait(1.0)  # writers shall be heard as well


class Reader(Worker):
    """Reads and searches through the client, which finds the server again by itself."""

    def __init__(self, number: int, stop: threading.Event, docs: vecdb.Collection, writers: list[Writer]) -> None:
        super().__init__(number, stop)
        self.docs, self.writers = docs, writers

    def step(self) -> None:
        try:
            self._read()
            self.done += 1
        except vecdb.Unavailable:
            self.repeats += 1

    def _read(self) -> None:
        writer = self.writers[int(self.rng.integers(len(self.writers)))]
        if not writer.blocks:
            return
        block = writer.blocks[int(self.rng.integers(len(writer.blocks)))]
        since = block.acknowledged
        block.check(self.docs.get(block.ids, include_vectors=True), since)
        hits = self.docs.search(vectors_of([block.start], since)[0], 20, include_vectors=True)
        assert len(set(hits.ids.tolist())) == len(hits.ids) and (np.diff(hits.distances) >= 0).all()
        for id, vector in zip(hits.ids.tolist(), hits.vectors, strict=True):
            assert np.array_equal(vector, vectors_of([id], int(vector[2]))[0])


def check_all(docs: vecdb.Collection, writers: list[Writer]) -> int:
    """How many records are there, in blocks that are what the ledger says."""
    there = 0
    for writer in writers:
        blocks = list(writer.blocks)
        since = [block.acknowledged for block in blocks]
        records = docs.get([id for block in blocks for id in block.ids], include_vectors=True)
        for i, block in enumerate(blocks):
            block.check(records[i * ROWS : (i + 1) * ROWS], since[i])
        there += sum(one is not None for one in records)
    return there


def restarted_under_load(folder: Path, *, rounds: int, changes: int, kill: bool) -> None:
    """changes : that each writer hears of between two ends of the server."""
    stop = threading.Event()
    current = [Process(folder / "db", folder, "--grace-s", "10")]
    port = current[0].ports()[0]
    raw = Client(current[0].address, **FAST_RECONNECTS)
    until_ready(raw)
    far = vecdb.open(f"grpc://localhost:{port}")
    docs = far.create_collection("docs", DIM, "l2")
    bulk = far.create_collection("bulk", 512, "l2", vecdb.Flat())
    docs.create_tenant(list(TENANTS))
    writers = [Writer(i + 1, stop, raw) for i in range(3)]
    streamer = Streamer(9, stop, bulk)
    workers: list[Worker] = [*writers, streamer, *(Reader(20 + i, stop, docs, writers) for i in range(2))]
    try:
        for worker in workers:
            worker.start()
        for _ in range(rounds):
            goals = [writer.done + changes for writer in writers]
            while any(one.done < goal and one.is_alive() for one, goal in zip(writers, goals, strict=True)):
                stop.wait(0.01)
            if kill:
                current[0].kill()
            else:
                assert current[0].end() == 0
            current[0].__exit__()
            current[0] = Process(folder / "db", folder, "--grace-s", "10", listen=f"127.0.0.1:{port}")
            current[0].ports()
            until_ready(raw)
            check_all(docs, writers)
            assert [worker.error for worker in workers] == [None] * len(workers)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        far.close()
        raw.close()
        ended = current[0].end()
        current[0].__exit__()
    assert [worker.error for worker in workers] == [None] * len(workers)
    assert ended == 0 and all(worker.done for worker in workers)
    assert sum(writer.repeats for writer in writers) > 0, "no end of the server met a write"
    with vecdb.open(folder / "db", read_only=True) as db:
        assert db.check() == []
        near = db.collection("docs")
        there = check_all(near, writers)
        assert near.count() == there, "what nobody wrote"
        assert len([one for writer in writers for one in writer.blocks]) * ROWS > 100
        stats = db.collection("bulk").stats()
        assert stats["live"] == stats["rows"] == streamer.done * streamer.rows, "a batch was written twice, or never"


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "told to end"])
def test_no_acknowledged_change_is_lost_and_none_is_applied_twice(tmp_path: Path, kill: bool) -> None:
    restarted_under_load(tmp_path, rounds=1, changes=15, kill=kill)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [True, False], ids=["killed", "told to end"])
def test_nor_in_twenty_rounds(tmp_path: Path, kill: bool) -> None:
    restarted_under_load(tmp_path, rounds=20, changes=100, kill=kill)
