"""What the model tests run on: setups, indexes that tens of records fill, low limits, a table of vectors, distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.planner_costs import set_planner_costs
from vecdb import limits
from vecdb.maintenance import index_jobs
from vecdb.storage.disk import id_column, row_file

DIM = 8
NAMES = ("a", "b", "c", "ü")  # tenants
IDS = 40  # distinct ids: few, so that they meet again and again
SMALL_GRAPH = {"m": 4, "ef_construction": 24, "ef": 8}
SMALL_LISTS = {"head_ratio": 0.25, "nprobe": 3, "rerank": 8}  # ten lists of at most twelve entries


@dataclass(frozen=True)
class Setup:
    """One configuration under test."""

    kind: str = "hnsw"
    metric: str = "l2"
    dtype: str = "float32"
    ids: str = "int"
    durability: str = "relaxed"
    memory: bool = True
    awkward: bool = False  # of vectors: see `awkward_table`

    @property
    def dim(self) -> int:
        return DIM if self.dtype != "bits" else 8 * DIM

    def __str__(self) -> str:
        place = "memory" if self.memory else self.durability
        values = "-awkward" if self.awkward else ""
        return f"{self.kind}-{self.metric}-{self.dtype}-{self.ids}-{place}{values}"


def index_of(kind: str) -> Any:
    return {
        "auto": None,
        "flat": vecdb.Flat(),
        "hnsw": vecdb.Hnsw(**SMALL_GRAPH),
        "hnsw-learned": vecdb.Hnsw(m=4, ef_construction=24),
        "hnsw-full": vecdb.Hnsw(**SMALL_GRAPH, quantization=None),
        "spann": vecdb.Spann(**SMALL_LISTS),
        "spann-disk": vecdb.Spann(**SMALL_LISTS, memory_budget_bytes=0),
        "spann-some": vecdb.Spann(**SMALL_LISTS, memory_budget_bytes=512),
        "spann-lossless": vecdb.Spann(**SMALL_LISTS, bits=8),
        "curator": vecdb.Curator(leaf_rows=4, shortlist_max=4, scan_max=6, nprobe=3),
        "curator-graph": vecdb.Curator(leaf_rows=4, shortlist_max=4),
    }[kind]


def kinds_for(setup: Setup) -> list[str]:
    """What a collection may be indexed anew as. Lists compile kernels for each dtype: not every setup meets them."""
    if setup.dtype == "bits":
        return ["auto", "flat", "hnsw", "hnsw-full", setup.kind]
    graphs = ["auto", "flat", "hnsw", "hnsw-full", "curator", "curator-graph"]
    lists = ["spann", "spann-disk", "spann-some"] if setup.dtype == "float32" or "spann" in setup.kind else []
    return [*graphs, *lists, setup.kind]


def small_limits(patch: pytest.MonkeyPatch) -> None:
    """Thresholds low enough that tens of records pass every one of them."""
    from vecdb.index.hnsw import filtered, graph
    from vecdb.maintenance import vacuum as vacuum_module

    patch.setattr(limits, "flat_rows_max", 4)
    patch.setattr(limits, "seal_rows_min", 8)
    patch.setattr(limits, "block_rows_max", 5)
    patch.setattr(limits, "changed_rows_logged", 6)
    set_planner_costs(
        patch,
        scan_share=1e9,  # a graph, once there, is walked whatever the beam
        scan_rows_per_width=0.0,  # and walked with a tenant's bitmap, however few its rows
        tenant_scan_rows=6,
        graph_live_min=8,  # a tree has a graph beside it once somebody sees much of ten rows
        graph_rows=4,
        scored_rows=4,
    )
    patch.setattr(filtered, "_SCAN_AT_ONCE", 0.0)  # a graph is walked among more than those few rows
    patch.setattr(limits, "index_step_rows", 4)
    patch.setattr(index_jobs, "_REPAIR_ROWS_MIN", 2)
    patch.setattr(index_jobs, "_SEAL_AT_CLOSE_ROWS", 4)
    patch.setattr(vacuum_module, "_PIECE_ROWS", 7)
    patch.setattr(limits, "journal_entry_pairs", 6)
    patch.setattr(limits, "merge_pairs", 2)
    patch.setattr(row_file, "_CAPACITY_MIN", 16)
    patch.setattr(id_column, "_CAPACITY_MIN", 8)
    patch.setattr(graph, "_CAPACITY_MIN", 16, raising=False)


def vector_table(setup: Setup) -> np.ndarray:
    """[64, DIM] stored dtype: clusters, copies of one vector, vectors far outside, signs; none zero."""
    if setup.awkward:
        return awkward_table(setup)
    rng = np.random.default_rng(5)
    table = rng.integers(1, 8, (64, DIM)).astype(np.float64)
    table[8:16] = table[8]  # one vector under many ids
    if setup.dtype == "bits":  # DIM bytes of eight
        table[16:] = rng.integers(0, 256, (48, DIM)) & rng.integers(1, 256, (48, DIM))
        table[60:] = [[0] * DIM, [255] * DIM, [1] + [0] * (DIM - 1), [128] * DIM]
        return table.astype(np.uint8)
    if setup.dtype.startswith("float"):
        table[16:40] = rng.normal(0, 3, (24, DIM))
        table[60:] *= 100
    elif setup.dtype == "int8":
        table[16:40] *= rng.choice([-1, 1], (24, DIM))
        table[60:] *= 15
    else:
        table[60:] *= 30
    return table.astype(setup.dtype)


def awkward_table(setup: Setup) -> np.ndarray:
    """[64, DIM] stored dtype: scales from the smallest to the largest that have distances, a constant in one dimension,
    a tight cluster, copies of one vector. In order of their kind, so that a history can drift through them.
    """
    rng = np.random.default_rng(6)
    table = rng.normal(0, 1, (64, DIM))
    table[8:16] = table[8]
    if setup.dtype.startswith("float"):
        scales = [1, 1, 1e-4, 1e-3, 1, 1e3, 1e4, 1] if setup.dtype == "float16" else _SCALES[setup.metric]
        table *= np.repeat(scales, 8)[:, None]
        table[32:40, 0] += 200
        table[56:] = 50 + 1e-2 * table[56:]
        most = np.finfo(setup.dtype).max / 2
        return np.clip(table, -most, most).astype(setup.dtype)
    low, high = np.iinfo(setup.dtype).min, np.iinfo(setup.dtype).max
    table[16:] = np.rint(table[16:] * 20 + (high + low) / 2)
    table[:16] = np.rint(np.abs(table[:16]) * 2 + 1)
    table[32:40, 0] = high
    table[40:48] = np.where(table[40:48] > (high + low) / 2, high, low)
    table[56:] = high // 2 + np.rint(table[56:] % 2)
    table[(table == 0).all(axis=1)] = 1
    return np.clip(table, low, high).astype(setup.dtype)


# a scale for each eight vectors; elements of 1e-20 have a norm and distances, of 1e-40 distances of 0 alone
_SCALES = {
    "l2": [1, 1, 1e-40, 1e-15, 1, 1e3, 1e15, 1],
    "ip": [1, 1, 1e-40, 1e-15, 1, 1e3, 1e15, 1],
    "cosine": [1, 1, 1e-15, 1e-6, 1, 1e3, 1e15, 1],
}


def distances_to(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """float64[n], from the definitions."""
    if metric in ("hamming", "jaccard"):
        one, others = np.unpackbits(query.astype(np.uint8)), np.unpackbits(vectors.astype(np.uint8), axis=1)
        shared, either = (one & others).sum(axis=1), (one | others).sum(axis=1)
        if metric == "hamming":
            return (either - shared).astype(np.float64)
        return 1 - shared / np.maximum(either, 1) - (either == 0)
    a, b = query.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return ((a - b) ** 2).sum(axis=1)
    if metric == "ip":
        return -(b @ a)
    return 1 - (b @ a) / (np.linalg.norm(b, axis=1) * np.linalg.norm(a))
