"""Haystack: a collection as a `DocumentStore`, and a retriever that searches it.

    store = VecdbDocumentStore.open("./data")                            # or ":memory:", or "grpc://host:port"
    store = VecdbDocumentStore(db.collection("docs"))
    store.write_documents(documents, policy=DuplicatePolicy.OVERWRITE)
    retriever = VecdbEmbeddingRetriever(store, top_k=4, filters={"field": "meta.year", "operator": ">", "value": 2020})

    document   := record: id, vector (none where the document has no embedding), fields {id, content, meta} and blob and
                  sparse_embedding where it has them. Embeddings are stored as the collection's dtype: float32
    filter     := Haystack's; a field without a period that is none of a document's own is one of meta
    score      := larger is nearer: cosine similarity, inner product, minus squared l2; scaled into [0, 1] where asked

Threads: as the collection. Methods whose names end with _async ask a server from the event loop, where the store was
opened by an address or with a collection of vecdb.aio; elsewhere they run in threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields as fields_of_class
from typing import Any, TypeVar

from haystack import component, default_from_dict, default_to_dict
from haystack.dataclasses import ByteStream, Document, SparseEmbedding
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy, FilterPolicy, apply_filter_policy
from haystack.errors import FilterError
from haystack.utils import Secret

from vecdb.api.hits import Hits
from vecdb.errors import AlreadyExists, InvalidArgument
from vecdb.filters.forms import to_filter
from vecdb.filters.tree import Node
from vecdb.integrations.shared import CollectionHandle, Steps, arun, every, nearness_of_l2, run, under
from vecdb.validate.common import short_repr

T = TypeVar("T")
Filters = dict[str, Any] | None

_OWN = tuple(one.name for one in fields_of_class(Document))
_SCALED: dict[str, Callable[[float], float]] = {
    "cosine": lambda score: (1 + min(1.0, max(-1.0, score))) / 2,
    "l2": nearness_of_l2,
    "ip": lambda score: (1 + math.tanh(score / 200)) / 2,  # as Haystack's own store scales it
}


class VecdbDocumentStore:
    """A collection of vecdb as Haystack's document store."""

    def __init__(self, collection: Any) -> None:
        """collection : a vecdb.Collection, or one of vecdb.aio, whose store is only awaited. A store that is to be
        written into a pipeline's file is opened with `open`.
        """
        self._docs = collection if isinstance(collection, CollectionHandle) else CollectionHandle(collection)
        self._opened_with: dict[str, Any] | None = None

    @classmethod
    def open(
        cls,
        path: Any,
        collection: str = "haystack",
        *,
        metric: str = "cosine",
        token: Secret | str | None = None,
        **options: Any,
    ) -> VecdbDocumentStore:
        """The store of a collection, which is made where it is not there.

        path : a directory, ":memory:", the address of a server, or an open vecdb.Database.
        metric : of a collection that is made.   token : of a server; a Secret of the environment where the store is
        to be written into a pipeline's file.   options : of `vecdb.open`.
        """
        known = token.resolve_value() if isinstance(token, Secret) else token
        given = options if known is None else {**options, "token": known}
        store = cls(CollectionHandle.of(path, collection, metric=metric, **given))
        store._opened_with = {"path": path, "collection": collection, "metric": metric, "token": token, **options}
        return store

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` opens again. Raises InvalidArgument where the store was not opened by a path or an address,
        or with a token that is a text.
        """
        given = self._opened_with
        if given is None or not isinstance(given["path"], str) or isinstance(given["token"], str):
            raise InvalidArgument(
                "a store is written down by what opens it: open it with VecdbDocumentStore.open, a path or address "
                "that is a text, and a token that is a Secret"
            )
        found: dict[str, Any] = default_to_dict(self, **{name: one for name, one in given.items() if one is not None})
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VecdbDocumentStore:
        given = dict(data.get("init_parameters", {}))
        if isinstance(given.get("token"), dict):
            given["token"] = Secret.from_dict(given["token"])
        return cls.open(**given)

    def close(self) -> None:
        """Close the database, where `open` opened it."""
        self._docs.close()

    async def aclose(self) -> None:
        await self._docs.aclose()

    def _run(self, steps: Steps[T]) -> T:
        return run(self._docs.near, _refusing(steps))

    async def _arun(self, steps: Steps[T]) -> T:
        return await arun(await self._docs.far(), _refusing(steps))

    # -- documents ---------------------------------------------------------------------------------

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        """Write documents. Returns how many were written. policy : NONE is FAIL: DuplicateDocumentError, and nothing is
        written.
        """
        return run(self._docs.near, _write(documents, policy))

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        return await arun(await self._docs.far(), _write(documents, policy))

    def filter_documents(self, filters: Filters = None) -> list[Document]:
        """All documents that match, oldest first."""
        return self._run(_filter(filters))

    async def filter_documents_async(self, filters: Filters = None) -> list[Document]:
        return await self._arun(_filter(filters))

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete documents by id; those that are not there are passed over."""
        self._docs.near.delete(list(document_ids))

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        await (await self._docs.far()).delete(list(document_ids))

    def delete_all_documents(self, recreate_collection: bool = False) -> None:
        """Delete all documents. recreate_collection : the collection stays either way, with its dim and index."""
        self._docs.near.clear()

    async def delete_all_documents_async(self, recreate_collection: bool = False) -> None:
        await (await self._docs.far()).clear()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete the documents that match when it is committed, in one commit. Returns how many."""
        return self._run(_delete(filters))

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        return await self._arun(_delete(filters))

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        """Lay `meta` over the meta of the documents that match. Returns how many."""
        return self._run(_update(filters, meta))

    async def update_by_filter_async(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        return await self._arun(_update(filters, meta))

    # -- counts and values -------------------------------------------------------------------------

    def count_documents(self) -> int:
        return self._docs.near.count()

    async def count_documents_async(self) -> int:
        return await (await self._docs.far()).count()

    def count_documents_by_filter(self, filters: Filters) -> int:
        return self._run(_count(filters))

    async def count_documents_by_filter_async(self, filters: Filters) -> int:
        return await self._arun(_count(filters))

    def count_unique_metadata_by_filter(self, filters: Filters, metadata_fields: list[str]) -> dict[str, int]:
        """How many different values each of these fields has among the documents that match."""
        return self._run(_count_values(filters, metadata_fields))

    async def count_unique_metadata_by_filter_async(
        self, filters: Filters, metadata_fields: list[str]
    ) -> dict[str, int]:
        return await self._arun(_count_values(filters, metadata_fields))

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        """The fields of meta and their types: {"year": {"type": "int"}, "tags": {"type": "list or str"}}."""
        return self._run(_field_types())

    async def get_metadata_fields_info_async(self) -> dict[str, dict[str, str]]:
        return await self._arun(_field_types())

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        """{"min": ..., "max": ...} of a field; None where no document has it."""
        return self._run(_extremes(metadata_field))

    async def get_metadata_field_min_max_async(self, metadata_field: str) -> dict[str, Any]:
        return await self._arun(_extremes(metadata_field))

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        """`size` of the different values of a field, from the one at `from_` on, and how many there are. search_term :
        only values that have it in them, whatever the case.
        """
        return self._run(_values(metadata_field, search_term, from_, size, filters))

    async def get_metadata_field_unique_values_async(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: Filters = None,
    ) -> tuple[list[Any], int]:
        return await self._arun(_values(metadata_field, search_term, from_, size, filters))

    # -- search ------------------------------------------------------------------------------------

    def embedding_retrieval(
        self,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool = False,
    ) -> list[Document]:
        """The documents nearest to a vector, nearest first; documents without an embedding are never among them."""
        return self._run(self._search(query_embedding, filters, top_k, scale_score, return_embedding))

    async def embedding_retrieval_async(
        self,
        query_embedding: list[float],
        filters: Filters = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool = False,
    ) -> list[Document]:
        return await self._arun(self._search(query_embedding, filters, top_k, scale_score, return_embedding))

    def _search(self, query: Any, filters: Filters, top_k: int, scaled: bool, vectors: bool) -> Steps[list[Document]]:
        if not top_k:
            return []
        node = _tree(filters)
        hits: Hits = yield lambda docs: docs.search(query, top_k, filter=node, include_vectors=vectors)
        scale = _SCALED[self._docs.metric] if scaled else float
        return [_document(hit.fields, hit.vector, scale(hit.score), id=hit.id) for hit in hits]


@component
class VecdbEmbeddingRetriever:
    """Retrieves the documents of a `VecdbDocumentStore` that are nearest to the embedding of a query."""

    def __init__(
        self,
        document_store: VecdbDocumentStore,
        *,
        filters: Filters = None,
        top_k: int = 10,
        scale_score: bool = False,
        return_embedding: bool = False,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        """
        filters, top_k, scale_score, return_embedding : of every run that does not say otherwise.
        filter_policy : whether filters of a run replace these, or are merged with them.
        """
        if not isinstance(document_store, VecdbDocumentStore):
            raise InvalidArgument(f"document_store must be a VecdbDocumentStore, got {short_repr(document_store)}")
        if top_k <= 0:
            raise InvalidArgument(f"top_k must be 1 or more, got {top_k!r}")
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.scale_score = scale_score
        self.return_embedding = return_embedding
        self.filter_policy = (
            filter_policy if isinstance(filter_policy, FilterPolicy) else FilterPolicy.from_str(filter_policy)
        )

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            filters=self.filters,
            top_k=self.top_k,
            scale_score=self.scale_score,
            return_embedding=self.return_embedding,
            filter_policy=self.filter_policy.value,
        )
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VecdbEmbeddingRetriever:
        given = dict(data.get("init_parameters", {}))
        given["document_store"] = VecdbDocumentStore.from_dict(given["document_store"])
        found: VecdbEmbeddingRetriever = default_from_dict(cls, {**data, "init_parameters": given})
        return found

    @component.output_types(documents=list[Document])
    def run(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        scale_score: bool | None = None,
        return_embedding: bool | None = None,
    ) -> dict[str, list[Document]]:
        """The documents nearest to an embedding. All else : None for what the retriever was made with."""
        asked = self._asked(filters, top_k, scale_score, return_embedding)
        return {"documents": self.document_store.embedding_retrieval(query_embedding, **asked)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query_embedding: list[float],
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
        scale_score: bool | None = None,
        return_embedding: bool | None = None,
    ) -> dict[str, list[Document]]:
        asked = self._asked(filters, top_k, scale_score, return_embedding)
        return {"documents": await self.document_store.embedding_retrieval_async(query_embedding, **asked)}

    def _asked(
        self, filters: Filters, top_k: int | None, scale_score: bool | None, return_embedding: bool | None
    ) -> dict[str, Any]:
        return {
            "filters": apply_filter_policy(self.filter_policy, self.filters, filters),
            "top_k": self.top_k if top_k is None else top_k,
            "scale_score": self.scale_score if scale_score is None else scale_score,
            "return_embedding": self.return_embedding if return_embedding is None else return_embedding,
        }


# -- what the methods do ---------------------------------------------------------------------------


def _refusing(steps: Steps[T]) -> Steps[T]:
    """The same; what vecdb refuses about a filter is Haystack's error."""
    try:
        return (yield from steps)
    except InvalidArgument as error:
        raise FilterError(str(error)) from error


def _write(documents: list[Document], policy: DuplicatePolicy) -> Steps[int]:
    if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
        raise InvalidArgument(f"documents must be a list of Haystack's Documents, got {short_repr(documents)}")
    if not documents:
        return 0
    ids, vectors = [one.id for one in documents], [one.embedding for one in documents]
    fields = [_fields(one) for one in documents]
    if policy == DuplicatePolicy.OVERWRITE:
        yield lambda docs: docs.upsert(ids, vectors, fields, atomic=False)
        return len(documents)
    skip = "skip" if policy == DuplicatePolicy.SKIP else "error"
    try:
        written: int = yield lambda docs: docs.insert(ids, vectors, fields, on_conflict=skip)
    except AlreadyExists as error:
        raise DuplicateDocumentError(str(error)) from error
    return written


def _filter(filters: Filters) -> Steps[list[Document]]:
    found = yield from every(_tree(filters), include_vectors=True)
    return [_document(one.fields, one.vector, id=one.id) for one in found]


def _delete(filters: Filters) -> Steps[int]:
    if not filters:
        raise InvalidArgument("delete_by_filter needs a filter; delete_all_documents deletes all")
    node = _tree(filters)
    deleted: int = yield lambda docs: docs.delete(filter=node)
    return deleted


def _update(filters: Filters, meta: dict[str, Any]) -> Steps[int]:
    found = yield from every(_tree(filters))
    if not found:
        return 0
    ids = [one.id for one in found]
    fields = [{"meta": (one.fields.get("meta") or {}) | meta} for one in found]
    changed: int = yield lambda docs: docs.update(ids, fields=fields)
    return changed


def _count(filters: Filters) -> Steps[int]:
    node = _tree(filters)
    count: int = yield lambda docs: docs.count(filter=node)
    return count


def _count_values(filters: Filters, names: list[str]) -> Steps[dict[str, int]]:
    counts = {}
    for name in names:
        values = yield from _distinct(name, filters)
        counts[name] = len(values)
    return counts


def _field_types() -> Steps[dict[str, dict[str, str]]]:
    found = yield lambda docs: docs.fields()
    there = {name.removeprefix("meta."): facts for name, facts in found.items() if name.startswith("meta.")}
    return {name: {"type": " or ".join(facts["types"])} for name, facts in there.items()}


def _extremes(name: str) -> Steps[dict[str, Any]]:
    path = _path(name)
    smallest = yield lambda docs: docs.min(path)
    largest = yield lambda docs: docs.max(path)
    return {"min": smallest, "max": largest}


def _values(name: str, term: str | None, start: int, size: int, filters: Filters) -> Steps[tuple[list[Any], int]]:
    values = yield from _distinct(name, filters)
    if term:
        values = [one for one in values if term.lower() in str(one).lower()]
    return values[start : start + size], len(values)


def _distinct(name: str, filters: Filters) -> Steps[list[Any]]:
    path, node = _path(name), _tree(filters)
    values: list[Any] = yield lambda docs: docs.distinct(path, node)
    return values


# -- filters and documents -------------------------------------------------------------------------


def _path(name: str) -> str:
    return name if name.startswith("meta.") else f"meta.{name}"


def _tree(filters: Filters) -> Node | None:
    def of_document(name: str) -> str:
        return name if "." in name or name in _OWN else f"meta.{name}"

    return under(to_filter(filters or None), of_document)


def _fields(document: Document) -> dict[str, Any]:
    fields = {"id": document.id, "content": document.content, "meta": document.meta}
    if document.blob is not None:
        blob = document.blob
        fields["blob"] = {"data": blob.data, "meta": blob.meta, "mime_type": blob.mime_type}
    if document.sparse_embedding is not None:
        fields["sparse_embedding"] = document.sparse_embedding.to_dict()
    return fields


def _document(fields: dict[str, Any], vector: Any, score: float | None = None, *, id: Any) -> Document:
    blob, sparse = fields.get("blob"), fields.get("sparse_embedding")
    return Document(
        id=str(id),
        content=fields.get("content"),
        blob=None if blob is None else ByteStream(**blob),
        meta=fields.get("meta") or {},
        score=score,
        embedding=None if vector is None else vector.tolist(),
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
    )
