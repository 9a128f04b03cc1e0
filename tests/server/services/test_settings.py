"""Settings of a collection and of a search that travel in messages: as embedded."""

from __future__ import annotations

import numpy as np
import pytest

import vecdb
from tests.support.server.driver import Running
from vecdb.wire.messages import params_message, params_of

DIM = 8


def test_zero_vectors_are_taken_over_grpc_as_they_are_embedded(running: Running, vectors: np.ndarray) -> None:
    rows = vectors.copy()
    rows[::4] = 0
    with vecdb.open(f"grpc://{running.address}") as far, vecdb.open(":memory:") as near:
        for index in (vecdb.Flat(), vecdb.Hnsw()):
            found = []
            for db in (far, near):
                docs = db.create_collection(index.kind, DIM, "cosine", index, zero_vectors="far")
                docs.upsert(range(len(rows)), rows)
                assert db[index.kind].config.zero_vectors == "far"
                found.append(docs.search(np.concatenate([vectors[1:6], np.zeros((1, DIM))]), 200))
            assert (found[0].ids == found[1].ids).all() and (found[0].distances == found[1].distances).all()
            assert (found[0].distances == 1).sum(axis=1).tolist() == [50] * 5 + [200]
        plain = far.create_collection("plain", DIM)
        assert plain.config.zero_vectors == "refuse"
        for call in (lambda: plain.upsert(0, np.zeros(DIM)), lambda: plain.search(np.zeros(DIM))):
            with pytest.raises(vecdb.InvalidArgument, match="zero_vectors"):
                call()


def test_params_travel_whole() -> None:
    for params in (
        vecdb.SearchParams(nprobe=3, rerank=40),
        vecdb.SearchParams(ef=9, threads=2),
        vecdb.SearchParams(recall=0.5),
        vecdb.SearchParams(exact=True),
    ):
        message = params_message(params)
        assert message is not None and params_of(message) == params
