"""ClusterCollection: the backend of a `Collection` whose records are spread over shards.

A read of ids asks the shards that have them; all else asks all shards and puts the answers together (merging.py). What
the shards are asked, and what they answer, is made by the backend of one server (client/remote_collection.py).

A tenant that a shard does not know has no records there; only one that no shard knows is not found.

Threads: any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.api.backend import Batch, Mode, Progress, Stop
from vecdb.api.filter_arguments import Filters, Page
from vecdb.api.hits import Hits
from vecdb.client.remote_collection import RemoteCollection
from vecdb.cluster import listing, merging
from vecdb.cluster.asking import two_rounds
from vecdb.cluster.asking.legs import FanOut, Leg, ShardsUnavailable, together, unavailable
from vecdb.cluster.asking.long_work import SharedProgress, run_all
from vecdb.cluster.asking.shards import Shards
from vecdb.cluster.cluster_writes import ClusterWrites, Split, is_no_tenant, known_ones, part_id
from vecdb.cluster.slots import slot_of_text
from vecdb.errors import LimitExceeded, NotFound
from vecdb.filters.tree import Node
from vecdb.schema import CollectionConfig, Facets, IndexConfig, Record, SearchParams
from vecdb.validate import AccessLists, IdBatch, MixtureQuery
from vecdb.validate.not_found import tenant_not_found

T = TypeVar("T")


class ClusterCollection:
    """partial : searches answer without shards that cannot be reached, and say which are missing."""

    def __init__(self, shards: Shards, config: CollectionConfig, *, partial: bool) -> None:
        self._shards = shards
        self._config = config
        self._partial = partial
        self._lock = threading.Lock()  # of the config
        self._writes = ClusterWrites(shards, self._known_config, self._note)

    # -- what it is ----------------------------------------------------------------------------------

    @property
    def id_kind(self) -> Literal["int", "str"] | None:
        return self._config.id_kind

    @property
    def dim(self) -> int:
        return self._config.dim

    @property
    def rows_per_call(self) -> int:
        return int(self._every().rows_per_call)

    def config(self) -> CollectionConfig:
        known = self._shards.again(lambda: list(self._every().config().values().values()))
        found = merging.merge_config(self._config.name, known)
        with self._lock:
            facts = {"dim": found.dim or self.dim, "id_kind": found.id_kind or self.id_kind, "index": found.index}
            self._config = replace(self._config, **facts)  # type: ignore[arg-type]
        return found

    def _known_config(self) -> CollectionConfig:
        if self._config.id_kind is None or not self._config.dim:
            self.config()
        return self._config

    def _note(self, ids: IdBatch, vectors: NDArray[Any] | None) -> None:
        """A write was done: what it gave to a collection that had no records."""
        if ids.n and (self._config.id_kind is None or not self._config.dim):
            with self._lock:
                dim = self._config.dim or (0 if vectors is None or not len(vectors) else vectors.shape[1])
                self._config = replace(self._config, dim=dim, id_kind=self._config.id_kind or ids.kind)

    def with_timeout(self, seconds: float) -> ClusterCollection:
        return ClusterCollection(self._shards.with_timeout(seconds), self._config, partial=self._partial)

    @property
    def _tenant(self) -> bytes:
        """Of the token: who owns what it writes."""
        return self._shards.members.tenant

    def _every(self) -> Any:
        """All shards at once."""
        return RemoteCollection(self._shards, self._config)  # type: ignore[arg-type]

    def _at(self, *shards: int, later: bool = False) -> Any:
        return RemoteCollection(self._shards.only(*shards, later=later), self._config)  # type: ignore[arg-type]

    # -- writes --------------------------------------------------------------------------------------

    def put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> int:
        return self._writes.put(batch, owner or self._tenant, mode, request_id)

    def put_all(self, batches: Iterable[Batch], owner: bytes, mode: Mode) -> int:
        return self._writes.put_all(batches, owner or self._tenant, mode)

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
        owner = owner or self._tenant
        return self._writes.add(vectors, fields, tenants, owner, request_id, single=single, bare=bare)

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        self._every().set_metadata(metadata).values()

    def clear(self, request_id: bytes | None) -> int:
        return self._writes.clear(request_id)

    def update(
        self,
        ids: IdBatch,
        vectors: NDArray[Any] | None,
        fields: list[bytes] | None,
        owner: bytes,
        request_id: bytes | None,
    ) -> int:
        return self._writes.update(ids, vectors, fields, owner or self._tenant, request_id)

    def delete(self, ids: IdBatch, owner: bytes, request_id: bytes | None) -> int:
        return self._writes.delete(ids, owner or self._tenant, request_id)

    def update_matching(
        self, node: Node, fields: bytes, owner: bytes | None, tenants: tuple[str, ...], request_id: bytes | None
    ) -> int:
        return self._write_matching(
            owner, tenants, request_id, lambda at, some, part: at.update_matching(node, fields, owner, some, part)
        )

    def delete_matching(
        self, node: Node, owner: bytes | None, tenants: tuple[str, ...], request_id: bytes | None
    ) -> int:
        return self._write_matching(
            owner, tenants, request_id, lambda at, some, part: at.delete_matching(node, owner, some, part)
        )

    def _write_matching(
        self,
        owner: bytes | None,
        tenants: tuple[str, ...],
        request_id: bytes | None,
        write: Callable[[Any, tuple[str, ...], bytes], FanOut],
    ) -> int:
        found = self._of_tenants(
            tenants,
            lambda shards, some: together(
                [write(self._at(shard, later=True), some, part_id(request_id)) for shard in shards]
            ),
            self._shards_of(owner),
        )
        return sum(found.values())

    def change_access(
        self, ids: IdBatch, tenants: AccessLists, owner: bytes | None, *, granted: bool, request_id: bytes | None
    ) -> int:
        if owner is not None and not granted and tenants.names == [self._tenant]:
            return self._leave(ids, tenants, request_id)
        if owner is not None:
            owner = owner or self._tenant
        return self._writes.change_access(ids, tenants, owner, granted=granted, request_id=request_id)

    def _leave(self, ids: IdBatch, tenants: AccessLists, request_id: bytes | None) -> int:
        """A tenant's token gives up what others share with it, which lies where its owners' records are: each record by
        itself is looked for at all shards.
        """
        count = 0
        for at in range(ids.n):
            one = np.array([at])
            calls = []
            for shard in self._shards.numbers:
                part = part_id(None if request_id is None else request_id + f"#{at}".encode())
                some = tenants.take(one, ids.n)
                calls.append(
                    self._at(shard, later=True).change_access(ids.take(one), some, b"", granted=False, request_id=part)
                )
            legs = together(calls).gather()
            errors = [leg.error for leg in legs if leg.error is not None]
            for error in errors:
                if len(errors) == len(legs) or not isinstance(error, NotFound):
                    raise error
            count += sum(leg.value for leg in legs if leg.error is None)
        return count

    def create_tenants(
        self, names: list[bytes], exist_ok: bool, records_max: int | None, request_id: bytes | None
    ) -> int:
        return self._writes.create_tenants(names, exist_ok, records_max, request_id)

    def drop_tenant(self, name: bytes, records: bool, request_id: bytes | None) -> int | None:
        return self._writes.drop_tenant(name, records, request_id)

    # -- whom to ask ---------------------------------------------------------------------------------

    def _shards_of(self, owner: bytes | None) -> tuple[int, ...]:
        """The shards that may have records of an owner. None: everybody's."""
        numbers = self._shards.numbers
        return numbers if not owner else (self._shards.members.current().shard_of(slot_of_text(owner)),)

    def _of_tenants(
        self,
        tenants: tuple[str, ...],
        ask: Callable[[tuple[int, ...], tuple[str, ...]], FanOut],
        shards: tuple[int, ...] | None = None,
    ) -> dict[int, Any]:
        """What each shard answers about records of tenants, without shards that know none of them. ask(shards,
        tenants) : a call to some shards.
        """
        answered = partial(self._answered, tenants, ask, shards, partial=False)
        legs, _ = self._shards.again(answered) if shards is None else answered()
        return {leg.shard: leg.value for leg in legs}

    def _answered(
        self,
        tenants: tuple[str, ...],
        ask: Callable[[tuple[int, ...], tuple[str, ...]], FanOut],
        shards: tuple[int, ...] | None,
        *,
        partial: bool,
    ) -> tuple[list[Leg], tuple[int, ...]]:
        """(Calls that were answered, shards that are missing)."""
        runs = self._shards.members.current().runs
        numbers = self._shards.numbers if shards is None else shards
        legs = list(ask(numbers, tenants).gather())
        if tenants and any(is_no_tenant(leg.error) for leg in legs):
            legs = self._asked_again(tenants, ask, legs)
        gone: list[ShardsUnavailable] = []
        for leg in legs:
            if isinstance(leg.error, ShardsUnavailable):
                gone.append(leg.error)
            elif leg.error is not None:
                raise leg.error
        if gone and (not partial or len(gone) == len(legs)):
            raise unavailable(gone)
        if gone and self._shards.have_moved(runs, unavailable(gone)):  # they have no slots any more
            raise unavailable(gone)
        missing = tuple(sorted(shard for error in gone for shard in error.shards))
        return sorted((leg for leg in legs if leg.error is None), key=lambda leg: leg.shard), missing

    def _asked_again(
        self, tenants: tuple[str, ...], ask: Callable[[tuple[int, ...], tuple[str, ...]], FanOut], legs: list[Leg]
    ) -> list[Leg]:
        """The calls of shards that know all of the tenants, and those of the others for the ones they know."""
        without = [leg for leg in legs if is_no_tenant(leg.error)]
        kept = [leg for leg in legs if not is_no_tenant(leg.error)]
        if len(tenants) == 1:
            if not kept:
                raise without[0].error or AssertionError("an error")
            return kept
        known = self._tenants_at(tenants, [leg.shard for leg in without], all_known=bool(kept))
        for some in dict.fromkeys(known.values()):
            if some:
                kept += ask(tuple(shard for shard, names in known.items() if names == some), some).gather()
        return kept

    def _tenants_at(
        self, tenants: tuple[str, ...], shards: Iterable[int] | None = None, *, all_known: bool = False
    ) -> dict[int, tuple[str, ...]]:
        """Which of the tenants each shard knows. Raises NotFound where one is known to none, unless all are."""
        numbers = tuple(self._shards.numbers if shards is None else shards)
        known: dict[int, list[str]] = {shard: [] for shard in numbers}
        for name in tenants:
            for leg in self._at(*numbers).tenant_stats(name).gather():
                if leg.error is None:
                    known[leg.shard].append(name)
                elif not is_no_tenant(leg.error):
                    raise leg.error
            if not all_known and not any(name in names for names in known.values()):
                raise tenant_not_found(self._config.name, name)
        return {shard: tuple(names) for shard, names in known.items()}

    # -- searches ------------------------------------------------------------------------------------

    def search_one(self, query: NDArray[Any] | list[Any], limit: Any, params: Any, fields: Any) -> Hits | None:
        return None  # a message is made of checked arguments

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
    ) -> Hits:
        def ask(shards: tuple[int, ...], some: tuple[str, ...]) -> Any:
            return self._at(*shards).search(
                queries, limit, params, single=single, select=select, include_vectors=include_vectors,
                explain=explain, tenants=some, stop=stop, node=node,
            )  # fmt: skip

        if self._config.index is not None and self._config.index.kind == "spann" and not isinstance(node, tuple):
            found = self._in_rounds(
                queries, limit, params, tenants, single=single, select=select, include_vectors=include_vectors,
                explain=explain, stop=stop, node=node,
            )  # fmt: skip
            if found is not None:
                return found
        return self._merged(ask, tenants, limit, select, len(queries), single)

    def _in_rounds(
        self,
        queries: NDArray[np.float32],
        limit: int,
        params: SearchParams,
        tenants: tuple[str, ...],
        *,
        single: bool,
        select: tuple[str, ...] | None,
        stop: Stop,
        **options: Any,
    ) -> Hits | None:
        """What a search of list indexes finds in two rounds; None where it is to be made in one. options : those of
        `search`.
        """
        members = self._shards.members
        # under a tenant's token every shard would settle
        if members.tenant or not two_rounds.is_worth_it(len(queries), limit, params, len(self._shards.numbers)):
            return None

        def search(
            shards: tuple[int, ...], some: tuple[str, ...], rounds: dict[str, Any], first: str | None = None
        ) -> Any:
            at = RemoteCollection(self._shards.only(*shards, later=first is not None, first=first), self._config)  # type: ignore[arg-type]
            return at.search_round(
                queries, limit, params, rounds, single=single, select=select, stop=stop, tenants=some, **options
            )

        made = two_rounds.SearchInRounds(
            search, len(queries), limit, params.rerank, self._config.metric, single, select, stop
        )  # fmt: skip
        runs = members.current().runs
        found = made.hits(
            lambda ask: self._shards.again(lambda: self._answered(tenants, ask, None, partial=self._partial))
        )
        return found if members.placement.runs == runs else None  # records have moved from one shard to another

    def _merged(
        self,
        ask: Callable[[tuple[int, ...], tuple[str, ...]], FanOut],
        tenants: tuple[str, ...],
        limit: int,
        select: tuple[str, ...] | None,
        queries: int,
        single: bool,
    ) -> Hits:
        legs, missing = self._shards.again(lambda: self._answered(tenants, ask, None, partial=self._partial))
        found = {leg.shard: leg.value for leg in legs}
        return merging.merge_hits(
            found, limit, self._config.metric, select, queries=queries, single=single, missing=missing
        )

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
        from vecdb.cluster.streaming import answers_in_order

        def begin(query: Any) -> Callable[[], Hits]:
            array, single = check(query)

            def ask(shards: tuple[int, ...], some: tuple[str, ...]) -> Any:
                return self._at(*shards).search(
                    array, limit, params, single=single, select=select, include_vectors=include_vectors,
                    explain=False, tenants=some, stop=None, node=node,
                )  # fmt: skip

            begun: list[Any] = [ask(self._shards.numbers, tenants)]

            def again(shards: tuple[int, ...], some: tuple[str, ...]) -> Any:
                return begun.pop() if begun else ask(shards, some)

            return partial(self._merged, again, tenants, limit, select, len(array), single)

        return answers_in_order(queries, begin, window)

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
    ) -> Hits:
        from vecdb.cluster.mixtures import find_mixture, users_of

        if len(self._shards.numbers) == 1:  # which has cells of its own
            found: Hits = self._every().search_mixture(
                query, limit, params, owner, select=select, include_vectors=include_vectors, explain=explain,
                tenants=tenants, node=node,
            ).value()  # fmt: skip
            return found
        users = users_of(self.get, query, owner, tenants, self._config.name)

        def find(means: NDArray[np.float32], depth: int) -> Hits:
            return self.search(
                means, depth, params, single=False, select=select, include_vectors=include_vectors,
                explain=explain, tenants=tenants, stop=None, node=node,
            )  # fmt: skip

        return find_mixture(find, users, query, limit, owner, self._config)

    # -- records -------------------------------------------------------------------------------------

    def get(
        self, ids: IdBatch, owner: bytes, *, include_vectors: bool, tenants: tuple[str, ...], node: Node | None
    ) -> Any:
        self._writes.check(ids)
        if self._tenant and not owner:
            found = self._own_or_nobodys(ids, include_vectors=include_vectors, tenants=tenants, node=node)
            return found[0] if ids.scalar else found
        return self._shards.again(
            partial(self._get, ids, owner, include_vectors=include_vectors, tenants=tenants, node=node)
        )

    def _own_or_nobodys(self, ids: IdBatch, **options: Any) -> list[Record | None]:
        """Of a tenant's token: its own records, and where it has none of an id that without an owner."""
        every = replace(ids, scalar=False)
        found: list[Record | None] = self._shards.again(partial(self._get, every, self._tenant, **options))
        absent = np.array([at for at, record in enumerate(found) if record is None], np.int64)
        if len(absent):
            for at, record in zip(
                absent.tolist(), self._shards.again(partial(self._get, ids.take(absent), b"", **options)), strict=True
            ):
                found[at] = record
        return found

    def _get(
        self, ids: IdBatch, owner: bytes, *, include_vectors: bool, tenants: tuple[str, ...], node: Node | None
    ) -> Any:
        split = Split(self._shards.members.current(), ids, owner)
        places = dict(split.parts)

        def ask(shards: tuple[int, ...], some: tuple[str, ...]) -> FanOut:
            calls = []
            for shard in shards:
                at = places[shard]
                which = ids if at is None else ids.take(at)
                calls.append(
                    self._at(shard, later=True).get(
                        which, owner, include_vectors=include_vectors, tenants=some, node=node
                    )
                )
            return together(calls)

        if tenants:
            self._tenants_at(tenants)
        try:
            found = self._of_tenants(tenants, ask, tuple(places))
        except NotFound as error:
            if not is_no_tenant(error):
                raise
            found = {}  # the tenants have no records at these shards
        if ids.scalar:
            return next(iter(found.values()), None)
        records: list[Record | None] = [None] * ids.n
        for shard, some in found.items():
            at = places[shard]
            for place, record in zip(range(ids.n) if at is None else at.tolist(), some, strict=True):
                records[place] = record
        return records

    def get_matching(
        self,
        node: Node | None,
        limit: int | None,
        owner: bytes | None,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...],
    ) -> list[Record]:
        return self._shards.again(
            partial(self._get_matching, node, limit, owner, include_vectors=include_vectors, tenants=tenants)
        )

    def _get_matching(
        self,
        node: Node | None,
        limit: int | None,
        owner: bytes | None,
        *,
        include_vectors: bool,
        tenants: tuple[str, ...],
    ) -> list[Record]:
        known = self._tenants_at(tenants) if tenants else None
        begun = [
            self._at(shard).get_matching(
                node, limit, owner, include_vectors=include_vectors, tenants=() if known is None else known[shard]
            )
            for shard in self._shards_of(owner)
            if known is None or known[shard]
        ]
        records: list[Record] = []
        for gather in begun:
            if limit is None or len(records) < limit:
                records += gather()
        if limit is None and len(records) > limits.get_records_max:
            raise LimitExceeded(
                f"get returns at most {limits.get_records_max:,} records, {len(records):,} match: give a limit, or go "
                "through them with iter"
            )
        return records[:limit]

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
        order = listing.ListOrder(self._config.name, order_by, descending)
        go = listing.pages_in_turn if order_by is None else listing.pages_in_order

        def begun() -> Iterator[Page]:
            known = self._tenants_at(tenants) if tenants else None

            def pages(shard: int, batch: int, after: str | None, limit: int | None) -> Iterator[Page]:
                found: Iterator[Page] = self._at(shard).iter(
                    batch, include_vectors=include_vectors, tenants=() if known is None else known[shard], node=node,
                    after=after, limit=limit, order_by=order_by, descending=descending,
                )  # fmt: skip
                return found

            shards = [shard for shard in self._shards.numbers if known is None or known[shard]]
            if after is not None:
                order.decode(after)
            return go(order, shards, pages, batch, after, limit)

        return self._shards.begun_again(begun)

    def count(self, tenants: tuple[str, ...], node: Node | None) -> int:
        found = self._of_tenants(tenants, lambda shards, some: self._at(*shards).count(some, node))
        return sum(found.values())

    def tenants(self, after: str | None, limit: int | None) -> Iterator[str]:
        from vecdb.cluster.streaming import merged_names

        return self._shards.begun_again(
            lambda: merged_names([self._at(shard).tenants(after, limit) for shard in self._shards.numbers], limit)
        )

    def facets(self, field: str, node: Node | None, limit: int, tenants: tuple[str, ...]) -> Facets:
        most = limits.facets_max if len(self._shards.numbers) > 1 else limit
        found = self._of_tenants(
            tenants, lambda shards, some: self._at(*shards).facets(field, node, most, some)
        )  # fmt: skip
        return merging.merge_facets(list(found.values()), limit)

    def distinct(self, field: str, node: Node | None, tenants: tuple[str, ...]) -> list[Any]:
        found = self._of_tenants(tenants, lambda shards, some: self._at(*shards).distinct(field, node, some))
        return merging.merge_distinct(list(found.values()))

    def extreme(self, field: str, node: Node | None, tenants: tuple[str, ...], *, largest: bool) -> Any:
        found = self._of_tenants(
            tenants, lambda shards, some: self._at(*shards).extreme(field, node, some, largest=largest)
        )
        return merging.merge_extremes(field, list(found.values()), largest=largest)

    def fields(self, tenants: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        found = self._of_tenants(tenants, lambda shards, some: self._at(*shards).fields(some))
        return merging.merge_fields(list(found.values()))

    # -- care ----------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        return merging.merge_stats(self._shards.again(lambda: self._every().stats().values()))

    def tenant_stats(self, name: str) -> dict[str, Any]:
        return merging.merge_stats(self._shards.again(lambda: known_ones(self._every().tenant_stats(name))))

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
        from vecdb.cluster.evaluating import evaluate

        def search(some: NDArray[np.float32], params: SearchParams, *, single: bool, explain: bool = False) -> Hits:
            return self.search(
                some, limit, params, single=single, select=(), include_vectors=False, explain=explain,
                tenants=tenants, stop=stop, node=node,
            )  # fmt: skip

        return evaluate(search, queries, limit, params, truth=truth, stop=stop)

    def tune(
        self, queries: NDArray[np.float32], limit: int, recall: float, node: Node | None
    ) -> list[dict[str, float]]:
        return merging.merge_curves(list(self._every().tune(queries, limit, recall, node).values().values()))

    def optimize(self, threads: int | None, progress: Progress) -> None:
        shared = SharedProgress(progress)
        run_all([self._at(shard).optimize(threads, shared.of(shard)) for shard in self._shards.numbers])

    def reindex(self, index: IndexConfig | None, progress: Progress) -> None:
        shared = SharedProgress(progress)
        run_all([self._at(shard).reindex(index, shared.of(shard)) for shard in self._shards.numbers])

    def vacuum(self, progress: Progress) -> None:
        shared = SharedProgress(progress)
        run_all([self._at(shard).vacuum(shared.of(shard)) for shard in self._shards.numbers])

    def check(self) -> list[str]:
        shards = self._shards.numbers
        found = run_all([self._at(shard).check() for shard in shards])
        return [f"shard {shard}: {one}" for shard, some in zip(shards, found, strict=True) for one in some]
