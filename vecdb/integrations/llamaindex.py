"""LlamaIndex: a collection as a vector store that keeps the nodes, too.

    store = VecdbVectorStore.open("./data")                              # or ":memory:", or "grpc://host:port"
    index = VectorStoreIndex.from_documents(documents, storage_context=StorageContext.from_defaults(vector_store=store))
    index.as_retriever(similarity_top_k=4, filters=MetadataFilters(filters=[...])).retrieve("a question")
    index.delete_ref_doc("the id of a document")

    node   := record: id, embedding, fields {text, **metadata, _node_content, _node_type, doc_id, ref_doc_id, ...} as
              LlamaIndex writes nodes for stores of flat metadata. An empty list is stored as None, for is_empty
    modes  := default and mmr (mmr_threshold, mmr_prefetch_factor or mmr_prefetch_k); others are refused

Threads: as the collection. Awaited methods ask a server from the event loop, where the store was opened by an address
or with a collection of vecdb.aio; elsewhere they run in threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from vecdb.api.hits import Hits
from vecdb.errors import InvalidArgument
from vecdb.filters.expression import F
from vecdb.filters.tree import And, Node, Not, Or
from vecdb.integrations.shared import (
    CollectionHandle,
    Steps,
    arun,
    condition,
    diverse,
    every,
    joined,
    record_fields,
    run,
    taken_text,
)
from vecdb.schema import Record
from vecdb.validate.common import short_repr

_NODE_ID = "_node_id"  # as a field, for queries among nodes that are named
_PREFETCH_FACTOR = 4  # as LlamaIndex's own stores have it


class VecdbVectorStore(BasePydanticVectorStore):
    """A collection of vecdb as LlamaIndex's vector store."""

    stores_text: bool = True
    flat_metadata: bool = False

    _docs: CollectionHandle = PrivateAttr()
    _text_field: str = PrivateAttr()

    def __init__(self, collection: Any, *, text_field: str = "text", **kwargs: Any) -> None:
        """
        collection : a vecdb.Collection, or one of vecdb.aio, whose store is only awaited.
        text_field : the field that holds a node's text.
        """
        super().__init__(**kwargs)
        self._docs = collection if isinstance(collection, CollectionHandle) else CollectionHandle(collection)
        self._text_field = text_field

    @classmethod
    def open(
        cls,
        path: Any,
        collection: str = "llamaindex",
        *,
        metric: str = "cosine",
        index: Any = None,
        text_field: str = "text",
        **options: Any,
    ) -> VecdbVectorStore:
        """The store of a collection, which is made where it is not there.

        path : a directory, ":memory:", the address of a server, or an open vecdb.Database.
        metric, index : of a collection that is made.   options : of `vecdb.open`, such as token.
        """
        return cls(CollectionHandle.of(path, collection, metric=metric, index=index, **options), text_field=text_field)

    @classmethod
    def class_name(cls) -> str:
        return "VecdbVectorStore"

    @property
    def client(self) -> Any:
        """The collection."""
        return self._docs.near

    def close(self) -> None:
        """Close the database, where `open` opened it."""
        self._docs.close()

    async def aclose(self) -> None:
        await self._docs.aclose()

    # -- writes ------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Write nodes with their embeddings, in the place of those with the same ids. Returns the ids.

        kwargs : of `Collection.upsert`, such as tenants.
        """
        return run(self._docs.near, self._add(nodes, kwargs))

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        return await arun(await self._docs.far(), self._add(nodes, kwargs))

    def _add(self, nodes: Sequence[BaseNode], options: dict[str, Any]) -> Steps[list[str]]:
        ids = [str(node.node_id) for node in nodes]
        if ids:
            vectors = [node.get_embedding() for node in nodes]
            fields = [self._fields(node) for node in nodes]
            yield lambda docs: docs.upsert(ids, vectors, fields, **({"atomic": False} | options))
        return ids

    def _fields(self, node: BaseNode) -> dict[str, Any]:
        metadata = node_to_metadata_dict(node, remove_text=True, flat_metadata=self.flat_metadata)
        fields = {name: None if value == [] else value for name, value in metadata.items()}
        text = node.get_content(metadata_mode=MetadataMode.NONE) or ""
        made = record_fields(text, fields, self._text_field, f"of node {short_repr(node.node_id)} ")
        return made | {_NODE_ID: str(node.node_id)}

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete all nodes of a document."""
        self._docs.near.delete(filter=F.ref_doc_id == ref_doc_id, **delete_kwargs)

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        await (await self._docs.far()).delete(filter=F.ref_doc_id == ref_doc_id, **delete_kwargs)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete nodes by id, those that match filters, or where both are given those that are both. With neither
        nothing is deleted: see `clear`.
        """
        run(self._docs.near, self._delete_nodes(node_ids, filters, delete_kwargs))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        await arun(await self._docs.far(), self._delete_nodes(node_ids, filters, delete_kwargs))

    def _delete_nodes(
        self, node_ids: list[str] | None, filters: MetadataFilters | None, options: dict[str, Any]
    ) -> Steps[None]:
        node = to_tree(filters)
        ids = None if node_ids is None else list(dict.fromkeys(node_ids))
        if ids and node is not None:
            found = yield lambda docs: docs.get(ids, filter=node)
            ids = [str(one.id) for one in found if one is not None]
        if ids:
            yield lambda docs: docs.delete(ids, **options)
        elif ids is None and node is not None:
            yield lambda docs: docs.delete(filter=node, **options)

    def clear(self) -> None:
        """Delete all nodes."""
        self._docs.near.clear()

    async def aclear(self) -> None:
        await (await self._docs.far()).clear()

    # -- reads -------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes by id, in that order without those that are not there; or all that match; with neither all."""
        return run(self._docs.near, self._get_nodes(node_ids, filters))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        return await arun(await self._docs.far(), self._get_nodes(node_ids, filters))

    def _get_nodes(self, node_ids: list[str] | None, filters: MetadataFilters | None) -> Steps[list[BaseNode]]:
        node = to_tree(filters)
        found: list[Record | None] = []
        if node_ids is None:
            found += yield from every(node)
        elif node_ids:
            found = yield lambda docs: docs.get(list(node_ids), filter=node)
        return [self._node(one.id, one.fields) for one in found if one is not None]

    def _node(self, id: Any, fields: dict[str, Any]) -> BaseNode:
        text, metadata = taken_text(fields, self._text_field)
        if "_node_content" not in metadata:  # a record that LlamaIndex did not write
            return TextNode(id_=str(id), text=text, metadata=metadata)
        return metadata_dict_to_node(metadata, text)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The nearest nodes. kwargs : of `Collection.search`, such as tenant and params; and of mmr (see above)."""
        return run(self._docs.near, self._query(query, kwargs))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        return await arun(await self._docs.far(), self._query(query, kwargs))

    def _query(self, query: VectorStoreQuery, kwargs: dict[str, Any]) -> Steps[VectorStoreQueryResult]:
        options, k = dict(kwargs), query.similarity_top_k
        threshold = options.pop("mmr_threshold", query.mmr_threshold)
        factor, prefetch = options.pop("mmr_prefetch_factor", None), options.pop("mmr_prefetch_k", None)
        if query.query_embedding is None:
            raise InvalidArgument("the query has no embedding: vecdb searches for vectors")
        if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
            raise InvalidArgument(f"the query mode {query.mode.value!r} is unknown here: there are default and mmr")
        if factor is not None and prefetch is not None:
            raise InvalidArgument("mmr_prefetch_factor and mmr_prefetch_k say the same: pass one of them")
        among = joined(
            to_tree(query.filters),
            F.ref_doc_id.is_in(query.doc_ids) if query.doc_ids else None,
            F[_NODE_ID].is_in(query.node_ids) if query.node_ids else None,  # an index passes [] for any
        )
        diversely = query.mode is VectorStoreQueryMode.MMR
        limit = max(k, prefetch or int(k * (factor or _PREFETCH_FACTOR))) if diversely else k
        vector = query.query_embedding
        hits = yield lambda docs: docs.search(vector, limit, filter=among, include_vectors=diversely, **options)
        if not diversely:
            return self._result(hits, list(range(len(hits))))
        return self._result(hits, diverse(vector, hits.vectors, k, 0.5 if threshold is None else threshold))

    def _result(self, hits: Hits, order: list[int]) -> VectorStoreQueryResult:
        chosen = [hits[at] for at in order]
        return VectorStoreQueryResult(
            nodes=[self._node(hit.id, hit.fields) for hit in chosen],
            similarities=[hit.score for hit in chosen],
            ids=[str(hit.id) for hit in chosen],
        )


def to_tree(filters: MetadataFilters | None) -> Node | None:
    """MetadataFilters as a tree: `and`, `or`, `not` (none of them holds), nested ones, and every operator but
    text_match_insensitive, which is refused.
    """
    if filters is None or not filters.filters:
        return None
    terms = tuple(_term(one) for one in filters.filters)
    tree: Node = And(terms) if filters.condition in (None, FilterCondition.AND) else Or(terms)
    complement: Node = Not(tree)
    return complement if filters.condition is FilterCondition.NOT else tree


def _term(one: MetadataFilter | MetadataFilters) -> Node:
    if isinstance(one, MetadataFilters):
        tree, everything = to_tree(one), And(())
        return everything if tree is None else tree
    operator = one.operator.value
    return condition(one.key, "contain" if operator == "contains" else operator, one.value)
