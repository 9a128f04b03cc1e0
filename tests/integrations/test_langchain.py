"""LangChain's own suite of vector stores over the shipped adaptor, as it is; then filters, diversity and scores."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.process import Process

pytest.importorskip("langchain_tests")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.structured_query import Comparator, Comparison, Operation, Operator, StructuredQuery
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from vecdb.integrations.langchain import VecdbTranslator, VecdbVectorStore

SETTINGS = [
    "memory",
    "aio",
    *(pytest.param(one, marks=pytest.mark.slow) for one in ("disk", "curator", "spann", "grpc")),
]
NAMES = itertools.count()


class Words(Embeddings):
    """Texts are numbers, "1 0 2": their own vectors."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(word) for word in text.split()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    with Process(folder / "db", folder) as server:
        yield f"grpc://{server.address}"


Opened = Callable[..., VecdbVectorStore]


@pytest.fixture(scope="module")
def memory() -> Iterator[vecdb.Database]:
    with vecdb.open(":memory:") as db:
        yield db


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vecdb.Database]:
    with vecdb.open(tmp_path_factory.mktemp("disk") / "db") as db:
        yield db


@pytest.fixture(params=SETTINGS)
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """A store of a new collection: opened(embedding, **options of open)."""
    kind, stores = request.param, []
    index = {"curator": vecdb.Curator(), "spann": vecdb.Spann()}.get(kind)
    path = request.getfixturevalue({"grpc": "served", "aio": "served", "memory": "memory"}.get(kind, "disk"))

    def new(embedding: Embeddings, **options: Any) -> VecdbVectorStore:
        name = f"c{next(NAMES)}"
        if kind == "grpc":  # a collection that is given: awaited calls run in threads
            collection = vecdb.open(path).create_collection(name)
            return VecdbVectorStore(collection, embedding, **options)
        stores.append(VecdbVectorStore.open(path, embedding, name, index=index, **options))
        return stores[-1]

    yield new
    for store in stores:
        store.close()


class TestLangChainsOwnSuite(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, opened: Opened) -> VecdbVectorStore:  # type: ignore[override]
        return opened(self.get_embeddings())


# -- filters ---------------------------------------------------------------------------------------

SHELF = [
    {"n": at, "lang": ["en", "de", "fr"][at % 3], "day": dt.date(2020, 1, 1 + at), "tags": ["a", "b", "c"][: at % 4]}
    for at in range(12)
] + [{"n": 12}]


def filled(opened: Opened, **options: Any) -> VecdbVectorStore:
    store = opened(Words(), **options)
    texts = [f"{at + 1} 1 0" for at in range(len(SHELF))]
    store.add_documents([Document(id=f"d{at}", page_content=texts[at], metadata=one) for at, one in enumerate(SHELF)])
    return store


def compare(comparator: Comparator, attribute: str, value: Any) -> Comparison:
    return Comparison(comparator=comparator, attribute=attribute, value=value)


def operate(operator: Operator, *arguments: Any) -> Operation:
    return Operation(operator=operator, arguments=list(arguments))


