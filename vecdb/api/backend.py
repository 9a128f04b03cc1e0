"""What stands behind a `Database` and a `Collection`, here or at a server. Every argument is checked already.

    Database   -> DatabaseBackend      embedded: local_database.py      remote: client/remote_database.py
    Collection -> CollectionBackend    embedded: local_collection.py    remote: client/remote_collection.py

A facade returns what its backend returns, as it is: a backend whose methods return coroutines makes the facade
asynchronous (aio.py). A backend is given what makes the facade of a collection, and does not know its class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb.api.filter_arguments import Filters, Page
from vecdb.api.hits import Hits
from vecdb.filters.tree import Node
from vecdb.schema import CollectionConfig, Facets, IndexConfig, Record, SearchParams
from vecdb.validate import AccessLists, IdBatch, MixtureQuery

C = TypeVar("C")  # what users hold of a collection
C_co = TypeVar("C_co", covariant=True)
Mode = Literal["upsert", "insert", "skip"]  # skip: insert, which passes over ids that exist
Progress = Callable[[int, int], None] | None
Stop = Callable[[], bool] | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one write: ids, each once; vectors[n, dim] in the collection's dtype; a msgpack map each, or None.

    bare : bool[n], records that have no vector: `vectors` has those of the others, in order. None: each has one.
    """

    ids: IdBatch
    vectors: NDArray[Any]
    fields: list[bytes] | None
    tenants: AccessLists | None
    bare: NDArray[np.bool_] | None = None


