"""Writes of a cluster: split by shard, each part one transaction of its shard under the request id of the call, all
sent at once.

Atomic is each part by itself. A call that raises may have been done at some shards; made again with its request id it
is done at the others, and nowhere twice: also where other shards have the records by then, which know what those before
have done (commit/idempotency.py).
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits, validate
from vecdb.api.backend import Batch, Mode
from vecdb.client.remote_collection import RemoteCollection
from vecdb.cluster.asking.legs import FanOut, together
from vecdb.cluster.asking.shards import Shards
from vecdb.cluster.placement import Placement
from vecdb.cluster.slots import slot_of_text, slots_of
from vecdb.errors import AlreadyExists, InvalidArgument, PermissionDenied
from vecdb.schema import CollectionConfig
from vecdb.v1 import admin_pb2
from vecdb.validate import AccessLists, IdBatch, SomeVectors

Positions = NDArray[np.int64]
_ADD_TRIES = 8
_TIME_SHIFT = 22  # bits of a made id below its milliseconds
_ID_BITS = 63


class Split:
    """Which records of a call are of which shard. parts : shard and positions, None for all of them."""

    def __init__(self, placement: Placement, ids: IdBatch, owner: bytes) -> None:
        self.n = ids.n
        self.parts: list[tuple[int, Positions | None]]
        if owner or ids.n <= 1:
            slot = slot_of_text(owner) if owner else int(slots_of(ids)[0]) if ids.n else 0
            self.parts = [(placement.shard_of(slot), None)]
            return
        shards = placement.shards_of(slots_of(ids))
        numbers = np.unique(shards).tolist()
        if len(numbers) == 1:
            self.parts = [(numbers[0], None)]
        else:
            self.parts = [(number, np.flatnonzero(shards == number)) for number in numbers]


def part_of(batch: Batch, at: Positions | None) -> Batch:
    """The records at some positions, ascending."""
    if at is None:
        return batch
    some = SomeVectors(batch.vectors, batch.bare).take(at)
    return Batch(
        batch.ids.take(at),
        some.vectors,
        None if batch.fields is None else [batch.fields[one] for one in at.tolist()],
        None if batch.tenants is None else batch.tenants.take(at, batch.ids.n),
        some.bare,
    )


def part_id(request_id: bytes | None) -> bytes:
    """The request id of the parts of a call, of which each is at another shard. None: of a call that has none a new one
    for each part.
    """
    if request_id is None:
        return uuid.uuid4().hex.encode()
    if len(request_id) <= limits.request_id_bytes_max:
        return request_id
    return hashlib.blake2b(request_id, digest_size=32).hexdigest().encode()


def made_ids(kind: str | None, n: int, request_id: bytes | None) -> IdBatch:
    """New ids, which others hardly ever make: ints, or where ids are strings UUIDs of version 7, by time, ascending.

    ints      41 bits of milliseconds since 1970, 22 bits that count up from a random number
    request_id : a call that is repeated with it makes the same ids, which are of no time.
    """
    seed = uuid.uuid4().bytes if request_id is None else b"request" + request_id
    random = int.from_bytes(hashlib.blake2b(seed, digest_size=16).digest(), "big")
    now_ms = int(time.time() * 1e3)
    if kind == "str":
        low = random % (1 << 72)
        head = (now_ms if request_id is None else random >> 80) << 80 | 7 << 76 | 2 << 62
        numbers = range(low, low + n)
        return validate.ids([str(uuid.UUID(int=head | (at >> 62) << 64 | at % (1 << 62))) for at in numbers])
    first = (now_ms << _TIME_SHIFT) + random % (1 << _TIME_SHIFT - 1)
    if request_id is not None:
        first = random % (1 << _ID_BITS - 1)
    return validate.ids(range(first, first + n)) if n else validate.ids(np.empty(0, np.int64))


class ClusterWrites:
    """The writes of one collection. know() : the collection's configuration, in which its kind of ids and dim are
    known if any write has given them.
    """

    def __init__(self, shards: Shards, know: Callable[[], CollectionConfig], note: Callable[..., None]) -> None:
        self._shards = shards
        self._know = know
        self._note = note
        self._names_made: set[bytes] = set()

    @property
    def _placement(self) -> Placement:
        return self._shards.members.current()

    def _at(self, shard: int, *, later: bool = True) -> Any:
        return RemoteCollection(self._shards.only(shard, later=later), self._know())  # type: ignore[arg-type]

    def _sent(self, ids: IdBatch, owner: bytes, call: Callable[[int, Positions | None], Any]) -> tuple[Split, FanOut]:
        """Split a call and send its parts. call(shard, positions) : one part, which begins later."""
        while True:
            placement = self._placement
            split = Split(placement, ids, owner)
            calls = [call(shard, at) for shard, at in split.parts]
            if self._shards.members.placement.runs == placement.runs:  # else slots moved between the two
                return split, together(calls)

    def check(self, ids: IdBatch | None, vectors: NDArray[Any] | None = None) -> None:
        """Raise InvalidArgument where ids or vectors are not as the collection's. A shard that has no records yet
        would take any.
        """
        config = self._know()
        if ids is not None and ids.n and config.id_kind is not None and ids.kind != config.id_kind:
            raise InvalidArgument(
                f"collection '{config.name}' has {config.id_kind} ids, got {ids.kind} ids: ids are all ints or all "
                "strings"
            )
        if vectors is not None and len(vectors) and config.dim and vectors.shape[1] != config.elements:
            raise InvalidArgument(
                f"collection '{config.name}' has dim {config.dim}, got {vectors.shape[1]}: pass vectors of that length"
            )

    def put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> int:
        return self._gathered(self._put(batch, owner, mode, request_id), batch)

    def _put(self, batch: Batch, owner: bytes, mode: Mode, request_id: bytes | None) -> FanOut:
        self.check(batch.ids, batch.vectors)
        self._make_names(batch.tenants)
        return self._sent(
            batch.ids,
            owner,
            lambda shard, at: self._at(shard).put(part_of(batch, at), owner, mode, part_id(request_id)),
        )[1]

    def _gathered(self, call: FanOut, batch: Batch) -> int:
        count = int(sum(call.values().values()))
        self._note(batch.ids, batch.vectors)
        return count

    def put_all(self, batches: Iterable[Batch], owner: bytes, mode: Mode) -> int:
        """The next batch is made while one is on its way; they arrive in order."""
        count, before = 0, None
        for batch in batches:
            if before is not None:
                count += self._gathered(*before)
            before = self._put(batch, owner, mode, None), batch
        return count if before is None else count + self._gathered(*before)

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
        self.check(None, vectors)
        kind = self._know().id_kind
        shards = self._shards.numbers
        if len(shards) == 1 or (owner and kind != "str"):  # the one that has all of this owner's records counts on
            self._make_names(tenants)
            shard = self._placement.shard_of(slot_of_text(owner)) if owner else shards[0]
            call = self._at(shard, later=False).add(
                vectors, fields, tenants, owner, part_id(request_id), single=single, bare=bare
            )
            found = call.value()
            self._note(validate.ids(found), vectors)
            return found
        made = self._add_under_new_ids(SomeVectors(vectors, bare), fields, tenants, owner, request_id)
        return made[0] if single else made

    def _add_under_new_ids(
        self,
        some: SomeVectors,
        fields: list[bytes] | None,
        tenants: AccessLists | None,
        owner: bytes,
        request_id: bytes | None,
    ) -> list[Any]:
        """Insert records. Those of a shard that has one of the ids already, which is as good as never, get others."""
        self._make_names(tenants)
        kind = self._know().id_kind
        found: list[Any] = [None] * some.n
        left = np.arange(some.n)
        for attempt in range(_ADD_TRIES):
            again = request_id if request_id is None or not attempt else request_id + f"+{attempt}".encode()
            ids = made_ids(kind, len(left), again)
            records = Batch(ids, some.vectors, fields, tenants, some.bare)
            if attempt:
                rest = some.take(left)
                records = Batch(
                    ids,
                    rest.vectors,
                    None if fields is None else [fields[at] for at in left.tolist()],
                    None if tenants is None else tenants.take(left, some.n),
                    rest.bare,
                )
            split, call = self._sent(ids, owner, partial(self._insert, records, owner, again))
            legs = call.gather()
            taken = []
            for leg, (_, at) in zip(legs, split.parts, strict=True):
                places = np.arange(len(left)) if at is None else at
                if isinstance(leg.error, AlreadyExists):
                    taken.append(left[places])
                elif leg.error is not None:
                    raise leg.error
                for place in places.tolist():
                    found[left[place]] = ids.keys[place].decode() if ids.ints is None else int(ids.ints[place])
            self._note(ids, some.vectors)
            if not taken:
                return found
            left = np.sort(np.concatenate(taken))
        raise AlreadyExists(f"no new ids were found in {_ADD_TRIES} tries; try again")

    def _insert(self, records: Batch, owner: bytes, request_id: bytes | None, shard: int, at: Positions | None) -> Any:
        return self._at(shard).put(part_of(records, at), owner, "insert", part_id(request_id))

    def update(
        self,
        ids: IdBatch,
        vectors: NDArray[Any] | None,
        fields: list[bytes] | None,
        owner: bytes,
        request_id: bytes | None,
    ) -> int:
        self.check(ids, vectors)

        def part(shard: int, at: Positions | None) -> Any:
            some = vectors if at is None or vectors is None else np.ascontiguousarray(vectors[at])
            changes = fields if at is None or fields is None else [fields[one] for one in at.tolist()]
            which = ids if at is None else ids.take(at)
            return self._at(shard).update(which, some, changes, owner, part_id(request_id))

        count = int(sum(self._sent(ids, owner, part)[1].values().values()))
        self._note(ids, vectors)
        return count

    def delete(self, ids: IdBatch, owner: bytes, request_id: bytes | None) -> int:
        self.check(ids)

        def part(shard: int, at: Positions | None) -> Any:
            return self._at(shard).delete(ids if at is None else ids.take(at), owner, part_id(request_id))

        return int(sum(self._sent(ids, owner, part)[1].values().values()))

    def change_access(
        self, ids: IdBatch, tenants: AccessLists, owner: bytes | None, *, granted: bool, request_id: bytes | None
    ) -> int:
        self.check(ids)
        if granted:
            self._make_names(tenants)

        def part(shard: int, at: Positions | None) -> Any:
            return self._at(shard).change_access(
                ids if at is None else ids.take(at),
                tenants if at is None else tenants.take(at, ids.n),
                owner,
                granted=granted,
                request_id=part_id(request_id),
            )

        split, call = self._sent(ids, owner or b"", part)
        count = int(sum(call.values().values()))
        if not granted:
            self._wait_for_copies([shard for shard, _ in split.parts])
        return count

    def clear(self, request_id: bytes | None) -> int:
        calls = [self._at(shard).clear(part_id(request_id)) for shard in self._shards.numbers]
        return int(sum(together(calls).values().values()))

    # -- tenants -------------------------------------------------------------------------------------

    def _make_names(self, tenants: AccessLists | None) -> None:
        """Let the first shard know the tenants of a write: which names there are, it decides (`create_tenants`)."""
        if tenants is None or len(self._shards.numbers) == 1:
            return
        new = [name for name in tenants.names if name not in self._names_made]
        if new:
            first = self._shards.numbers[0]
            with suppress(PermissionDenied):  # a token that only writes makes tenants where its records are
                self._at(first, later=False).create_tenants(new, True, None, part_id(None)).value()
            self._remember_names(new)

    def _remember_names(self, names: list[bytes]) -> None:
        if len(self._names_made) + len(names) > limits.tenants_per_call_max:
            self._names_made.clear()
        self._names_made.update(names)

    def create_tenants(
        self, names: list[bytes], exist_ok: bool, records_max: int | None, request_id: bytes | None
    ) -> int:
        first, *others = self._shards.numbers
        count = self._at(first, later=False).create_tenants(names, exist_ok, records_max, part_id(request_id))
        made = int(count.value())
        together(
            [self._at(shard).create_tenants(names, True, records_max, part_id(request_id)) for shard in others]
        ).values()
        self._remember_names(names)
        return made

    def drop_tenant(self, name: bytes, records: bool, request_id: bytes | None) -> int | None:
        self._names_made.discard(name)
        calls = [self._at(shard).drop_tenant(name, records, part_id(request_id)) for shard in self._shards.numbers]
        found = known_ones(together(calls))
        self._wait_for_copies(self._shards.numbers)
        return sum(found.values()) if records else None

    def _wait_for_copies(self, shards: Iterable[int]) -> None:
        """Until copies have the writes, or do not answer any more. The writer has waited already for as long as a copy
        may go on without them; this is for copies that were told to answer for longer.
        """
        members, waiting = self._shards.members, []
        for shard in shards:
            request = admin_pb2.GetServerInfoRequest(min_sequence=members.needed(shard))
            for server in members.copies(shard):
                with suppress(Exception):  # a copy that cannot be asked does not answer searches either
                    waiting.append((server, server.start("GetServerInfo", request, limits.cluster_revoke_s)))
        for server, call in waiting:
            with suppress(Exception):
                server.note_answer(call.result())


def known_ones(call: FanOut) -> dict[int, Any]:
    """What shards answered to a call about tenants, without those that do not know the tenants. Raises where none
    does.
    """
    legs = call.gather()
    unknown = [leg.error for leg in legs if is_no_tenant(leg.error)]
    if len(unknown) == len(legs) and unknown[0] is not None:
        raise unknown[0]
    known = FanOut([leg for leg in legs if not is_no_tenant(leg.error)], later=True)
    return known.values()


def is_no_tenant(error: Exception | None) -> bool:
    return getattr(error, "what", None) == "tenant"
