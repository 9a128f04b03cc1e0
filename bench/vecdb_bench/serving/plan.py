"""The plan: what to measure of the service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vecdb_bench.name_check import refuse_unknown

MEASURES = ("single", "rate", "batch", "stream", "variants", "peers", "ingest", "overload", "workers")
PEERS = ("milvus-lite",)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    recall : of every engine.   clients : numbers of clients of the closed loop.   seconds : of a turn.
    callers : clients that send `batch` queries a call, and streams with at most `window` unanswered queries.
    peers : interpreter by name.   variants : flags of `vecdb serve` by name; each is compared with the server without.
    workers : numbers of them, each a server; the first is what the others are compared with.   worker_clients : numbers
    of client processes for these.   cores : that server and load share; 0: all.
    overload : times the rate that the server reaches, with deadlines of `deadline_s`.
    kept : a folder in which the database stays for the next run.
    """

    dataset: str = "glove-50"
    folder: str | None = None
    rows: int | None = None
    queries: int = 1_000
    limit: int = 10
    recall: float = 0.95
    rounds: int = 5
    seconds: float = 2.0
    clients: tuple[int, ...] = (16, 64)
    callers: int = 4
    batch: int = 32
    window: int = 16
    measures: tuple[str, ...] = MEASURES
    peers: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    workers: tuple[int, ...] = (1, 2)
    worker_clients: tuple[int, ...] = (1, 4, 16)
    cores: int = 2
    ingest_rows: int = 100_000
    ingest_dim: int = 384
    overload: float = 10.0
    overload_seconds: float = 60.0
    deadline_s: float = 1.0
    kept: str | None = None
    path: str | None = None

    def quick(self) -> Plan:
        """The same plan at small sizes: its results have the right form, but say nothing of speed."""
        return replace(
            self, queries=100, rounds=1, seconds=0.2, clients=(4,), callers=2, batch=8, window=4, worker_clients=(2,),
            ingest_rows=3_000, ingest_dim=16, overload=2.0, overload_seconds=1.0,
        )  # fmt: skip

    def check(self) -> None:
        """Refuse unknown names before anything is built."""
        refuse_unknown(self.measures, MEASURES, "measure")
        refuse_unknown(tuple(self.peers), PEERS, "peer")