class CollectionBackend(Protocol):
    """One collection. owner, request_id, names of tenants to be written: UTF-8. node : a filter, None: all records.
    With a filter `owner` None means everybody's records.
    """

    @property
    def id_kind(self) -> Literal["int", "str"] | None:
        """What ids must be; None where anything may be, or where that is looked at behind this backend."""

    @property
    def dim(self) -> int:
        """As far as this backend knows without asking; 0 where no write has given one yet."""

    @property
    def rows_per_call(self) -> int:
        """Rows of one `Batch` where a caller leaves their number to us."""

    def config(self) -> CollectionConfig: ...

    def with_timeout(self, seconds: float) -> CollectionBackend:
        """The same, whose calls may take so long. Raises InvalidArgument where they have no timeout."""

    # -- writes ------------------------------------------------------------------------------------

    def put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> int: ...

    def add(
        self,
        vectors: NDArray[Any],
        fields: list[bytes] | None,
        tenants: AccessLists | None,
        owner: bytes,
        request_id: bytes | None,
        *,
        single: bool,
        bare: NDArray[np.bool_] | None = None,
    ) -> Any:
        """Write records under new ids. Returns their ids in order, where `single` the one id itself. bare : as in
        `Batch`.
        """

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        """Another one in the place of what `config` has. Of plain values, as JSON has them."""

    def clear(self, request_id: bytes | None) -> int:
        """Remove all records. Returns how many there were."""

    def put_all(self, batches: Iterable[Batch], owner: bytes, mode: Mode) -> int:
        """One after the other, each atomic; what was written before an error stays."""

    def update(
        self,
        ids: IdBatch,
        vectors: NDArray[Any] | None,
        fields: list[bytes] | None,
        owner: bytes,
        request_id: bytes | None,
    ) -> int: ...

    def delete(self, ids: IdBatch, owner: bytes, request_id: bytes | None) -> int: ...

    def update_matching(
        self, node: Node, fields: bytes, owner: bytes | None, tenants: tuple[str, ...], request_id: bytes | None
    ) -> int:
        """Lay fields (a msgpack map) over those of the records that match and the tenants see, in one commit."""

    def delete_matching(
        self, node: Node, owner: bytes | None, tenants: tuple[str, ...], request_id: bytes | None
    ) -> int: ...

    def change_access(
        self, ids: IdBatch, tenants: AccessLists, owner: bytes | None, *, granted: bool, request_id: bytes | None
    ) -> int:
        """owner : None where the one tenant gives up the records of these ids that others own and share with it."""
        ...

    def create_tenants(
        self, names: list[bytes], exist_ok: bool, records_max: int | None, request_id: bytes | None
    ) -> int: ...

    def drop_tenant(self, name: bytes, records: bool, request_id: bytes | None) -> int | None: ...

    # -- reads -------------------------------------------------------------------------------------

    def search_one(self, query: NDArray[Any] | list[Any], limit: Any, params: Any, fields: Any) -> Hits | None:
        """`search` for one query, with arguments as the caller gave them, where that is all there is to it and nothing
        is wrong with them. None: `search` is to be called.
        """

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        *,
        single: bool,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        explain: bool,
        tenants: tuple[str, ...],
        stop: Stop,
        node: Filters,
    ) -> Hits: ...

    def search_stream(
        self,
        queries: Any,
        check: Callable[[Any], tuple[NDArray[np.float32], bool]],
        limit: int,
        params: SearchParams,
        *,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        tenants: tuple[str, ...],
        window: int,
        node: Node | None,
    ) -> Iterator[Hits]:
        """check(query) : queries as `search` takes them, and whether it is one alone; it may raise."""

    def search_mixture(
        self,
        query: MixtureQuery,
        limit: int,
        params: SearchParams,
        owner: bytes,
        *,
        select: tuple[str, ...] | None,
        include_vectors: bool,
        explain: bool,
        tenants: tuple[str, ...],
        node: Node | None,
    ) -> Hits: ...

    def get(
        self, ids: IdBatch, owner: bytes, *, include_vectors: bool, tenants: tuple[str, ...], node: Node | None
    ) -> Any:
        """A list with a Record or None per id; of one bare id (`ids.scalar`) the Record or None itself."""

    def get_matching(
        self,
        node: Node | None,
        limit: int | None,
        owner: bytes | None,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...],
    ) -> list[Record]:
        """In row order. limit None: all, LimitExceeded where they are more than `limits.get_records_max`."""

    def iter(
        self,
        batch: int,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...],
        node: Node | None,
        after: str | None,
        limit: int | None,
        order_by: str | None,
        descending: bool,
    ) -> Iterator[Page]:
        """Pages of `batch` records, `limit` records in all. after : a page's cursor, which this backend made."""

    def count(self, tenants: tuple[str, ...], node: Node | None) -> int: ...

    def tenants(self, after: str | None, limit: int | None) -> Iterator[str]: ...

    def facets(self, field: str, node: Node | None, limit: int, tenants: tuple[str, ...]) -> Facets: ...

    def distinct(self, field: str, node: Node | None, tenants: tuple[str, ...]) -> list[Any]: ...

    def extreme(self, field: str, node: Node | None, tenants: tuple[str, ...], *, largest: bool) -> Any:
        """None where no record has a value."""

    def fields(self, tenants: tuple[str, ...]) -> dict[str, dict[str, Any]]: ...

    # -- care --------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]: ...

    def tenant_stats(self, name: str) -> dict[str, Any]: ...

    def evaluate(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        tenants: tuple[str, ...],
        node: Node | None,
        *,
        truth: IdBatch | None,
        stop: Stop,
    ) -> dict[str, Any]:
        """truth : of each query as many ids, nearest first, query after query; None: exact search."""

    def tune(
        self, queries: NDArray[np.float32], limit: int, recall: float, node: Node | None
    ) -> list[dict[str, float]]:
        """With a filter nothing is kept: the curve is of searches among the records that match."""

    def optimize(self, threads: int | None, progress: Progress) -> None: ...

    def reindex(self, index: IndexConfig | None, progress: Progress) -> None: ...

    def vacuum(self, progress: Progress) -> None: ...

    def check(self) -> list[str]: ...


class DatabaseBackend(Protocol[C_co]):
    """One database."""

    @property
    def path(self) -> Path | str:
        """Its directory, or its address."""

    @property
    def read_only(self) -> bool: ...

    @property
    def closed(self) -> bool: ...

    def create_collection(self, config: CollectionConfig, exist_ok: bool) -> C_co: ...

    def collection(self, name: str) -> C_co: ...

    def collections(self, tenant: bytes | None = None) -> list[str]: ...

    def drop_collection(self, name: str) -> None: ...

    def rename_collection(self, old: str, new: str) -> None: ...

    def set_alias(self, alias: str, collection: str) -> None: ...

    def drop_alias(self, alias: str) -> None: ...

    def aliases(self) -> dict[str, str]: ...

    def stats(self, disk: bool) -> dict[str, Any]: ...

    def sequence(self) -> int | dict[int, int]:
        """Of several shards a dict with the number of each."""

    def wait_for(self, sequence: Any, timeout_s: float) -> None:
        """sequence : as the caller gave it; such as `sequence` returns."""

    def vacuum(self, progress: Progress) -> None: ...

    def check(self) -> list[str]: ...

    def backup(self, path: str, keep: int | None, progress: Progress) -> None: ...

    def close(self) -> None: ...
