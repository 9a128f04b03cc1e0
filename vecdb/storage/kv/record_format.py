"""Layouts of our values in LMDB. Integers are little-endian; every layout has a version and a checksum.

A version that this code does not know is refused.

Block of records: one LMDB value, immutable once committed

    block  := header row_crc[count] id_end[count] meta_end[count] ids metas bare?
    header := magic "VBLK" | version u16 | flags u16 | crc u32 | count u32 | sequence u64 | first_row u64    (32 bytes)
    row_crc := u32          CRC-32C of the row's bytes in the row file
    id_end, meta_end := u32 end offset of the record's bytes in `ids` / `metas`; a record starts where the one before
                            it ends
    ids    := id*           id := i64 (flag INT_IDS) | utf-8
    metas  := meta*         meta := empty                              owner "", no fields
                                  | fields                             a msgpack map: owner ""
                                  | [owner, fields]                    a msgpack array
    bare   := u8[ceil(count / 8)]   with the flag SOME_BARE: a bit for each record, the lowest first, set where it has
                            no vector; what the row file has in its place means nothing
    crc    := zlib.crc32 of the block with the crc field zero

    example: one record, id 7, no fields, in commit 3 as row 0 -> 32 + 12 + 8 bytes,
             id_end = [8], meta_end = [0], ids = 07 00 00 00 00 00 00 00

Access list of a record: one LMDB value, rewritten by every change of it

    access := version u32 | crc u32 | number u64*          numbers of tenants, ascending, each once, at least one
    crc    := zlib.crc32 of the numbers

    example: tenants 3 and 5 -> 24 bytes, 01 00 00 00, crc, 03 00 .. 00, 05 00 .. 00

Journal entry of a commit: one LMDB value

    entry := version u32 | crc u32 | sequence u64 | granted u64 | pair i64*      pairs granted, then those revoked
    pair  := row << 32 | tenant's number                                         ascending
    crc   := zlib.crc32 of what follows it

    example: commit 3 grants row 1 to tenant 2 -> 32 bytes, the last 8 of them 02 00 00 00 01 00 00 00

Changed fields of a record: one LMDB value, rewritten by every change of them

    change   := version u32 | crc u32 | sequence u64 | meta        the whole meta, in the place of that in the block
    sequence := of the commit that wrote it
    crc      := zlib.crc32 of what follows it, begun at the row's number in place of 0

    example: commit 3 leaves {"a": 1} -> 20 bytes, the last 12 of them 03 00 00 00 00 00 00 00 81 a1 61 01

Changed rows of a commit: one LMDB value

    changed := version u32 | crc u32 | sequence u64 | row u64*     ascending, each once, at least one
    crc     := zlib.crc32 of what follows it

Tenant: one LMDB value

    tenant := version u32 | crc u32 | sequence u64 | records_max u64 | shared u64 if the version is 2 | name utf-8
    sequence := of the last commit that changed which rows it has      records_max := 0: what limits.py says
    shared := of the records it has, how many another tenant owns
    crc      := zlib.crc32 of what follows it
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from vecdb.errors import Corruption

_BLOCK = struct.Struct("<4sHHIIQQ")
_BLOCK_MAGIC = b"VBLK"
_VERSION = 1
_CRC_AT = 8
_U32, _TWO_U32 = struct.Struct("<I"), struct.Struct("<II")
_ACCESS = struct.Struct("<II")  # version, crc: the head of an access list, and of a tenant
_TENANT = struct.Struct("<QQ")
_TENANT_SHARED = 2  # version of an entry that has one number more
_SHARED = struct.Struct("<Q")
_JOURNAL = struct.Struct("<QQ")
_CHANGE = struct.Struct("<IIQ")
INT_IDS, SOME_BARE = 1, 2  # flags of a block

_pack = msgspec.msgpack.Encoder().encode
_unpack_raw = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode  # values stay as they are encoded
_unpack_meta = msgspec.msgpack.Decoder(tuple[bytes, msgspec.Raw]).decode
_NULL = b"\xc0"  # msgpack
_ARRAY_OF_2 = 0x92  # msgpack: how a meta with an owner starts; a map starts with another byte


@dataclass(frozen=True, slots=True)
class Block:
    """A decoded block. Arrays are views of `raw`, which the block keeps alive.

    row_crc, id_end, meta_end : uint32[count]; ids, metas : uint8 bytes.   bare : bool[count], records without a vector;
    None where each has one.
    """

    first_row: int
    sequence: int
    count: int
    int_ids: bool
    row_crc: NDArray[np.uint32]
    id_end: NDArray[np.uint32]
    meta_end: NDArray[np.uint32]
    ids: memoryview
    metas: memoryview
    bare: NDArray[np.bool_] | None = None

    def id(self, index: int) -> int | str:
        start = int(self.id_end[index - 1]) if index else 0
        raw = self.ids[start : int(self.id_end[index])]
        return int.from_bytes(raw, "little", signed=True) if self.int_ids else str(raw, "utf-8")

    def int_id_array(self) -> NDArray[np.int64]:
        """int64[count]; only where ids are ints."""
        return np.frombuffer(self.ids, "<i8", self.count)

    def meta(self, index: int) -> bytes:
        start = int(self.meta_end[index - 1]) if index else 0
        return bytes(self.metas[start : int(self.meta_end[index])])


def encode_block(
    first_row: int,
    sequence: int,
    row_crc: NDArray[np.uint32],
    id_lengths: Any,
    ids: bytes,
    metas: list[bytes] | None,
    *,
    int_ids: bool,
    bare: NDArray[np.bool_] | None = None,
) -> bytes:
    """One block. `id_lengths`: int[count]; `metas`: encoded meta per record, or None when all are empty; `bare`: as of
    `Block`.
    """
    count = len(row_crc)
    id_end = np.cumsum(id_lengths, dtype="<u4")
    if metas is None:
        meta_end, meta_bytes = np.zeros(count, "<u4"), b""
    else:
        meta_end, meta_bytes = np.cumsum(np.fromiter(map(len, metas), "<u4", count), dtype="<u4"), b"".join(metas)
    parts = [row_crc.astype("<u4").tobytes(), id_end.tobytes(), meta_end.tobytes(), ids, meta_bytes]
    flags = INT_IDS if int_ids else 0
    if bare is not None and bare.any():
        flags |= SOME_BARE
        parts.append(np.packbits(bare, bitorder="little").tobytes())
    body = b"".join(parts)
    head = _BLOCK.pack(_BLOCK_MAGIC, _VERSION, flags, 0, count, sequence, first_row)
    crc = zlib.crc32(body, zlib.crc32(head))
    return head[:_CRC_AT] + struct.pack("<I", crc) + head[_CRC_AT + 4 :] + body


def decode_block(raw: Any, key: int, where: str, *, verify: bool = True) -> Block:
    """Decode one block (a buffer) found under row `key`. Raises `Corruption`, naming `where`.

    `verify=False` leaves the checksum out, for a block that this process has compared before.
    """
    if len(raw) < _BLOCK.size:
        raise _short_block(raw, key, where)
    magic, version, flags, crc, count, sequence, first_row = _BLOCK.unpack_from(raw)
    if magic != _BLOCK_MAGIC or version != _VERSION:
        raise _other_block(magic, version, first_row, key, where)
    view = memoryview(raw)
    if (
        verify
        and (actual := zlib.crc32(view[_CRC_AT + 4 :], zlib.crc32(b"\0\0\0\0", zlib.crc32(view[:_CRC_AT])))) != crc
    ):
        raise Corruption(f"{where}: block at row {key} has crc {actual:08x}, expected {crc:08x}")
    if first_row != key:
        raise _other_block(magic, version, first_row, key, where)
    columns = np.frombuffer(raw, "<u4", 3 * count, _BLOCK.size)
    row_crc, id_end, meta_end = columns[:count], columns[count : 2 * count], columns[2 * count :]
    ids_at = _BLOCK.size + 12 * count
    metas_at = ids_at + (int(id_end[-1]) if count else 0)
    metas_end, bare = metas_at + (int(meta_end[-1]) if count else 0), None
    if flags & SOME_BARE:
        bare = np.unpackbits(np.frombuffer(view[metas_end:], np.uint8), count=count, bitorder="little").astype(bool)
    return Block(
        first_row,
        sequence,
        count,
        bool(flags & INT_IDS),
        row_crc,
        id_end,
        meta_end,
        view[ids_at:metas_at],
        view[metas_at:metas_end],
        bare,
    )


def metas_of(blocks: Sequence[tuple[int, Any]], rows: Sequence[int], where: str) -> list[bytes | None]:
    """The meta of each row, out of the block, compared with its checksum before, that was found for it: (row of its
    key, value). None where the row is not in it. It takes a third of what `decode_block` does. Raises Corruption.
    """
    metas: list[bytes | None] = []
    head_bytes, unpack_head, unpack, unpack_two = (
        _BLOCK.size,
        _BLOCK.unpack_from,
        _U32.unpack_from,
        _TWO_U32.unpack_from,
    )
    for (key, raw), row in zip(blocks, rows, strict=True):
        if len(raw) < head_bytes:
            raise _short_block(raw, key, where)
        magic, version, _, _, count, _, first_row = unpack_head(raw)
        if magic != _BLOCK_MAGIC or version != _VERSION or first_row != key:
            raise _other_block(magic, version, first_row, key, where)
        at = row - first_row
        if not 0 <= at < count:
            metas.append(None)
            continue
        ends = head_bytes + 8 * count  # of metas; before them those of ids
        start = ends + 4 * count
        if start <= len(raw):
            [id_bytes] = unpack(raw, ends - 4)
            first, end = unpack_two(raw, ends + 4 * (at - 1)) if at else (0, *unpack(raw, ends))
            start += id_bytes
        if start > len(raw) or start + end > len(raw):
            raise Corruption(f"{where}: block at row {key} ends before its {count} records do")
        metas.append(bytes(raw[start + first : start + end]))
    return metas


def _short_block(raw: Any, key: int, where: str) -> Corruption:
    return Corruption(f"{where}: block at row {key} has {len(raw)} bytes, expected at least {_BLOCK.size}")


def _other_block(magic: bytes, version: int, first_row: int, key: int, where: str) -> Corruption:
    if magic != _BLOCK_MAGIC or version != _VERSION:
        return Corruption(
            f"{where}: block at row {key} starts with {magic!r} version {version}, expected {_BLOCK_MAGIC!r} {_VERSION}"
        )
    return Corruption(f"{where}: block of row {first_row} found under row {key}")


def encode_meta(owner: bytes, fields: bytes) -> bytes:
    """The meta of one record; `fields`: an encoded msgpack map, or empty."""
    if not owner:
        return fields
    return bytes(_pack([owner, msgspec.Raw(fields or b"\x80")]))


def split_meta(meta: bytes) -> tuple[bytes, bytes]:
    """(owner, encoded fields) of one record; fields may be empty bytes."""
    if not meta or meta[0] != _ARRAY_OF_2:
        return b"", meta
    owner, fields = _unpack_meta(meta)
    return owner, bytes(fields)


def fields_of(metas: Iterable[bytes]) -> list[bytes]:
    """The encoded fields of each record: what `split_meta` gives of them."""
    return [meta if not meta or meta[0] != _ARRAY_OF_2 else bytes(_unpack_meta(meta)[1]) for meta in metas]


def owners_of(metas: Sequence[bytes]) -> list[str] | None:
    """The owner of each record; None where all are ""."""
    for meta in metas:  # a call for each would cost as much as a search's other work on them
        if meta and meta[0] == _ARRAY_OF_2:
            return [split_meta(meta)[0].decode() for meta in metas]
    return None


def encode_access(numbers: NDArray[np.integer], counts: NDArray[np.int64]) -> list[bytes]:
    """Access lists of many records: `numbers` of all, one record's `counts` after another's, none of them 0."""
    raw = numbers.astype("<u8", copy=False).tobytes()
    ends = (8 * np.cumsum(counts)).tolist()
    parts = [raw[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    heads = np.full((len(parts), 2), _VERSION, "<u4")
    heads[:, 1] = list(map(zlib.crc32, parts))
    return [head + part for head, part in zip(heads.view("V8")[:, 0].tolist(), parts, strict=True)]


def decode_access(raws: Sequence[Any], rows: Any, where: str) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """(numbers, counts) of access lists (bytes or buffers) found under `rows`, as `encode_access` takes
    them. Raises `Corruption`.
    """
    lengths = np.fromiter(map(len, raws), np.int64, len(raws)) - _ACCESS.size
    parts = [raw[_ACCESS.size :] for raw in raws]
    crcs = np.fromiter(map(zlib.crc32, parts), np.uint32, len(parts))
    bad = (lengths <= 0) | (lengths % 8 != 0)
    if not bad.any():
        heads = np.frombuffer(b"".join([raw[: _ACCESS.size] for raw in raws]), "<u4").reshape(-1, 2)
        bad = (heads[:, 0] != _VERSION) | (heads[:, 1] != crcs)
    if bad.any():
        at = int(np.argmax(bad))
        raise Corruption(
            f"{where}: access list of row {rows[at]} has {len(raws[at])} bytes and starts with {raws[at][:8].hex()}, "
            f"expected {_ACCESS.pack(_VERSION, int(crcs[at])).hex()}; restore from a backup"
        )
    return np.frombuffer(b"".join(parts), "<u8").astype(np.uint64, copy=False), lengths // 8


def encode_journal(sequence: int, granted: NDArray[np.int64], revoked: NDArray[np.int64]) -> bytes:
    """Journal entry of one commit: packed pairs, ascending."""
    pairs = np.concatenate([granted, revoked]).astype("<i8", copy=False)
    tail = _JOURNAL.pack(sequence, len(granted)) + pairs.tobytes()
    return _ACCESS.pack(_VERSION, zlib.crc32(tail)) + tail


def decode_journal(raw: Any, sequence: int, where: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(granted, revoked) of the entry found under `sequence`. Raises `Corruption`."""
    tail = raw[_ACCESS.size :]
    if len(tail) >= _JOURNAL.size and _ACCESS.unpack_from(raw) == (_VERSION, zlib.crc32(tail)):
        found, granted = _JOURNAL.unpack_from(tail)
        if found == sequence:
            pairs = np.frombuffer(tail, "<i8", offset=_JOURNAL.size).astype(np.int64)  # no view of LMDB's memory
            return pairs[:granted], pairs[granted:]
    raise Corruption(
        f"{where}: journal of commit {sequence} has {len(raw)} bytes and starts with {bytes(raw[:16]).hex()}; "
        "restore from a backup"
    )