DAY = {"type": "date", "date": "2020-01-05"}
Case = tuple[Any, Callable[[dict[str, Any]], bool]]
CASES: list[Case] = [
    ({"lang": "en"}, lambda m: m.get("lang") == "en"),
    ({"n": {"$gte": 3, "$lt": 7}}, lambda m: 3 <= m["n"] < 7),
    ({"$or": [{"lang": "de"}, {"n": {"$in": [0, 12]}}]}, lambda m: m.get("lang") == "de" or m["n"] in (0, 12)),
    ({"lang": {"$ne": "en"}}, lambda m: m.get("lang") != "en"),
    ({"operator": "NOT", "conditions": [{"field": "lang", "operator": "==", "value": "en"}]},
     lambda m: m.get("lang") != "en"),
    ("lang = 'en' and n > 5", lambda m: m.get("lang") == "en" and m["n"] > 5),
    (vecdb.F.tags.contains("b"), lambda m: "b" in m.get("tags", ())),
    (compare(Comparator.EQ, "lang", "en"), lambda m: m.get("lang") == "en"),
    (compare(Comparator.NE, "lang", "en"), lambda m: m.get("lang") != "en"),
    (compare(Comparator.GT, "n", 8), lambda m: m["n"] > 8),
    (compare(Comparator.LTE, "n", 2), lambda m: m["n"] <= 2),
    (compare(Comparator.GTE, "day", DAY), lambda m: m.get("day", dt.date.min) >= dt.date(2020, 1, 5)),
    (compare(Comparator.LT, "day", DAY), lambda m: m.get("day", dt.date.max) < dt.date(2020, 1, 5)),
    (compare(Comparator.CONTAIN, "tags", "c"), lambda m: "c" in m.get("tags", ())),
    (compare(Comparator.CONTAIN, "lang", "e"), lambda m: "e" in m.get("lang", "")),
    (compare(Comparator.LIKE, "lang", "e"), lambda m: "e" in m.get("lang", "")),
    (compare(Comparator.LIKE, "lang", "e%"), lambda m: m.get("lang", "").startswith("e")),
    (compare(Comparator.LIKE, "lang", "_n"), lambda m: False),
    (compare(Comparator.IN, "n", [1, 5]), lambda m: m["n"] in (1, 5)),
    (compare(Comparator.NIN, "lang", ["en", "de"]), lambda m: m.get("lang") not in ("en", "de")),
    (operate(Operator.AND, compare(Comparator.EQ, "lang", "fr"), compare(Comparator.GT, "n", 3)),
     lambda m: m.get("lang") == "fr" and m["n"] > 3),
    (operate(Operator.OR, compare(Comparator.EQ, "n", 1), compare(Comparator.EQ, "n", 2)), lambda m: m["n"] in (1, 2)),
    (operate(Operator.NOT, compare(Comparator.EQ, "lang", "fr")), lambda m: m.get("lang") != "fr"),
    (StructuredQuery(query="x", filter=compare(Comparator.EQ, "n", 4)), lambda m: m["n"] == 4),
    (StructuredQuery(query="x", filter=None), lambda m: True),
]  # fmt: skip


@pytest.mark.parametrize("opened", ["memory", "aio"], indirect=True)
def test_filters_of_every_form_find_what_a_loop_finds(opened: Opened) -> None:
    store = filled(opened)
    for wanted, holds in CASES:
        expected = {f"d{at}" for at, one in enumerate(SHELF) if holds(one)}
        found = store.similarity_search("1 1 1", k=50, filter=wanted)
        assert {one.id for one in found} == expected, wanted
        assert all(one.metadata == SHELF[int(str(one.id)[1:])] for one in found)
        awaited = asyncio.run(store.asimilarity_search("1 1 1", k=50, filter=wanted))
        assert [one.id for one in awaited] == [one.id for one in found]


@pytest.mark.parametrize("opened", ["memory"], indirect=True)
def test_a_filter_that_is_wrong_says_so(opened: Opened) -> None:
    store = filled(opened)
    for wrong in ({"n": {"$about": 3}}, lambda document: True, compare(Comparator.GT, "lang", {"type": "date"})):
        with pytest.raises(vecdb.InvalidArgument):
            store.similarity_search("1 1 1", filter=wrong)
    with pytest.raises(vecdb.InvalidArgument, match="text_field="):
        store.add_texts(["1 1 1"], [{"text": "twice"}])
    with pytest.raises(vecdb.InvalidArgument, match="got 2 ids for 1 documents"):
        store.add_texts(["1 1 1"], ids=["a", "b"])
    with pytest.raises(TypeError, match="calls it filter"):
        store.similarity_search("1 1 1", where={"n": 1})
    with pytest.raises(vecdb.InvalidArgument, match="must be a collection of vecdb"):
        VecdbVectorStore("./data", Words())
    assert len(store.similarity_search("1 1 1", k=50)) == len(SHELF)


def test_a_self_query_becomes_the_arguments_of_a_search() -> None:
    asked = StructuredQuery(query="cats", filter=compare(Comparator.GT, "n", 3), limit=2)
    assert VecdbTranslator().visit_structured_query(asked) == ("cats", {"filter": vecdb.F.n > 3})


