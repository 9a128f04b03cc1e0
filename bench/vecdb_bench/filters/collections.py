"""vecdb's collections of the data with its fields, one for each kind of index, in one database."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from vecdb_bench.filters.conditions import Data
from vecdb_bench.filters.plan import Plan

Say = Callable[[str], None]
_STEP = 2_000
_SAME = ("dataset", "rows", "queries", "parts", "peer_parts", "m", "ef_construction", "seed")  # of a plan, for a folder


def claim(plan: Plan, folder: Path) -> None:
    """Note in the folder what its indexes are of. Raises InvalidArgument where they are of something else."""
    now = json.dumps({name: asdict(plan)[name] for name in _SAME}, default=str)
    note = folder / "plan.json"
    if note.exists() and note.read_text(encoding="utf-8") != now:
        raise vecdb.InvalidArgument(f"{folder} has indexes of another plan: {note.read_text(encoding='utf-8')}")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(now, encoding="utf-8")


@contextmanager
def opened(plan: Plan, data: Data, kinds: Sequence[str], folder: Path, say: Say) -> Iterator[dict[str, Any]]:
    """A collection for each kind of index, built where it is not there yet."""
    with vecdb.open(folder / "vecdb") as db:
        found = {}
        for kind in kinds:
            docs = db.create_collection(
                kind, dim=data.base.shape[1], metric=data.metric, dtype=str(data.base.dtype), exist_ok=True,
                index=_index(kind, plan),
            )  # fmt: skip
            stored = docs.count()
            if stored < len(data.base):
                say(f"building vecdb {kind}")
                for start in range(stored, len(data.base), _STEP):
                    stop = min(len(data.base), start + _STEP)
                    docs.upsert(np.arange(start, stop), data.base[start:stop], fields=data.records(start, stop))
                docs.optimize(threads=plan.threads)
            found[kind] = docs
        yield found


def _index(kind: str, plan: Plan) -> Any:
    if kind == "hnsw":
        return vecdb.Hnsw(m=plan.m, ef_construction=plan.ef_construction)
    return {"flat": vecdb.Flat, "spann": vecdb.Spann, "curator": vecdb.Curator}[kind]()
