"""The plan: what to measure of a database that is more than one directory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import vecdb
from vecdb_bench.name_check import refuse_unknown

MEASURES = ("backup", "beside", "open", "promote", "visible", "router", "lists", "jobs")
_ROWS = {"beside": 150_000, "router": 50_000, "lists": 100_000, "visible": 1_000}  # otherwise a million
_INDEXES: dict[str, type[vecdb.Hnsw | vecdb.Spann]] = {"hnsw": vecdb.Hnsw, "spann": vecdb.Spann}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    dataset : a name of `dataset list`; None: clustered bytes of `dim`.
    rows : of the database; None: as many as each measure is made for.
    shards : 0 for as many as each measure is made for.   index : of `jobs`, hnsw or spann.
    queries : None for as many as each measure is made for.   batch : queries of a call of `router`.
    seconds : of a turn.   rounds : of what is measured in turns.
    store : URL of an empty place in a bucket; None: a folder of this machine.   path : for files of this run.
    """

    measures: tuple[str, ...] = MEASURES
    dataset: str | None = None
    rows: int | None = None
    dim: int = 128
    shards: int = 0
    index: str = "hnsw"
    queries: int | None = None
    batch: int = 20_000
    limit: int = 10
    recall: float = 0.95
    seconds: float = 3.0
    rounds: int = 5
    writes: int = 150
    store: str | None = None
    path: str | None = None

    def quick(self) -> Plan:
        """The same plan at small sizes: its results have the right form, but say nothing of speed."""
        return replace(
            self, rows=4_000, dim=16, queries=60, batch=80, seconds=0.1, rounds=1, writes=3, shards=2,
        )  # fmt: skip

    def check(self) -> None:
        """Refuse what cannot be measured before anything is built."""
        refuse_unknown(self.measures, MEASURES, "measure")
        refuse_unknown((self.index,), tuple(_INDEXES), "index")

    def rows_of(self, measure: str) -> int:
        return self.rows or _ROWS.get(measure, 1_000_000)

    def new_index(self) -> vecdb.Hnsw | vecdb.Spann:
        return _INDEXES[self.index]()
