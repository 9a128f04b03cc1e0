"""Which shard has which slots, and which servers answer for a shard: one object of a bucket.

    cluster://s3/bucket/prefix   cluster://gs/bucket/prefix   cluster://az/container/prefix   cluster:///folder

    prefix/placement.json        {"format": 1, "epoch": n,
                                  "slots": [[shard, how many in a row], ...],                    4,096 in all
                                  "shards": {"0": {"log": "shard-0",
                                                   "writer": "grpc://host:port" or null,
                                                   "copies": ["grpc://host:port", ...]}, ...}}
    prefix/shard-0/...           the log of shard 0, as `vecdb serve --log` writes it

The object is changed by compare-and-swap alone (`change`), which counts `epoch` up: two who change it at once both see
what the other did. A shard may have no slots, and a slot always has a shard.

Threads: a placement is a value; nothing here is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.cluster.slots import SLOTS, Slots
from vecdb.errors import AlreadyExists, Corruption, InvalidArgument, NotFound, Unavailable
from vecdb.replication.bucket import SCHEMES, Bucket, Conflict, open_bucket
from vecdb.validate.common import short_repr
from vecdb.wire.addresses import CLUSTER, is_server

KEY = "placement.json"
_FORMAT = 1
_TRIES_MAX = 100  # of a change that others are faster than
_LOG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def bucket_url(url: str) -> str:
    """The URL of the bucket in which a cluster lies. url : cluster://...   Raises InvalidArgument."""
    rest = url.removeprefix(CLUSTER)
    scheme, _, path = rest.partition("/")
    if rest != url and scheme in ("", "file") and path.strip("/"):
        return f"file:///{path.strip('/')}"
    if rest != url and scheme in SCHEMES and path:
        return f"{scheme}://{path}"
    raise InvalidArgument(
        "the address of a cluster is cluster://s3/bucket/prefix, cluster://gs/..., cluster://az/... or "
        f"cluster:///folder, got {short_repr(url)}"
    )


def cluster_bucket(url: str, *, conditional: bool = False) -> Bucket:
    """The bucket of a cluster. url : cluster://...   conditional : the placement is to be changed.

    Raises what `replication.bucket.open_bucket` does.
    """
    return open_bucket(bucket_url(url), conditional=conditional)


@dataclass(frozen=True, slots=True)
class Shard:
    """log : the folder of its log below the cluster's.   writer : the address of the server that writes it, None while
    there is none.   copies : addresses of servers that follow its log.
    """

    log: str
    writer: str | None = None
    copies: tuple[str, ...] = ()

    @property
    def servers(self) -> tuple[str, ...]:
        """All that answer reads, each once, the writer first."""
        return tuple(dict.fromkeys((*(() if self.writer is None else (self.writer,)), *self.copies)))