def encode_changes(rows: Sequence[int], sequence: int, metas: Sequence[bytes]) -> list[bytes]:
    """Changed fields of each row, whose meta is now that, in commit `sequence`."""
    pack, crc32, number = _CHANGE.pack, zlib.crc32, struct.pack("<Q", sequence)
    return [
        pack(_VERSION, crc32(meta, crc32(number, row)), sequence) + meta for row, meta in zip(rows, metas, strict=True)
    ]


def decode_changes(raws: Sequence[Any], rows: Sequence[int], where: str) -> list[tuple[int, bytes]]:
    """(sequence, meta) of the changed fields (bytes or buffers) found under each of `rows`. Raises `Corruption`."""
    unpack, crc32, head, start = _CHANGE.unpack_from, zlib.crc32, _ACCESS.size, _CHANGE.size
    found = []
    for raw, row in zip(raws, rows, strict=True):
        version, crc, sequence = unpack(raw) if len(raw) >= start else (0, 0, 0)
        if version != _VERSION or crc != crc32(raw[head:], row):
            raise Corruption(
                f"{where}: changed fields of row {row} have {len(raw)} bytes and start with {bytes(raw[:16]).hex()}; "
                "restore from a backup"
            )
        found.append((sequence, bytes(raw[start:])))
    return found


