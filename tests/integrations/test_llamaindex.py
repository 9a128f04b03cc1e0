"""LlamaIndex over a collection: the flows of its documentation (index, query with filters, delete a document), its
filters as its own store reads them, and diversity.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.process import Process

pytest.importorskip("llama_index.core")

from llama_index.core import Document, Settings, StorageContext, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import ImageNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from vecdb.integrations.llamaindex import VecdbVectorStore

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Letters(BaseEmbedding):
    """How often each letter is in a text."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return [text.lower().count(letter) + 0.01 for letter in LETTERS]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


@pytest.fixture(scope="module", autouse=True)
def settings() -> None:
    Settings.embed_model = Letters()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    with Process(folder / "db", folder) as server:
        yield f"grpc://{server.address}"


@pytest.fixture(params=["memory", "address"])
def store(request: pytest.FixtureRequest) -> Iterator[VecdbVectorStore]:
    if request.param == "memory":
        made = VecdbVectorStore.open(":memory:")
    else:
        made = VecdbVectorStore.open(request.getfixturevalue("served"), request.node.originalname)
    yield made
    made.close()


DOCUMENTS = [
    ("zebra", "Zebras graze at zero hour in the zoo.", {"kind": "animal", "year": 2020}),
    ("quartz", "Quartz queries quickly.", {"kind": "stone", "year": 2021}),
    ("jazz", "Jazz and pizza buzz.", {"kind": "music", "year": 2022}),
]


def test_index_query_with_filters_and_delete_a_document(store: VecdbVectorStore) -> None:
    documents = [Document(doc_id=id, text=text, metadata=metadata) for id, text, metadata in DOCUMENTS]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex.from_documents(documents, storage_context=context)
    [best] = index.as_retriever(similarity_top_k=1).retrieve("zzz")
    assert best.node.get_content() == DOCUMENTS[2][1] and best.node.metadata["kind"] == "music"
    assert best.node.ref_doc_id == "jazz" and 0 < best.score <= 1  # type: ignore[operator]
    filters = MetadataFilters(filters=[MetadataFilter(key="year", value=2022, operator=FilterOperator.LT)])
    found = index.as_retriever(similarity_top_k=5, filters=filters).retrieve("zzz")
    assert [one.node.ref_doc_id for one in found] == ["zebra", "quartz"]
    awaited = asyncio.run(index.as_retriever(similarity_top_k=5, filters=filters).aretrieve("zzz"))
    assert [one.node.node_id for one in awaited] == [one.node.node_id for one in found]
    index.delete_ref_doc("zebra")
    assert [one.node.ref_doc_id for one in index.as_retriever(similarity_top_k=5).retrieve("zzz")] == ["jazz", "quartz"]
    again = VectorStoreIndex.from_vector_store(store)
    again.insert(Document(doc_id="fox", text="fffff"))
    assert again.as_retriever(similarity_top_k=1).retrieve("f")[0].node.ref_doc_id == "fox"


SHELF: list[dict[str, Any]] = [
    {"n": at, "lang": ["en", "de", "fr"][at % 3], "tags": ["a", "b", "c"][: at % 4], "part": at / 2} for at in range(12)
] + [{"n": 12}]


def nodes() -> list[TextNode]:
    made = []
    for at, metadata in enumerate(SHELF):
        node = TextNode(id_=f"n{at}", text=f"text {at}", metadata=metadata, embedding=[float(at + 1), 1.0, 0.5])
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc{at % 2}")
        made.append(node)
    return made


Op, C = FilterOperator, FilterCondition


def simple(key: str, operator: FilterOperator, value: Any = None) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=operator)


CASES: list[tuple[list[MetadataFilter], FilterCondition]] = [
    ([simple("lang", Op.EQ, "en")], C.AND),
    ([simple("lang", Op.NE, "en")], C.AND),
    ([simple("n", Op.GT, 3), simple("n", Op.LTE, 7)], C.AND),
    ([simple("n", Op.LT, 2), simple("part", Op.GTE, 5.0)], C.OR),
    ([simple("lang", Op.EQ, "en"), simple("n", Op.EQ, 1)], C.NOT),
    ([simple("lang", Op.IN, ["en", "fr"])], C.AND),
    ([simple("lang", Op.NIN, ["en", "fr"])], C.AND),
    ([simple("tags", Op.CONTAINS, "b")], C.AND),
    ([simple("lang", Op.CONTAINS, "e")], C.AND),
    ([simple("tags", Op.ANY, ["b", "c"])], C.AND),
    ([simple("tags", Op.ALL, ["a", "b"])], C.AND),
    ([simple("lang", Op.TEXT_MATCH, "e")], C.AND),
    ([simple("tags", Op.IS_EMPTY)], C.AND),
    ([simple("lang", Op.IS_EMPTY), simple("n", Op.EQ, 0)], C.OR),
    ([], C.AND),
]


def test_filters_find_what_llamaindex_finds(store: VecdbVectorStore) -> None:
    store.add(nodes())
    shelf = {f"n{at}": metadata for at, metadata in enumerate(SHELF)}
    for terms, joining in CASES:
        filters = MetadataFilters(filters=list(terms), condition=joining)
        holds = build_metadata_filter_fn(shelf.__getitem__, filters)
        expected = {id for id in shelf if holds(id)}
        found = store.query(VectorStoreQuery([1.0, 1.0, 1.0], similarity_top_k=50, filters=filters))
        assert set(found.ids or ()) == expected, (terms, joining)
        assert {one.node_id for one in store.get_nodes(filters=filters)} == expected
        assert [one.metadata for one in found.nodes or ()] == [shelf[id] for id in found.ids or ()]
    inner = MetadataFilters(filters=[simple("n", Op.EQ, 1), simple("n", Op.EQ, 3)], condition=C.OR)
    nested = MetadataFilters(filters=[simple("lang", Op.EQ, "de"), inner])
    assert [one.node_id for one in store.get_nodes(filters=nested)] == ["n1"]
    with pytest.raises(vecdb.InvalidArgument, match="lower case"):
        store.get_nodes(filters=MetadataFilters(filters=[simple("lang", Op.TEXT_MATCH_INSENSITIVE, "EN")]))