@pytest.mark.parametrize("opened", ["memory", "aio"], indirect=True)
def test_documents_are_deleted_by_id_by_filter_and_all(opened: Opened) -> None:
    store = filled(opened)
    assert store.delete(["d0", "nobody"]) and store.delete(filter={"lang": "de"})
    assert asyncio.run(store.adelete(filter=compare(Comparator.EQ, "lang", "fr")))
    left = store.similarity_search("1 1 1", k=50)
    assert sorted(str(one.id) for one in left) == ["d12", "d3", "d6", "d9"]
    assert store.delete() and store.similarity_search("1 1 1") == []


# -- diversity and scores --------------------------------------------------------------------------


def diverse_by_hand(query: Any, vectors: Any, k: int, lambda_mult: float) -> list[int]:
    """Maximal marginal relevance, candidate by candidate."""

    def cosine(a: Any, b: Any) -> float:
        return float(np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b))

    left, chosen = list(range(len(vectors))), []
    while left and len(chosen) < k:
        values = [
            lambda_mult * cosine(query, vectors[at])
            - (1 - lambda_mult) * max([cosine(vectors[at], vectors[other]) for other in chosen], default=0)
            if chosen
            else cosine(query, vectors[at])
            for at in left
        ]
        chosen.append(left.pop(int(np.argmax(values))))
    return chosen


@pytest.mark.parametrize("opened", ["memory", "aio"], indirect=True)
def test_diverse_documents_are_those_of_an_oracle(opened: Opened) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, 5)).round(3)
    store = opened(Words())
    store.add_texts([" ".join(map(str, one)) for one in vectors], [{"half": at % 2} for at in range(60)],
                    ids=[str(at) for at in range(60)])  # fmt: skip
    for lambda_mult, k, fetch_k in itertools.product((0.0, 0.3, 0.8, 1.0), (1, 4, 12), (12, 30)):
        query = rng.normal(size=5).round(3)
        text = " ".join(map(str, query))
        odd = np.flatnonzero(np.arange(60) % 2)
        near = vectors[odd] @ query / np.linalg.norm(vectors[odd], axis=1)
        nearest = odd[np.argsort(-near)][:fetch_k]
        expected = [str(nearest[at]) for at in diverse_by_hand(query, vectors[nearest], k, lambda_mult)]
        theirs = maximal_marginal_relevance(query, vectors[nearest].tolist(), lambda_mult, k)
        assert [str(nearest[at]) for at in theirs] == expected
        options: dict[str, Any] = {"fetch_k": fetch_k, "lambda_mult": lambda_mult, "filter": {"half": 1}}
        found = store.max_marginal_relevance_search(text, k, **options)
        assert [one.id for one in found] == expected
        assert asyncio.run(store.amax_marginal_relevance_search(text, k, **options)) == found
    with pytest.raises(vecdb.InvalidArgument, match="lambda_mult"):
        store.max_marginal_relevance_search("1 1 1 1 1", lambda_mult=2)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("opened", ["memory"], indirect=True)
def test_scores_are_larger_where_nearer_and_relevance_is_in_0_to_1(opened: Opened, metric: str) -> None:
    rng = np.random.default_rng(4)
    vectors, query = rng.normal(size=(30, 4)).round(3), rng.normal(size=4).round(3)
    store = opened(Words(), metric=metric)
    store.add_texts([" ".join(map(str, one)) for one in vectors], ids=[str(at) for at in range(30)])
    text = " ".join(map(str, query))
    products, lengths = vectors @ query, np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    score = {"cosine": products / lengths, "ip": products, "l2": -((vectors - query) ** 2).sum(axis=1)}[metric]
    found = store.similarity_search_with_score(text, k=30)
    assert [int(str(one.id)) for one, _ in found] == np.argsort(-score, kind="stable").tolist()
    assert np.allclose([one for _, one in found], np.sort(score)[::-1], atol=1e-4)
    relevant = [one for _, one in store.similarity_search_with_relevance_scores(text, k=30)]
    assert all(0 <= one <= 1 for one in relevant) and relevant == sorted(relevant, reverse=True)
    if metric == "cosine":
        assert np.allclose(relevant, np.maximum(0, np.sort(score)[::-1]), atol=1e-4)
    bar = relevant[10]
    few = store.similarity_search_with_relevance_scores(text, k=30, score_threshold=bar)
    assert [one for _, one in few] == [one for one in relevant if one >= bar]
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": bar, "k": 30}
    )
    assert retriever.invoke(text) == [one for one, _ in few]


