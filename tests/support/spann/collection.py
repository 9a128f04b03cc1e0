"""What tests of collections over posting lists share: indexes under several budgets, sizes, recall."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.corpus import EXACT
from vecdb.index.spann.spann_index import SpannIndex
from vecdb.schema import SearchParams, Spann

DIM = 32
KINDS = {"memory": Spann(), "disk": Spann(memory_budget_bytes=0), "both": Spann(memory_budget_bytes=6_000)}


def index_of(docs: Any) -> SpannIndex:
    index = docs._backend.state.snapshot.generation.index
    assert isinstance(index, SpannIndex)
    return index


def lengths_of(docs: Any) -> np.ndarray:
    snapshot = index_of(docs).lists.view
    assert snapshot is not None
    return snapshot.lengths


def held_bytes(docs: Any) -> int:
    """Bytes of codes in memory."""
    snapshot = index_of(docs).lists.view
    assert snapshot is not None
    return int(snapshot.body_bytes()[snapshot.body_offsets >= 0].sum())


def care(docs: Any) -> None:
    """What maintenance would come to do."""
    jobs = docs._backend.jobs
    jobs.index_tail(2, all_rows=True)
    jobs.repair(2)


def recall(docs: Any, queries: np.ndarray, params: SearchParams | None, limit: int = 10) -> float:
    near, true = docs.search(queries, limit, params=params), docs.search(queries, limit, params=EXACT)
    last = true.distances[:, -1:]
    return float((near.distances <= last + 1e-5 * np.maximum(1, np.abs(last))).mean())


def exact(docs: Any, queries: np.ndarray, limit: int = 10) -> bool:
    """Whether the answers of a plain search are those of an exact one."""
    near, true = docs.search(queries, limit), docs.search(queries, limit, params=EXACT)
    return bool(np.array_equal(near.ids, true.ids) and np.array_equal(near.distances, true.distances))
