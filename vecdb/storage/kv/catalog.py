"""What LMDB holds about each collection: the entry, written once, and the state, rewritten by every commit.

catalog[name] -> Entry      state[uid] -> State

    value := crc32 u32 LE of the rest, msgpack by field name, so that fields can be added
"""

from __future__ import annotations

import copy
import zlib
from dataclasses import asdict
from typing import Any, get_args

import msgspec

from vecdb.errors import Corruption, NotFound
from vecdb.schema import BITS, CollectionConfig, IndexConfig
from vecdb.storage.kv import aliases
from vecdb.storage.kv.store import Store, Txn

_KINDS: dict[str, type[IndexConfig]] = {config.kind: config for config in get_args(IndexConfig)}


class CollectionEntry(msgspec.Struct):
    """What never changes about a collection, but for its name, and its dim while that is 0: it was made without one,
    and its first write gives it. All who hold the entry see them change.

    dim : numbers of a stored vector (`CollectionConfig.elements`): of dtype bits the bytes that hold them.
    """

    uid: int
    name: str
    dim: int
    metric: str
    dtype: str
    zero_vectors: str = "refuse"


class SealedIndex(msgspec.Struct, frozen=True):
    """The sealed index file that covers rows [0, rows) with the deletions up to `sequence`."""

    file: str
    rows: int
    sequence: int
    file_bytes: int
    parts: tuple[tuple[str, int], ...] = ()  # further files that it needs: name, bytes of it that count

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file, *(name for name, _ in self.parts))


class SealedColumns(msgspec.Struct, frozen=True):
    """The sealed file of columns of fields: of rows [0, rows), with the changes up to the commit `sequence`."""

    file: str
    rows: int
    sequence: int
    file_bytes: int


class MeasuredRecall(msgspec.Struct, frozen=True):
    """One measured point: at `limit` results a search of this width (ef of a graph, else nprobe) gave `recall`."""

    limit: int
    width: int = msgspec.field(name="ef")
    recall: float


class JournalExtent(msgspec.Struct, frozen=True):
    """Which entries the journal holds: the first and the last commit whose entry is there, and how many there are."""

    first: int
    last: int
    entries: int


class FieldChanges(msgspec.Struct, frozen=True):
    """Of a generation, which records have other fields than their blocks say. last : the newest commit that changed
    some.   rows : entries in `changes`.   logged : rows in `changed`.
    """

    last: int
    rows: int
    logged: int


class RecallCheck(msgspec.Struct, frozen=True):
    """What recall@limit searches had that name nothing, when it was measured: `at`, in seconds since 1970, while the
    index had so many rows. asked : how many queries of users it was measured on, besides stored rows.
    """

    recall: float
    limit: int
    at: float
    rows: int
    asked: int = 0


class CommittedState(msgspec.Struct, frozen=True):
    """What a commit changes. A field that has another name here keeps the name under which it is stored.

    live_count : live records.   bare_count : those of them that have no vector.
    """

    sequence: int = 0
    row_count: int = 0
    live_count: int = 0
    generation: int = 0
    id_kind: str | None = None
    has_fields: bool = False
    has_tenants: bool = False  # whether there ever was a tenant: if not, access lists are not read
    journal: JournalExtent | None = None  # None where it is empty
    index: dict[str, Any] | None = None
    sealed: SealedIndex | None = None
    unlinked_rows: int = 0  # rows taken out of the graph by repairs since it was last built
    recall_curve: tuple[MeasuredRecall, ...] = msgspec.field(default=(), name="tuned")
    # ef, or nprobe, of searches that name none, where `tune` or `optimize` chose one
    default_width: int | None = msgspec.field(default=None, name="tuned_ef")
    hundred_width: int | None = None  # the same for a hundred neighbours, where it was learned
    tuned_by_user: bool = False
    # measured: a tree is walked faster than a tenant is scanned that has more rows than this
    tenant_scan_rows_max: int | None = msgspec.field(default=None, name="scan_rows")
    recall_check: RecallCheck | None = None
    columns: SealedColumns | None = None
    field_changes: FieldChanges | None = None  # None where every record has the fields that its block says
    metadata: dict[str, Any] = {}
    bare_count: int = 0
    dropped_tenants: int = 0  # whose numbers records may still have, until a vacuum
    default_scan: bool = False  # no width was measured to be enough: searches that name none compare all vectors


