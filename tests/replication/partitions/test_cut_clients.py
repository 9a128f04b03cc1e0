"""A client whose server is cut off: each call ends by itself with an error that says so, and later ones go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.replication.network import ANSWERS, BOTH, Link, network, why_none
from tests.support.server.process import Process

pytestmark = pytest.mark.slow

VECTORS = np.random.default_rng(1).normal(size=(20_000, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    if (reason := why_none()) is not None:
        pytest.skip(f"no namespaces here: {reason}")
    with network("a") as net:
        yield net["a"]


@pytest.fixture(autouse=True)
def _healed(link: Link) -> Iterator[None]:
    yield
    link.heal()


@pytest.fixture(scope="module")
def docs(link: Link, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder: Path = tmp_path_factory.mktemp("server")
    with Process(folder / "db", folder, "--insecure", listen=f"{link.address}:0", prefix=link.prefix) as server:
        with vecdb.open(f"grpc://{link.address}:{server.ports()[0]}", insecure=True) as db:
            made = db.create_collection("docs", 8, "l2")
            made.upsert(range(len(VECTORS)), VECTORS)
            yield made


@pytest.mark.parametrize("way", [BOTH, ANSWERS])
def test_calls_and_lists_end_and_the_next_goes_on(way: str, link: Link, docs: Any) -> None:
    short = docs.with_timeout(2)
    seen = 0
    with pytest.raises(vecdb.Unavailable, match="cannot be reached"):
        for part in docs.iter(10, include_vectors=True):
            seen += len(part)
            if link.is_cut is None:
                link.cut(way)
    assert 10 <= seen < len(VECTORS)
    for call in (lambda: short.search(VECTORS[0], 3), lambda: short.upsert([1], VECTORS[1:2]), lambda: short.get([1])):
        with pytest.raises(vecdb.Unavailable):
            call()
    link.heal()
    assert docs.upsert([1], VECTORS[1:2]) == 1 and len(docs) == len(VECTORS)
    assert docs.search(VECTORS[7], 1).ids.tolist() == [7]