def encode_changed(sequence: int, rows: NDArray[np.int64]) -> bytes:
    """Changed rows of one commit: distinct, ascending."""
    tail = struct.pack("<Q", sequence) + rows.astype("<u8").tobytes()
    return _ACCESS.pack(_VERSION, zlib.crc32(tail)) + tail


def decode_changed(raw: Any, sequence: int, where: str) -> NDArray[np.int64]:
    """int64[n]: the changed rows found under `sequence`. Raises `Corruption`."""
    if len(raw) >= _CHANGE.size and not len(raw) % 8:
        version, crc, found = _CHANGE.unpack_from(raw)
        if version == _VERSION and crc == zlib.crc32(raw[_ACCESS.size :]) and found == sequence:
            return np.frombuffer(raw, "<u8", offset=_CHANGE.size).astype(np.int64)  # no view of LMDB's memory
    raise Corruption(
        f"{where}: changed rows of commit {sequence} have {len(raw)} bytes and start with {bytes(raw[:16]).hex()}; "
        "restore from a backup"
    )


def changed_count(raw: Any) -> int:
    """How many rows `encode_changed` was given."""
    return (len(raw) - _CHANGE.size) // 8


class Tenant(NamedTuple):
    """What is stored about one tenant. records_max : 0 where it has no quota of its own.   shared : how many of the
    records that it sees are another tenant's, and count for that one; those shared before this was counted are not in
    it.
    """

    sequence: int
    records_max: int
    name: bytes
    shared: int = 0


