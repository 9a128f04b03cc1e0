"""Goal: what is warmed and opened for a measurement compiles no kernel in it, and has no thread at work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import vecdb
from vecdb import kernels

DIM = 24


def compiled() -> dict[str, int]:
    """How many versions of each kernel this process has."""
    found = {}
    for module in kernels.__all__:
        for name, one in vars(getattr(kernels, module, None) or object).items() if module != "cache_folder" else ():
            if hasattr(one, "signatures"):
                found[f"{module}.{name}"] = len(one.signatures)
    return found


def build_and_search(db: Any, index: Any) -> None:
    vectors = np.random.default_rng(2).normal(size=(4_800, DIM)).astype(np.float32)
    docs = db.create_collection(index.kind, DIM, "cosine", index)
    docs.upsert(range(len(vectors)), vectors)
    docs.optimize()
    docs.search(vectors[3], 5)
    docs.search(vectors[3], 5, params=vecdb.SearchParams(exact=True))


@pytest.mark.parametrize("index", [vecdb.Hnsw(m=8, ef_construction=40), vecdb.Flat()], ids=lambda one: one.kind)
def test_a_warmed_shape_compiles_nothing_when_it_is_built_and_searched(index: Any) -> None:
    vecdb.warm_up(DIM, "cosine", "float32", index)
    before = compiled()
    assert sum(before.values()) > 0
    with vecdb.open(":memory:", maintenance=False) as db:
        build_and_search(db, index)
    assert compiled() == before


def test_what_no_collection_can_be_is_refused() -> None:
    for bad in ((0,), (8, "hamming"), (8, "l2", "float8"), (8, "l2", "int8", "hnsw")):
        with pytest.raises(vecdb.InvalidArgument):
            vecdb.warm_up(*bad)


def test_without_maintenance_nothing_is_indexed_before_it_is_asked_for(tmp_path: Any) -> None:
    vectors = np.random.default_rng(2).normal(size=(6_000, 8)).astype(np.float32)
    with vecdb.open(tmp_path / "db", maintenance=False) as db:
        docs = db.create_collection("docs", 8, index=vecdb.Hnsw(m=4, ef_construction=20))
        docs.upsert(range(6_000), vectors)
        assert docs.search(vectors[0], explain=True).explain["indexed_rows"] == 0
        docs.optimize()
        assert docs.search(vectors[0], explain=True).explain["indexed_rows"] == 6_000
    with pytest.raises(vecdb.InvalidArgument, match="maintenance"):
        vecdb.open("grpc://localhost:1", maintenance=False)


def test_warming_up_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Rows without structure made lists of bytes a scan, of which a warning was printed."""
    vecdb.warm_up(64, "l2", "uint8", vecdb.Spann())
    assert caplog.records == []