@dataclass(frozen=True)
class Placement:
    """epoch : how often it was changed.   runs : (shard, how many slots in a row), from slot 0 on."""

    epoch: int
    runs: tuple[tuple[int, int], ...]
    shards: dict[int, Shard] = field(hash=False)

    @staticmethod
    def even(shards: int) -> Placement:
        """So many shards, 0, 1, ..., with about as many slots each, and no servers yet; each has its log in
        "shard-<number>".
        """
        if not 1 <= shards <= limits.cluster_shards_max:
            raise InvalidArgument(f"a cluster has 1 to {limits.cluster_shards_max} shards, got {short_repr(shards)}")
        ends = [SLOTS * number // shards for number in range(shards + 1)]
        runs = tuple((number, ends[number + 1] - ends[number]) for number in range(shards))
        return Placement(0, runs, {number: Shard(f"shard-{number}") for number in range(shards)})

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """int64[4096]: the shard of each slot."""
        numbers, lengths = np.array(self.runs, np.int64).T
        made = np.repeat(numbers, lengths)
        made.flags.writeable = False
        return made

    def shard_of(self, slot: int) -> int:
        return int(self.table[slot])

    def shards_of(self, slots: Slots) -> NDArray[np.int64]:
        """int64[n], the shards of slots."""
        return self.table[slots]

    @cached_property
    def serving(self) -> tuple[int, ...]:
        """The shards that have slots, ascending: all that a search must ask."""
        return tuple(sorted({number for number, _ in self.runs}))

    # -- other placements ----------------------------------------------------------------------------

    def with_shard(self, number: int, shard: Shard) -> Placement:
        """The same with another shard of that number, or a new one, which has no slots."""
        return replace(self, shards=dict(sorted({**self.shards, number: shard}.items())))

    def with_writer(self, number: int, address: str | None) -> Placement:
        """The same in which that server writes a shard, and is no copy of it any more."""
        shard = self._known(number)
        copies = tuple(one for one in shard.copies if one != address)
        return self.with_shard(number, replace(shard, writer=address, copies=copies))

    def with_copies(self, number: int, addresses: tuple[str, ...]) -> Placement:
        return self.with_shard(number, replace(self._known(number), copies=tuple(addresses)))

    def with_slots(self, table: NDArray[np.int64]) -> Placement:
        """The same with other shards of slots. table : int64[4096]."""
        starts = np.flatnonzero(np.concatenate([[True], table[1:] != table[:-1]]))
        lengths = np.diff(np.append(starts, len(table)))
        return replace(self, runs=tuple(zip(table[starts].tolist(), lengths.tolist(), strict=True)))

    def _known(self, number: int) -> Shard:
        if number not in self.shards:
            raise InvalidArgument(f"this cluster has no shard {short_repr(number)}: it has {sorted(self.shards)}")
        return self.shards[number]

    # -- in a bucket -----------------------------------------------------------------------------------

    @staticmethod
    def read(bucket: Bucket) -> Placement:
        """Raises NotFound where there is none, Corruption for what is none, Unavailable where it is of a newer format,
        or the store does not answer.
        """
        return Placement._versioned(bucket)[0]

    @staticmethod
    def _versioned(bucket: Bucket) -> tuple[Placement, str]:
        found = bucket.get_versioned(KEY)
        if found is None:
            raise NotFound(f"{bucket.url} has no {KEY}: there is no cluster, or it has another address")
        return decoded(found[0], bucket.url), found[1]

    def create(self, bucket: Bucket) -> Placement:
        """Write the first placement of a cluster. bucket : opened with `conditional`. Raises AlreadyExists."""
        made = replace(self, epoch=1)
        try:
            bucket.replace(KEY, made.encode(), None)
        except Conflict:
            if Placement.read(bucket) != made:  # else it is this call's own, whose answer was lost
                raise AlreadyExists(f"{bucket.url} has a cluster already") from None
        return made

    @staticmethod
    def change(bucket: Bucket, function: Callable[[Placement], Placement]) -> Placement:
        """Read, change and write until nobody else was faster. Returns what is there now.

        function : of the placement that is there, the one to be; the same where nothing is to change. It may be called
            several times, also with what it made before, and knows nothing of `epoch`.
        Raises what `read` does, and InvalidArgument where what the function made is no placement.
        """
        for _ in range(_TRIES_MAX):
            known, version = Placement._versioned(bucket)
            wanted = replace(function(known), epoch=known.epoch)
            if wanted == known:
                return known
            made = replace(wanted, epoch=known.epoch + 1)
            try:
                bucket.replace(KEY, made.encode(), version)
                return made
            except Conflict:
                continue
        raise Unavailable(f"{bucket.url}: others changed {KEY} {_TRIES_MAX} times meanwhile; try again")

    def encode(self) -> bytes:
        """Raises InvalidArgument where this is no placement."""
        problem = problem_of(self)
        if problem is not None:
            raise InvalidArgument(f"this is no placement: {problem}")
        shards = {str(number): _StoredShard(one.log, one.writer, one.copies) for number, one in self.shards.items()}
        stored = _StoredPlacement(_FORMAT, self.epoch, self.runs, shards)
        return msgspec.json.format(msgspec.json.encode(stored), indent=1) + b"\n"


class _StoredShard(msgspec.Struct, frozen=True):
    log: str
    writer: str | None = None
    copies: tuple[str, ...] = ()


class _StoredPlacement(msgspec.Struct, frozen=True):
    format: int
    epoch: int
    slots: tuple[tuple[int, int], ...]
    shards: dict[str, _StoredShard]


class _StoredFormat(msgspec.Struct, frozen=True):
    format: int


def decoded(data: bytes, where: str) -> Placement:
    """where : for the message. Raises Corruption for what is no placement, Unavailable for a newer format."""
    try:
        if msgspec.json.decode(data, type=_StoredFormat).format != _FORMAT:
            raise Unavailable(f"{where}: {KEY} is of a newer format; it needs a newer version of vecdb")
        stored = msgspec.json.decode(data, type=_StoredPlacement)
        shards = {int(number): Shard(one.log, one.writer, one.copies) for number, one in stored.shards.items()}
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corruption(f"{where}: {KEY} is no placement: {error}") from None
    made = Placement(stored.epoch, stored.slots, dict(sorted(shards.items())))
    problem = problem_of(made)
    if problem is not None:
        raise Corruption(f"{where}: {KEY} is no placement: {problem}")
    return made


def problem_of(placement: Placement) -> str | None:
    """What is wrong with it; None for nothing."""
    shards = placement.shards
    if placement.epoch < 0 or not 1 <= len(shards) <= limits.cluster_shards_max or min(shards) < 0:
        return f"it needs an epoch and 1 to {limits.cluster_shards_max} shards with numbers from 0 on"
    if any(number not in shards or length < 1 for number, length in placement.runs):
        return "a run of slots is empty, or of a shard that is not there"
    if sum(length for _, length in placement.runs) != SLOTS:
        return f"its runs of slots are {sum(length for _, length in placement.runs):,} in all, not {SLOTS:,}"
    if len({one.log for one in shards.values()}) != len(shards):
        return "two shards have one log"
    for number, shard in shards.items():
        if not _LOG.fullmatch(shard.log) or ".." in shard.log:
            return f"the log of shard {number} is no name of a folder: {short_repr(shard.log)}"
        if len(shard.copies) > limits.cluster_copies_max:
            return f"shard {number} has more than {limits.cluster_copies_max} copies"
        for address in shard.servers:
            if not is_server(address):
                return f"{short_repr(address)} of shard {number} is no address of a server, such as grpc://host:port"
    return None
