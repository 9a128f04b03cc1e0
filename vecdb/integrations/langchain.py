"""LangChain: a collection as a `VectorStore`.

    store = VecdbVectorStore.open("./data", embedding)                   # or ":memory:", or "grpc://host:port"
    store = VecdbVectorStore(db.collection("docs"), embedding)           # or one of vecdb.aio
    store.add_documents(documents)
    store.similarity_search("a question", k=4, filter={"year": {"$gte": 2020}})
    store.as_retriever(search_type="mmr", search_kwargs={"k": 4, "fetch_k": 40})

    document   := record: id, vector, fields {text: page_content, **metadata}
    filter     := a dict by field or by name, a string, a condition of F, or a directive of langchain_core's
                  structured_query (VecdbTranslator makes SelfQueryRetriever write these)
    score      := larger is nearer: cosine similarity, inner product, minus squared l2; a relevance score is in [0, 1]

Threads: as the collection. Methods whose names begin with a ask a server from the event loop, where the store was
opened by an address or with a collection of vecdb.aio; elsewhere they run in threads.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.structured_query import (
    Comparator,
    Comparison,
    Expr,
    Operation,
    Operator,
    StructuredQuery,
    Visitor,
)
from langchain_core.vectorstores import VectorStore

from vecdb.api.hits import Hits
from vecdb.errors import InvalidArgument
from vecdb.filters.tree import And, Node, Not, Or
from vecdb.integrations.shared import (
    CollectionHandle,
    condition,
    diverse,
    made_ids,
    nearness_of_l2,
    record_fields,
    taken_text,
)
from vecdb.schema import Record

_COLLECTION = "langchain"


class VecdbTranslator(Visitor):
    """Structured queries as vecdb's filters: `SelfQueryRetriever(..., structured_query_translator=VecdbTranslator())`.

    `and`, `or`, `not` (not all of its arguments hold), and every comparator; dates and times as LangChain writes them.
    """

    allowed_comparators = tuple(Comparator)
    allowed_operators = tuple(Operator)

    def visit_operation(self, operation: Operation) -> Node:
        terms = tuple(argument.accept(self) for argument in operation.arguments)
        tree: Node = Or(terms) if operation.operator is Operator.OR else And(terms)
        complement: Node = Not(tree)
        return complement if operation.operator is Operator.NOT else tree

    def visit_comparison(self, comparison: Comparison) -> Node:
        return condition(comparison.attribute, comparison.comparator.value, _plain(comparison.value))

    def visit_structured_query(self, structured_query: StructuredQuery) -> tuple[str, dict[str, Any]]:
        wanted = structured_query.filter
        return structured_query.query, {} if wanted is None else {"filter": wanted.accept(self)}


def _plain(value: Any) -> Any:
    """Dates and times of structured queries are dicts: {"type": "date", "date": "2020-01-01"}."""
    if isinstance(value, dict) and value.get("type") in ("date", "datetime"):
        kind = value["type"]
        read = dt.date.fromisoformat if kind == "date" else dt.datetime.fromisoformat
        try:
            return read(value[kind])
        except (KeyError, TypeError, ValueError):
            raise InvalidArgument(f"{value!r} is no {kind} as ISO 8601 writes it") from None
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


class VecdbVectorStore(VectorStore):
    """A collection of vecdb as LangChain's vector store."""

    def __init__(
        self,
        collection: Any,
        embedding: Embeddings,
        *,
        text_field: str = "text",
        relevance_score_fn: Callable[[float], float] | None = None,
    ) -> None:
        """
        collection : a vecdb.Collection, or one of vecdb.aio, whose store is only awaited.
        embedding : makes vectors of texts; it must be the model that made those which are stored.
        text_field : the field that holds a document's text; all others are its metadata.
        relevance_score_fn : from a score to a relevance in [0, 1], in the place of the one for the metric: the cosine
            itself where it is not negative, 1 / (1 + distance) for l2, the logistic function for ip.
        """
        self._docs = collection if isinstance(collection, CollectionHandle) else CollectionHandle(collection)
        self._embedding = embedding
        self._text_field = text_field
        self._relevance = relevance_score_fn

    @classmethod
    def open(
        cls,
        path: Any,
        embedding: Embeddings,
        collection: str = _COLLECTION,
        *,
        metric: str = "cosine",
        index: Any = None,
        text_field: str = "text",
        relevance_score_fn: Callable[[float], float] | None = None,
        **options: Any,
    ) -> Self:
        """The store of a collection, which is made where it is not there.

        path : a directory, ":memory:", the address of a server, or an open vecdb.Database.
        metric, index : of a collection that is made.   options : of `vecdb.open`, such as token.
        """
        docs = CollectionHandle.of(path, collection, metric=metric, index=index, **options)
        return cls(docs, embedding, text_field=text_field, relevance_score_fn=relevance_score_fn)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: Any = ":memory:",
        collection: Any = _COLLECTION,
        **options: Any,
    ) -> Self:
        """A store with these texts. collection : a name, opened at `path` (see `open`), or a vecdb.Collection."""
        store = cls._new(path, embedding, collection, options)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    async def afrom_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        path: Any = ":memory:",
        collection: Any = _COLLECTION,
        **options: Any,
    ) -> Self:
        store = cls._new(path, embedding, collection, options)
        await store.aadd_texts(texts, metadatas, ids=ids)
        return store

    @classmethod
    def _new(cls, path: Any, embedding: Embeddings, collection: Any, options: dict[str, Any]) -> Self:
        if isinstance(collection, str):
            return cls.open(path, embedding, collection, **options)
        return cls(collection, embedding, **options)

    @property
    def embeddings(self) -> Embeddings:
        return self._embedding

    def close(self) -> None:
        """Close the database, where `open` or `from_texts` opened it."""
        self._docs.close()

    async def aclose(self) -> None:
        await self._docs.aclose()

    # -- writes ------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Embed and write texts, in the place of those that have the same ids. Returns the ids, new ones where None was
        given.

        kwargs : of `Collection.upsert`, such as tenants, owner and request_id.
        """
        given, names, fields = self._records(texts, metadatas, ids)
        if given:
            vectors = self._embedding.embed_documents(given)
            self._docs.near.upsert(self._docs.ids(names, new=True), vectors, fields, **_writing(kwargs))
        return names

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        given, names, fields = self._records(texts, metadatas, ids)
        if given:
            vectors = await self._embedding.aembed_documents(given)
            docs = await self._docs.far()
            await docs.upsert(await self._docs.far_ids(names, new=True), vectors, fields, **_writing(kwargs))
        return names

    def _records(
        self, texts: Iterable[str], metadatas: list[dict[str, Any]] | None, ids: list[str] | None
    ) -> tuple[list[str], list[str], list[dict[str, Any]]]:
        given = list(texts)
        metadata = [{} for _ in given] if metadatas is None else [one or {} for one in metadatas]
        if len(metadata) != len(given):
            raise InvalidArgument(f"got {len(metadata):,} metadatas for {len(given):,} texts: pass one for each")
        fields = [record_fields(text, one, self._text_field) for text, one in zip(given, metadata)]
        return given, made_ids(ids, len(given)), fields

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by id; with `filter=` those that match; with neither all of them."""
        if ids is not None:
            self._docs.near.delete(self._docs.ids(ids), **kwargs)
        elif kwargs:
            self._docs.near.delete(**_filtered(kwargs))
        else:
            self._docs.near.clear()
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        docs = await self._docs.far()
        if ids is not None:
            await docs.delete(await self._docs.far_ids(ids), **kwargs)
        elif kwargs:
            await docs.delete(**_filtered(kwargs))
        else:
            await docs.clear()
        return True

    # -- reads -------------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return self._there(self._docs.near.get(self._docs.ids(ids)))

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        docs = await self._docs.far()
        return self._there(await docs.get(await self._docs.far_ids(ids)))

    def _there(self, records: list[Record | None]) -> list[Document]:
        return [self._document(one.id, one.fields) for one in records if one is not None]

    def _document(self, id: Any, fields: dict[str, Any]) -> Document:
        text, metadata = taken_text(fields, self._text_field)
        return Document(id=str(id), page_content=text, metadata=metadata)

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """The k documents nearest to a text.

        kwargs : of `Collection.search`: filter, filter_params, tenant, params.
        """
        return _without(self.similarity_search_with_score(query, k, **kwargs))

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return _without(await self.asimilarity_search_with_score(query, k, **kwargs))

    def similarity_search_with_score(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        """The same with the score of each, larger is nearer."""
        return self.similarity_search_with_score_by_vector(self._embedding.embed_query(query), k, **kwargs)

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return await self.asimilarity_search_with_score_by_vector(
            await self._embedding.aembed_query(query), k, **kwargs
        )

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        return _without(self.similarity_search_with_score_by_vector(embedding, k, **kwargs))

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        return _without(await self.asimilarity_search_with_score_by_vector(embedding, k, **kwargs))

    def similarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return self._scored(self._docs.near.search(embedding, k, **_filtered(kwargs)))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        docs = await self._docs.far()
        return self._scored(await docs.search(embedding, k, **_filtered(kwargs)))

    def _scored(self, hits: Hits) -> list[tuple[Document, float]]:
        return [(self._document(hit.id, hit.fields), hit.score) for hit in hits]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Of the fetch_k documents nearest to a text k that are near it and unlike one another."""
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        vector = await self._embedding.aembed_query(query)
        return await self.amax_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def max_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        hits = self._docs.near.search(embedding, max(k, fetch_k), include_vectors=True, **_filtered(kwargs))
        return self._chosen(embedding, hits, k, lambda_mult)

    async def amax_marginal_relevance_search_by_vector(
        self, embedding: list[float], k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        docs = await self._docs.far()
        hits = await docs.search(embedding, max(k, fetch_k), include_vectors=True, **_filtered(kwargs))
        return self._chosen(embedding, hits, k, lambda_mult)

    def _chosen(self, embedding: list[float], hits: Hits, k: int, lambda_mult: float) -> list[Document]:
        vectors = () if hits.vectors is None else hits.vectors
        chosen = (hits[at] for at in diverse(embedding, vectors, k, lambda_mult))
        return [self._document(hit.id, hit.fields) for hit in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return self._relevance or _RELEVANCE[self._docs.metric]


_RELEVANCE: dict[str, Callable[[float], float]] = {
    "cosine": lambda score: min(1.0, max(0.0, score)),
    "l2": nearness_of_l2,
    "ip": lambda score: (1 + math.tanh(score / 2)) / 2,
}


def _without(scored: list[tuple[Document, float]]) -> list[Document]:
    return [document for document, _ in scored]


def _filtered(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Collection.search`, a structured filter among them as a tree."""
    wanted = kwargs.get("filter")
    if isinstance(wanted, StructuredQuery):
        wanted = wanted.filter
    if wanted is None or isinstance(wanted, Expr):
        wanted = None if wanted is None else wanted.accept(VecdbTranslator())
        return {**kwargs, "filter": wanted}
    return kwargs


def _writing(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `Collection.upsert`; a call that is too large for one commit is split, unless it may be repeated."""
    return kwargs if "request_id" in kwargs else {"atomic": False, **kwargs}
