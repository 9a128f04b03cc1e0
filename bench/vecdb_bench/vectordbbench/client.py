"""The client that VectorDBBench's runners call: a collection in a directory, or of a server.

A runner copies the client into other processes and threads, and opens it in each by `init`. A directory has one process
that writes: a client reads beside it until its own first write, which opens the directory for writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from vectordb_bench.backend.clients.api import VectorDB
from vectordb_bench.backend.filter import Filter, FilterOp
from vectordb_bench.backend.payload import PayloadProfile

import vecdb
from vecdb_bench.vectordbbench.config import VecdbCaseConfig

_NOT_COPIED = ("_db", "_docs", "_writes")
_ENGINE = vecdb.warm_up  # not called: naming it imports the engine with this module, before a runner starts its clock


class VecdbClient(VectorDB):
    """db_config : what `VecdbConfig.to_dict` gives.   Records have the fields `number`, their id, and `label`."""

    supported_filter_types: ClassVar = [FilterOp.NonFilter, FilterOp.NumGE, FilterOp.StrEqual]
    name = "vecdb"
    thread_safe = True

    def __init__(
        self, dim: int, db_config: dict[str, Any], db_case_config: VecdbCaseConfig,
        collection_name: str = "vectordbbench", drop_old: bool = False, **kwargs: Any,
    ) -> None:  # fmt: skip
        self._uri, self._token = db_config["uri"], db_config.get("token")
        self._served = str(self._uri).startswith(("grpc://", "grpcs://", "unix:"))
        self._collection_name = collection_name
        self._params = vecdb.SearchParams(**db_case_config.search_param())
        self._filter: Any = None
        self._forget()
        with self._opened(writes=True) as db:
            if drop_old and collection_name in db:
                db.drop_collection(collection_name)
            db.create_collection(
                collection_name, dim, **db_case_config.index_param(), exist_ok=True, zero_vectors="far"
            )

    def _forget(self) -> None:
        self._db: vecdb.Database | None = None
        self._docs: vecdb.Collection | None = None
        self._writes = False

    def __getstate__(self) -> dict[str, Any]:
        """What goes into a copy: no open database, which belongs to its process."""
        return {key: value for key, value in self.__dict__.items() if key not in _NOT_COPIED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _opened(self, *, writes: bool) -> vecdb.Database:
        if self._served:
            return vecdb.open(self._uri, token=self._token)
        return vecdb.open(self._uri, read_only=not writes, durability="relaxed")

    def _collection(self, *, writes: bool) -> vecdb.Collection:
        """The collection, opened at the first call that needs it; opened anew where one that reads is to write."""
        if self._docs is None or (writes and not self._writes and not self._served):
            if self._db is not None:
                self._db.close()
            self._db = self._opened(writes=writes)
            self._docs, self._writes = self._db.collection(self._collection_name), writes
        return self._docs

    @contextmanager
    def init(self) -> Iterator[None]:
        """Runners do their work within it: it opens the collection and loads kernels, before they time searches. What
        was written is finished when it is left.
        """
        try:
            docs = self._collection(writes=False)
            if docs.count():
                docs.search(np.ones(docs.dim, np.float32), 1, params=self._params, fields=())
            yield
        finally:
            if self._db is not None:
                self._db.close()
            self._forget()

    def prepare_filter(self, filters: Filter) -> None:
        if filters.type == FilterOp.NumGE:
            self._filter = vecdb.F.number >= int(filters.int_value)  # type: ignore[attr-defined]
        elif filters.type == FilterOp.StrEqual:
            self._filter = vecdb.F.label == filters.label_value  # type: ignore[attr-defined]
        else:
            self._filter = None

    def insert_embeddings(
        self, embeddings: list[list[float]], metadata: list[int], labels_data: list[str] | None = None,
        tenant_labels_data: list[str] | None = None, **kwargs: Any,
    ) -> tuple[int, Exception | None]:  # fmt: skip
        numbers = [int(number) for number in metadata]
        if labels_data is None:
            fields = [{"number": number} for number in numbers]
        else:
            fields = [{"number": n, "label": str(label)} for n, label in zip(numbers, labels_data, strict=True)]
        tenants = None if tenant_labels_data is None else [[str(label)] for label in tenant_labels_data]
        try:
            docs = self._collection(writes=True)
            docs.upsert(numbers, np.asarray(embeddings, np.float32), fields, tenants=tenants, atomic=False)
        except vecdb.VecdbError as error:
            return 0, error
        return len(numbers), None

    def search_embedding(
        self, query: list[float], k: int = 100, payload_profile: PayloadProfile = PayloadProfile.IDS_ONLY,
        tenant: str | None = None, **kwargs: Any,
    ) -> list[int]:  # fmt: skip
        hits = self._collection(writes=False).search(
            query, k, filter=self._filter, tenant=tenant, params=self._params,
            fields=("label",) if payload_profile == PayloadProfile.SCALAR_LABEL else (),
            include_vectors=payload_profile == PayloadProfile.VECTOR,
        )  # fmt: skip
        if payload_profile == PayloadProfile.SCALAR_LABEL:
            return [hit.id for hit in hits]  # read, as who asks for labels would
        return hits.ids.tolist()

    def optimize(self, data_size: int | None = None) -> None:
        self._collection(writes=True).optimize()

    def supports_multitenant(self) -> bool:
        return True

    @staticmethod
    def supports_payload_profile(payload_profile: PayloadProfile) -> bool:
        """Asked of the class, before there is a client."""
        return payload_profile != PayloadProfile.TEXT
