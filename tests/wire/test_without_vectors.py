"""Goal: the bits of a write that say which records have no vector are read as they were written, or refused."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.v1 import records_pb2
from vecdb.wire.arrays import some_vectors_of, vectors_message, without_vectors_bits

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def request(vectors: np.ndarray | None, bits: bytes) -> records_pb2.WriteRequest:
    message = None if vectors is None else vectors_message(vectors)
    return records_pb2.WriteRequest(vectors=message, without_vectors=bits)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 16, 40])
def test_they_come_back(n: int) -> None:
    for seed in range(5):
        bare = np.random.default_rng(seed).random(n) < 0.5
        bare[0] = True
        vectors = np.random.default_rng(seed).normal(size=(int((~bare).sum()), 3)).astype(np.float32)
        found = some_vectors_of(request(vectors if len(vectors) else None, without_vectors_bits(bare)))
        assert (
            np.array_equal(found.bare, bare) and found.n == n and np.array_equal(found.vectors.ravel(), vectors.ravel())
        )


def test_without_bits_each_has_one() -> None:
    assert without_vectors_bits(None) == b"" and np.array_equal(some_vectors_of(request(VECTORS, b"")), VECTORS)


@pytest.mark.parametrize("bits", [b"\0", b"\1\0", b"\x81", b"\xff\xff", b"\0" * 40, b"\x10\x01"])
def test_bits_of_other_records_are_refused(bits: bytes) -> None:
    vectors = VECTORS if bits != b"\0" else np.resize(VECTORS, (9, 3))
    with pytest.raises(InvalidArgument, match="a bit for each of"):
        some_vectors_of(request(vectors, bits))


def test_more_bits_than_a_write_has_records_are_refused_first() -> None:
    with pytest.raises(LimitExceeded, match="records"):
        some_vectors_of(request(VECTORS, b"\0" * (1 << 20)))