def test_nodes_are_got_and_deleted_by_id_and_by_filter(store: VecdbVectorStore) -> None:
    store.add(nodes())
    [first, other] = store.get_nodes(["n7", "nobody", "n2"])
    assert first.get_content() == "text 7" and first.metadata == SHELF[7] and other.node_id == "n2"
    assert first.ref_doc_id == "doc1" and len(store.get_nodes()) == 13 and store.get_nodes([]) == []
    among = store.query(VectorStoreQuery([1.0, 1.0, 1.0], similarity_top_k=2, node_ids=["n5", "n9", "n11"]))
    assert among.ids == ["n5", "n9"]
    of_document = store.query(VectorStoreQuery([1.0, 1.0, 1.0], similarity_top_k=50, doc_ids=["doc0"]))
    assert set(of_document.ids or ()) == {f"n{at}" for at in range(0, 13, 2)}
    english = MetadataFilters(filters=[simple("lang", Op.EQ, "en")])
    store.delete_nodes(["n0", "n1"], english)
    store.delete_nodes([])
    store.delete_nodes()
    assert len(store.get_nodes()) == 12
    store.delete_nodes(["n1", "nobody"])
    store.delete_nodes(filters=english)
    assert {one.node_id for one in store.get_nodes()} == {f"n{at}" for at in (2, 4, 5, 7, 8, 10, 11, 12)}
    store.delete("doc0")
    assert {one.node_id for one in store.get_nodes()} == {"n5", "n7", "n11"}
    store.add([TextNode(id_="n5", text="new", embedding=[1.0, 0.0, 0.0])])
    assert store.get_nodes(["n5"])[0].get_content() == "new"
    store.clear()
    assert store.get_nodes() == [] and store.add([]) == []


def test_what_is_awaited_is_the_same(store: VecdbVectorStore) -> None:
    async def use() -> None:
        assert len(await store.async_add(nodes())) == 13
        query = VectorStoreQuery([1.0, 1.0, 1.0], similarity_top_k=3)
        assert (await store.aquery(query)).ids == store.query(query).ids
        assert [one.node_id for one in await store.aget_nodes(["n3"])] == ["n3"]
        await store.adelete_nodes(["n3"])
        await store.adelete("doc0")
        assert len(await store.aget_nodes()) == 5
        await store.aclear()
        assert await store.aget_nodes() == []
        await store.aclose()

    asyncio.run(use())


def test_diverse_nodes_are_those_of_an_oracle(store: VecdbVectorStore) -> None:
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(40, 6)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    store.add([TextNode(id_=str(at), text="x", embedding=one.tolist()) for at, one in enumerate(vectors)])
    for threshold, k, factor in itertools.product((0.0, 0.4, 1.0), (1, 5), (2, 6)):
        query = rng.normal(size=6).astype(np.float32)
        near = units @ (query / np.linalg.norm(query))
        left = np.argsort(-near)[: k * factor].tolist()
        expected: list[int] = [left.pop(0)]
        while left and len(expected) < k:
            values = [threshold * near[at] - (1 - threshold) * (units[expected] @ units[at]).max() for at in left]
            expected.append(left.pop(int(np.argmax(values))))
        asked = VectorStoreQuery(
            query.tolist(), similarity_top_k=k, mode=VectorStoreQueryMode.MMR, mmr_threshold=threshold
        )
        found = store.query(asked, mmr_prefetch_factor=factor)
        assert found.ids == [str(at) for at in expected]
        assert np.allclose(found.similarities or (), near[expected], atol=1e-5)
        assert store.query(asked, mmr_prefetch_k=k * factor).ids == found.ids


def test_what_is_wrong_is_said(store: VecdbVectorStore) -> None:
    wrong = [
        ("no embedding", lambda: store.query(VectorStoreQuery())),
        ("query mode 'hybrid'", lambda: store.query(VectorStoreQuery([1.0], mode=VectorStoreQueryMode.HYBRID))),
        ("pass one of them", lambda: store.query(VectorStoreQuery([1.0]), mmr_prefetch_factor=2, mmr_prefetch_k=9)),
        ("text_field=", lambda: store.add([TextNode(text="x", metadata={"text": "y"}, embedding=[1.0])])),
        ("must be a collection", lambda: VecdbVectorStore("./data")),
    ]
    for said, call in wrong:
        with pytest.raises(vecdb.InvalidArgument, match=said):
            call()


def test_nodes_of_other_kinds_and_records_of_others_come_back(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", 2)
        docs.upsert(["plain"], [[1.0, 0.0]], [{"text": "written elsewhere", "lang": "en"}])
        store = VecdbVectorStore.open(db, "docs")
        store.add([ImageNode(id_="image", text="a cat", image_url="file:///cat", embedding=[0.0, 1.0])])
        image, plain = store.get_nodes(["image", "plain"])
        assert isinstance(image, ImageNode) and image.image_url == "file:///cat" and image.get_content() == "a cat"
        assert plain.get_content() == "written elsewhere" and plain.metadata == {"lang": "en"}
        assert store.client is docs or store.client.name == "docs"
