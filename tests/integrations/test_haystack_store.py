"""Goal: what haystack asks of a document store, called and awaited, holds of the shipped one; then the retriever, files
of pipelines, and documents of all kinds.

The tests are haystack's own (`haystack.testing`). Documents without an embedding are records without a vector.
Embeddings come back as float32, so that is how they are compared.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
pytest.importorskip("haystack", reason="haystack-ai, of the extra [test], is not installed")

from haystack import Pipeline
from haystack.dataclasses import ByteStream, Document, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suite
from haystack.testing import document_store_async as async_suite
from haystack.utils import Secret

import vecdb
from tests.support.server.process import Process
from vecdb.embedded.open import open_database
from vecdb.integrations.haystack import VecdbDocumentStore, VecdbEmbeddingRetriever

NAMES = itertools.count()


@pytest.fixture(scope="module")
def memory() -> Iterator[vecdb.Database]:
    with open_database(":memory:", maintenance=False) as db:
        yield db


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    with Process(folder / "db", folder) as server:
        yield f"grpc://{server.address}"


@pytest.fixture(params=["memory", pytest.param("served", marks=pytest.mark.slow)])
def document_store(request: pytest.FixtureRequest) -> Iterator[VecdbDocumentStore]:
    store = VecdbDocumentStore.open(request.getfixturevalue(request.param), f"documents{next(NAMES)}")
    yield store
    store.close()


def _as_stored(documents: list[Document]) -> list[dict[str, Any]]:
    found = [one.to_dict(flatten=False) for one in documents]
    for one in found:
        if one["embedding"] is not None:
            one["embedding"] = np.array(one["embedding"], np.float32).tolist()
    return found


class AsStored:
    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert _as_stored(received) == _as_stored(expected)


class TestVecdbAsADocumentStore(
    AsStored,
    suite.DocumentStoreBaseExtendedTests,
    suite.CountDocumentsByFilterTest,
    suite.CountUniqueMetadataByFilterTest,
    suite.GetMetadataFieldsInfoTest,
    suite.GetMetadataFieldMinMaxTest,
    suite.GetMetadataFieldUniqueValuesTest,
):
    @pytest.fixture
    def document_store(self, document_store: VecdbDocumentStore) -> VecdbDocumentStore:  # type: ignore[override]
        return document_store

    def test_write_documents(self, document_store: Any) -> None:  # haystack leaves this one to stores
        document = Document(content="once")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])


ASYNC = [one for name, one in vars(async_suite).items() if name.endswith("AsyncTest")]


class TestVecdbAsAnAwaitedDocumentStore(AsStored, *ASYNC):  # type: ignore[misc]
    async def test_write_documents_async(self, document_store: Any) -> None:
        document = Document(content="once")
        assert await document_store.write_documents_async([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([document])


@pytest.mark.parametrize(
    ("module", "run", "least"),
    [(suite, TestVecdbAsADocumentStore, 81), (async_suite, TestVecdbAsAnAwaitedDocumentStore, 40)],
)
def test_every_test_of_the_suite_is_run(module: Any, run: type, least: int) -> None:
    """None that a newer haystack adds is left out unnoticed."""
    there = {name for one in vars(module).values() if isinstance(one, type) for name in vars(one)}
    tests = {name for name in there if name.startswith("test_")}
    assert tests == {name for name in dir(run) if name.startswith("test_")}
    assert len(tests) >= least


# -- searches --------------------------------------------------------------------------------------


def shelf(n: int = 30, dim: int = 6) -> tuple[list[Document], Any]:
    vectors = np.random.default_rng(2).normal(size=(n, dim)).astype(np.float32)
    documents = [
        Document(id=f"d{at}", content=f"text {at}", embedding=one.tolist(), meta={"half": at % 2, "n": at})
        for at, one in enumerate(vectors)
    ]
    return [*documents, Document(id="bare", content="no embedding", meta={"half": 1})], vectors


def test_the_retriever_finds_what_numpy_finds(document_store: VecdbDocumentStore) -> None:
    documents, vectors = shelf()
    assert document_store.write_documents(documents) == 31
    query = np.random.default_rng(3).normal(size=6).astype(np.float32)
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    retriever = VecdbEmbeddingRetriever(document_store, top_k=40)
    found = retriever.run(query.tolist())["documents"]
    assert [one.id for one in found] == [f"d{at}" for at in np.argsort(-cosines)]  # the bare one is nobody's neighbour
    assert np.allclose([one.score for one in found], np.sort(cosines)[::-1], atol=1e-5)
    assert all(one.embedding is None for one in found)
    odd = {"field": "meta.half", "operator": "==", "value": 1}
    few = retriever.run(query.tolist(), filters=odd, top_k=3, scale_score=True, return_embedding=True)["documents"]
    expected = [at for at in np.argsort(-cosines) if at % 2][:3]
    assert [one.meta["n"] for one in few] == expected
    assert np.allclose([one.score for one in few], (1 + cosines[expected]) / 2, atol=1e-5)
    assert np.allclose(few[0].embedding, vectors[expected[0]])
    assert retriever.run(query.tolist(), filters={**odd, "field": "half"}, top_k=3)["documents"][0].id == few[0].id
    assert retriever.run(query.tolist(), top_k=0)["documents"] == []
    assert asyncio.run(retriever.run_async(query.tolist())) == {"documents": found}
    merging = VecdbEmbeddingRetriever(document_store, filters=odd, top_k=40, filter_policy=FilterPolicy.MERGE)
    late = {"field": "meta.n", "operator": ">", "value": 20}
    assert {one.meta["n"] for one in merging.run(query.tolist(), filters=late)["documents"]} == {21, 23, 25, 27, 29}
    with pytest.raises(FilterError):
        retriever.run(query.tolist(), filters={"field": "meta.n", "operator": "about", "value": 1})
    for wrong in (lambda: VecdbEmbeddingRetriever("store"), lambda: VecdbEmbeddingRetriever(document_store, top_k=0)):
        with pytest.raises(vecdb.InvalidArgument):
            wrong()


def test_documents_of_all_kinds_come_back(document_store: VecdbDocumentStore) -> None:
    documents = [
        Document(
            id="blob", blob=ByteStream(b"\x00\xff", meta={"page": 1}, mime_type="image/png"), meta={"a": [1, "x"]}
        ),
        Document(id="sparse", content="x", sparse_embedding=SparseEmbedding([1, 7], [0.5, 0.25]), embedding=[0.5, 1.0]),
        Document(id="plain", content=None),
    ]
    document_store.write_documents(documents, DuplicatePolicy.OVERWRITE)
    assert document_store.filter_documents() == documents
    by_id = {"field": "id", "operator": "in", "value": ["sparse", "plain"]}
    assert [one.id for one in document_store.filter_documents(by_id)] == ["sparse", "plain"]
    assert document_store.write_documents([]) == 0
    with pytest.raises(FilterError):
        document_store.delete_by_filter({})
    assert document_store.count_documents() == 3


def test_more_than_a_page_is_read_by_pages(memory: vecdb.Database) -> None:
    store = VecdbDocumentStore.open(memory, "pages")
    store.write_documents([Document(id=str(at), content="x", meta={"n": at}) for at in range(2_500)])
    wanted = {"field": "meta.n", "operator": "<", "value": 2_300}
    assert [one.id for one in store.filter_documents(wanted)] == [str(at) for at in range(2_300)]
    assert len(asyncio.run(store.filter_documents_async())) == 2_500
    assert store.update_by_filter(wanted, {"seen": True}) == 2_300


# -- files of pipelines ----------------------------------------------------------------------------


def test_a_pipeline_is_written_down_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = VecdbDocumentStore.open(str(tmp_path / "db"), "docs", durability="relaxed")
    documents, vectors = shelf(5)
    store.write_documents(documents)
    pipeline = Pipeline()
    pipeline.add_component("retriever", VecdbEmbeddingRetriever(store, top_k=2, filter_policy="merge"))
    text = pipeline.dumps()
    first = pipeline.run({"retriever": {"query_embedding": vectors[3].tolist()}})
    again = Pipeline.loads(text, allowed_modules=["vecdb.integrations.haystack"])
    assert again.run({"retriever": {"query_embedding": vectors[3].tolist()}}) == first
    assert [one.id for one in first["retriever"]["documents"]][:1] == ["d3"] and again.dumps() == text
    store.close()
    monkeypatch.setenv("VECDB_TOKEN", "a secret")
    secret = Secret.from_env_var("VECDB_TOKEN")
    store._opened_with = {"path": "grpc://host:1", "collection": "c", "metric": "cosine", "token": secret}
    written = store.to_dict()
    assert "a secret" not in str(written) and "VECDB_TOKEN" in str(written)
    store._opened_with["token"] = "a secret"
    with pytest.raises(vecdb.InvalidArgument, match="Secret"):
        store.to_dict()
    with vecdb.open(":memory:") as db, pytest.raises(vecdb.InvalidArgument, match="written down"):
        VecdbDocumentStore(db.create_collection("docs")).to_dict()