def encode_tenant(tenant: Tenant) -> bytes:
    version, more = (_TENANT_SHARED, _SHARED.pack(tenant.shared)) if tenant.shared else (_VERSION, b"")
    tail = _TENANT.pack(tenant.sequence, tenant.records_max) + more + tenant.name
    return _ACCESS.pack(version, zlib.crc32(tail)) + tail


def decode_tenant(raw: bytes, number: int, where: str) -> Tenant:
    """Raises `Corruption` naming the tenant's number."""
    tail = raw[_ACCESS.size :]
    if len(tail) > _TENANT.size:
        version, crc = _ACCESS.unpack_from(raw)
        at = _TENANT.size + (_SHARED.size if version == _TENANT_SHARED else 0)
        if version in (_VERSION, _TENANT_SHARED) and crc == zlib.crc32(tail) and len(tail) > at:
            sequence, records_max = _TENANT.unpack_from(tail)
            [shared] = _SHARED.unpack_from(tail, _TENANT.size) if version == _TENANT_SHARED else (0,)
            return Tenant(sequence, records_max, tail[at:], shared)
    raise Corruption(f"{where}: tenant {number} starts with {bytes(raw[:8]).hex()}; restore from a backup")


def merge_fields(old: bytes, changes: bytes) -> bytes:
    """Encoded fields `old` with those of `changes` put over them; a null in `changes` removes a field. Raises
    `Corruption` where `old` is no msgpack map.
    """
    try:
        fields = _unpack_raw(old) if old else {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corruption(f"stored fields are not what was written ({error}): run check and restore a backup") from None
    fields.update(_unpack_raw(changes) if changes else {})
    if _NULL in old or _NULL in changes:  # there may be one
        fields = {name: value for name, value in fields.items() if bytes(value) != _NULL}
    return bytes(_pack(fields)) if fields else b""