# -- opening ---------------------------------------------------------------------------------------


def test_a_collection_that_is_there_is_found_again_with_its_ints_as_ids(tmp_path: Path) -> None:
    with vecdb.open(tmp_path / "db") as db:
        made = db.create_collection("docs", 3)
        made.upsert([1, 2], np.eye(3)[:2], fields=[{"text": "1 0 0", "lang": "en"}, {"body": "0 1 0"}])
        store = VecdbVectorStore.open(db, Words(), "docs")
        assert store.get_by_ids(["1", "7", "x"]) == [Document(id="1", page_content="1 0 0", metadata={"lang": "en"})]
        assert store.add_texts(["0 0 1"], ids=["3"]) == ["3"] and made.count() == 3
        assert VecdbVectorStore(made, Words(), text_field="body").get_by_ids(["2"])[0].page_content == "0 1 0"
        store.delete(["3", "x", "--3"])
        with pytest.raises(vecdb.InvalidArgument, match="ids are all ints"):
            store.add_texts(["0 0 1"])  # its new id would be a text
        store.close()  # what was given stays open
        assert made.count() == 2
    with pytest.raises(vecdb.NotFound):
        VecdbVectorStore.open(tmp_path / "db", Words(), "other", read_only=True)


def test_a_collection_of_aio_is_awaited_only(served: str) -> None:
    async def use() -> None:
        async with vecdb.aio.open(served) as far, vecdb.aio.open(":memory:") as here:
            for db in (far, here):
                store = VecdbVectorStore(await db.create_collection("awaited"), DeterministicFakeEmbedding(size=4))
                ids = await store.aadd_texts(["x", "y"], [{"n": 1}, {"n": 2}])
                assert [one.id for one in await store.asimilarity_search("x", k=2, filter={"n": 2})] == ids[1:]
                assert (await store.aget_by_ids(ids))[0].page_content == "x"
                with pytest.raises(vecdb.InvalidArgument, match="that are awaited"):
                    store.similarity_search("x")

    asyncio.run(use())


def test_from_texts_opens_and_fills(tmp_path: Path, served: str) -> None:
    store = VecdbVectorStore.from_texts(["1 0", "0 1"], Words(), [{"n": 1}, {"n": 2}], path=tmp_path / "db")
    assert store.similarity_search("0 1", k=1)[0].metadata == {"n": 2}
    store.close()
    with vecdb.open(tmp_path / "db", read_only=True) as db:
        assert db.collection("langchain").count() == 2

    async def over_two_loops() -> list[Document]:
        store = await VecdbVectorStore.afrom_texts(["1 0", "0 1"], Words(), path=served, collection="two")
        found = await asyncio.gather(*(store.asimilarity_search("0 1", k=1) for _ in range(5)))
        await store.aclose()
        assert found == [found[0]] * 5
        return found[0]

    assert asyncio.run(over_two_loops())[0].page_content == "0 1"
    store = VecdbVectorStore.open(served, Words(), "two")
    assert [asyncio.run(store.asimilarity_search("1 0", k=1))[0].page_content for _ in range(2)] == ["1 0"] * 2
    store.close()


def test_a_tenant_sees_its_own(served: str) -> None:
    store = VecdbVectorStore.open(":memory:", Words())
    store.add_texts(["1 0"], ids=["a"], tenants={"acme"})
    store.add_texts(["1 0"], ids=["b"], tenants={"beta"})
    assert [one.id for one in store.similarity_search("1 0", tenant="beta")] == ["b"]