_encoder = msgspec.msgpack.Encoder()
_entry = msgspec.msgpack.Decoder(CollectionEntry)
_state = msgspec.msgpack.Decoder(CommittedState)


def encode(value: CollectionEntry | CommittedState) -> bytes:
    raw = _encoder.encode(value)
    return zlib.crc32(raw).to_bytes(4, "little") + raw


def _checked(raw: bytes) -> bytes:
    # LMDB has no checksums, and a field whose name changed would be taken for one that was left out
    if int.from_bytes(raw[:4], "little") != zlib.crc32(raw[4:]):
        raise msgspec.ValidationError(f"crc {zlib.crc32(raw[4:]):08x}, expected {raw[3::-1].hex()}")
    return raw[4:]


def decode_entry(raw: bytes, name: str) -> CollectionEntry:
    try:
        return _entry.decode(_checked(raw))
    except msgspec.MsgspecError as error:
        raise Corruption(f"catalog entry of collection {name!r} is damaged ({error}); restore from a backup") from None


def find_entry(store: Store, txn: Txn, name: str) -> CollectionEntry | None:
    """The entry of a collection by its name or by an alias; None where there is none."""
    raw = txn.get(name.encode(), db=store.catalog)
    if raw is None and (name := aliases.read(store, txn).get(name, "")):
        raw = txn.get(name.encode(), db=store.catalog)
    return None if raw is None else decode_entry(bytes(raw), name)


def entry_of(store: Store, txn: Txn, uid: int) -> CollectionEntry:
    """The entry of a collection by its number. Raises NotFound."""
    for name, raw in txn.cursor(db=store.catalog):
        entry = decode_entry(bytes(raw), decode_name(name))
        if entry.uid == uid:
            return entry
    raise NotFound(f"there is no collection of number {uid}; it was dropped", "collection")


def put_dim(store: Store, txn: Txn, uid: int, dim: int) -> None:
    """Give a collection that has none its dim. txn : writes. Raises NotFound."""
    entry = entry_of(store, txn, uid)
    entry.dim = dim
    txn.put(entry.name.encode(), encode(entry), db=store.catalog)


def decode_name(raw: bytes) -> str:
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise Corruption(f"the catalog holds a name that is no text ({error}); restore from a backup") from None


def decode_state(raw: bytes | None, name: str) -> CommittedState:
    try:
        if raw is None:
            raise msgspec.ValidationError("missing")
        return _state.decode(_checked(raw))
    except msgspec.MsgspecError as error:
        raise Corruption(f"state of collection {name!r} is damaged ({error}); restore from a backup") from None


def index_to_dict(index: IndexConfig | None) -> dict[str, Any] | None:
    if index is None:
        return None
    return {"kind": index.kind, **asdict(index)}


def index_from_dict(value: dict[str, Any] | None) -> IndexConfig | None:
    if value is None:
        return None
    parameters = dict(value)
    return _KINDS[parameters.pop("kind")](**parameters)


def dim_of(entry: CollectionEntry) -> int:
    """The dim that users know: of dtype bits, how many bits."""
    return entry.dim if entry.dtype != BITS else 8 * entry.dim


def config_of(entry: CollectionEntry, state: CommittedState) -> CollectionConfig:
    index = index_from_dict(state.index)
    return CollectionConfig(
        entry.name,
        dim_of(entry),
        entry.metric,  # type: ignore[arg-type]
        entry.dtype,  # type: ignore[arg-type]
        index,
        state.id_kind,  # type: ignore[arg-type]
        copy.deepcopy(state.metadata),
        entry.zero_vectors,  # type: ignore[arg-type]
    )
