"""A ledger of what writers heard, while servers are killed or told to end under them, and who keeps it.

Every block of ten records has one writer, which repeats a change under one request id until it is answered. The
ledger says how far the writer is, and each state of a block follows from its changes alone: whoever reads a block must
find all ten records in one state, which lies between what was acknowledged before and what was intended after.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

import vecdb
from tests.support.server.driver import Client, int_ids, names, write_request
from vecdb.v1 import records_pb2, tenants_pb2

DIM, ROWS, TENANTS = 8, 10, ("acme", "beta")
# RESOURCE_EXHAUSTED: there was less patience than work.   CANCELLED: a server that ends has not taken the call in yet
RESUMED = {grpc.StatusCode[name] for name in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED")}
PAUSE_S = 0.02  # where there is no server: one that is being started shall have the processor
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
                answer = rpc(request, metadata=self.client.metadata, timeout=patience_s)
                break
            except grpc.RpcError as error:
                assert error.code() in RESUMED, error
                self.repeats += 1
                if self.stop.is_set() or (error.code() is grpc.StatusCode.UNAVAILABLE and self.stop.wait(PAUSE_S)):
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

    rows = 12_000  # of a bulk

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
