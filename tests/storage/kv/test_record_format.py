"""Goal: blocks and row headers are read back as written, match the layout drawn in record_format.py byte for byte, and
no flipped bit passes.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import Corruption
from vecdb.schema import DTYPES
from vecdb.storage.disk import row_format
from vecdb.storage.kv import record_format

INT64 = st.integers(-(2**63), 2**63 - 1)
U32 = st.integers(0, 2**32 - 1)
OWNERS = st.binary(max_size=20)
FIELDS = st.one_of(
    st.just(b""), st.dictionaries(st.text(max_size=4), INT64, min_size=1, max_size=3).map(msgspec.msgpack.encode)
)
METAS = st.tuples(OWNERS, FIELDS)


def int_blob(ids: list[int]) -> bytes:
    return b"".join(one.to_bytes(8, "little", signed=True) for one in ids)


def encoded(ids: list[Any], crcs: list[int], metas: list[bytes] | None, first: int = 7, sequence: int = 3) -> bytes:
    int_ids = isinstance(ids[0], int)
    parts = [int_blob([one]) if int_ids else one.encode() for one in ids]
    return record_format.encode_block(
        first,
        sequence,
        np.array(crcs, np.uint32),
        [len(part) for part in parts],
        b"".join(parts),
        metas,
        int_ids=int_ids,
    )


@settings(derandomize=True, max_examples=150)
@given(st.data())
def test_a_block_is_read_back_as_written(data: st.DataObject) -> None:
    ids = data.draw(
        st.one_of(
            st.lists(INT64, min_size=1, max_size=20), st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=20)
        )
    )
    crcs = data.draw(st.lists(U32, min_size=len(ids), max_size=len(ids)))
    drawn = data.draw(st.one_of(st.none(), st.lists(METAS, min_size=len(ids), max_size=len(ids))))
    metas = None if drawn is None else [record_format.encode_meta(*one) for one in drawn]
    first, sequence = data.draw(st.integers(0, 2**31)), data.draw(st.integers(0, 2**63))
    raw = encoded(ids, crcs, metas, first, sequence)
    block = record_format.decode_block(raw, first, "here")
    assert (block.first_row, block.sequence, block.count) == (first, sequence, len(ids))
    assert block.row_crc.tolist() == crcs
    assert [block.id(at) for at in range(len(ids))] == ids
    if isinstance(ids[0], int):
        assert block.int_id_array().tolist() == ids
    assert record_format.metas_of([(first, raw)] * 2, [first - 1, first + len(ids)], "here") == [None, None]
    for at in range(len(ids)):
        [meta] = record_format.metas_of([(first, memoryview(raw))], [first + at], "here")
        assert meta == block.meta(at)
        owner, fields = record_format.split_meta(block.meta(at))
        expected = (b"", b"") if drawn is None else drawn[at]
        assert owner == expected[0]
        # an owned record without fields stores the empty map
        assert (fields if fields != b"\x80" else b"") == expected[1]


def test_an_int_block_has_the_bytes_that_the_drawing_gives() -> None:
    fields = bytes.fromhex("81a16107")  # {"a": 7}
    body = struct.pack("<2I", 0xAABBCCDD, 1) + struct.pack("<2I", 8, 16) + struct.pack("<2I", 0, 4)
    body += struct.pack("<2q", 7, -1) + fields
    head = b"VBLK" + struct.pack("<HHIIQQ", 1, 1, 0, 2, 3, 9)
    crc = zlib.crc32(head + body)
    expected = head[:8] + struct.pack("<I", crc) + head[12:] + body
    assert len(head) == 32
    assert encoded([7, -1], [0xAABBCCDD, 1], [b"", fields], first=9) == expected


def test_a_string_block_has_the_bytes_that_the_drawing_gives() -> None:
    body = struct.pack("<I", 5) + struct.pack("<I", 3) + struct.pack("<I", 0) + "aü".encode()
    head = b"VBLK" + struct.pack("<HHIIQQ", 1, 0, 0, 1, 3, 0)
    expected = head[:8] + struct.pack("<I", zlib.crc32(head + body)) + head[12:] + body
    assert encoded(["aü"], [5], None, first=0) == expected


def test_the_example_in_the_drawing_is_true() -> None:
    raw = encoded([7], [1], None, first=0)
    assert len(raw) == 32 + 12 + 8 and raw.endswith(bytes.fromhex("0700000000000000"))


def test_an_owned_meta_is_a_msgpack_array_of_two() -> None:
    assert record_format.encode_meta(b"o", b"\x81\xa1a\x01") == bytes.fromhex("92c4016f81a16101")
    assert record_format.encode_meta(b"", b"\x81\xa1a\x01") == b"\x81\xa1a\x01"
    assert record_format.split_meta(record_format.encode_meta(b"o", b"")) == (b"o", b"\x80")


def test_an_access_list_has_the_bytes_that_the_drawing_gives() -> None:
    numbers = struct.pack("<2Q", 3, 5)
    [raw] = record_format.encode_access(np.array([3, 5], np.uint64), np.array([2]))
    assert raw == struct.pack("<II", 1, zlib.crc32(numbers)) + numbers and len(raw) == 24


@settings(derandomize=True, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5), min_size=1, max_size=6))
def test_access_lists_are_read_back_as_written_and_every_flipped_bit_is_noticed(lists: list[list[int]]) -> None:
    flat = np.array([number for one in lists for number in one], np.uint64)
    raws = record_format.encode_access(flat, np.array([len(one) for one in lists]))
    numbers, counts = record_format.decode_access(raws, list(range(len(lists))), "here")
    assert numbers.tolist() == flat.tolist() and counts.tolist() == [len(one) for one in lists]
    for bit in range(8 * len(raws[-1])):
        bad = bytearray(raws[-1])
        bad[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(Corruption, match="row 7"):
            record_format.decode_access([*raws[:-1], bytes(bad)], [0] * (len(raws) - 1) + [7], "here")


def flipped(raw: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(raw)):
        bad = bytearray(raw)
        bad[bit >> 3] ^= 1 << (bit & 7)
        yield bytes(bad)


def test_changed_fields_have_the_bytes_that_the_drawing_gives_and_every_flipped_bit_is_noticed() -> None:
    meta, number = bytes.fromhex("81a16101"), struct.pack("<Q", 3)
    raws = record_format.encode_changes([7, 2**31 - 2, 0], 3, [meta, b"", b"x" * 3_000])
    assert raws[0] == struct.pack("<II", 1, zlib.crc32(number + meta, 7)) + number + meta and len(raws[0]) == 20
    found = record_format.decode_changes([memoryview(raw) for raw in raws], [7, 2**31 - 2, 0], "here")
    assert found == [(3, meta), (3, b""), (3, b"x" * 3_000)] and all(type(one) is bytes for _, one in found)
    for bad in (*flipped(raws[0]), *(raws[0][:length] for length in range(20)), b""):
        with pytest.raises(Corruption, match=r"here.*row 7"):
            record_format.decode_changes([raws[1], bad], [2**31 - 2, 7], "here")
    with pytest.raises(Corruption, match="row 8"):
        record_format.decode_changes(raws[:1], [8], "here")


def test_changed_rows_have_the_bytes_that_the_drawing_gives_and_every_flipped_bit_is_noticed() -> None:
    tail = struct.pack("<3Q", 9, 4, 2**31 - 2)
    raw = record_format.encode_changed(9, np.array([4, 2**31 - 2]))
    assert raw == struct.pack("<II", 1, zlib.crc32(tail)) + tail and record_format.changed_count(raw) == 2
    found = record_format.decode_changed(memoryview(raw), 9, "here")
    assert found.dtype == np.int64 and found.tolist() == [4, 2**31 - 2]
    for bad in (*flipped(raw), *(raw[:length] for length in range(len(raw)))):
        with pytest.raises(Corruption, match=r"here.*commit 9"):
            record_format.decode_changed(bad, 9, "here")
    with pytest.raises(Corruption, match="commit 8"):
        record_format.decode_changed(raw, 8, "here")


@pytest.mark.parametrize(("shared", "head"), [(0, "01000000"), (5, "02000000")])
def test_a_tenant_is_read_back_as_written_and_every_flipped_bit_is_noticed(shared: int, head: str) -> None:
    tenant = record_format.Tenant(7, 9, "ü".encode(), shared)
    raw = record_format.encode_tenant(tenant)
    more = struct.pack("<Q", shared) if shared else b""
    assert raw[:4] == bytes.fromhex(head) and raw[8:] == struct.pack("<QQ", 7, 9) + more + "ü".encode()
    assert record_format.decode_tenant(raw, 1, "here") == tenant
    for bit in range(8 * len(raw)):
        bad = bytearray(raw)
        bad[bit >> 3] ^= 1 << (bit & 7)
        with pytest.raises(Corruption, match="tenant 1 "):
            record_format.decode_tenant(bytes(bad), 1, "here")


@pytest.mark.parametrize("ids", [[1, -2, 3], ["a", "bc", "\0"]], ids=["int", "str"])
def test_every_flipped_bit_of_a_block_is_noticed(ids: list[Any]) -> None:
    raw = encoded(ids, [1, 2, 3], [b"", b"\x81\xa1a\x01", record_format.encode_meta(b"o", b"")])
    record_format.decode_block(raw, 7, "here")
    for at in range(len(raw)):
        for bit in range(8):
            bad = bytearray(raw)
            bad[at] ^= 1 << bit
            with pytest.raises(Corruption, match="here"):
                record_format.decode_block(bytes(bad), 7, "here")


def test_a_block_cut_short_at_any_byte_is_noticed() -> None:
    raw = encoded([1, 2], [1, 2], [b"", b"\x81\xa1a\x01"])
    for length in range(len(raw)):
        with pytest.raises(Corruption):
            record_format.decode_block(raw[:length], 7, "here")
        with contextlib.suppress(Corruption):  # what is there is not looked at past the one record
            assert record_format.metas_of([(7, raw[:length])], [7], "here") == [b""]
        with pytest.raises(Corruption):
            record_format.metas_of([(7, raw[:length])], [8], "here")


def test_a_sound_block_under_another_key_is_noticed() -> None:
    with pytest.raises(Corruption, match="row 7 found under row 8"):
        record_format.decode_block(encoded([1], [1], None), 8, "here")
    with pytest.raises(Corruption, match="row 7 found under row 8"):
        record_format.metas_of([(8, encoded([1], [1], None))], [8], "here")


def test_a_newer_block_version_is_refused() -> None:
    raw = bytearray(encoded([1], [1], None))
    raw[4] = 2
    raw[8:12] = b"\0\0\0\0"
    raw[8:12] = struct.pack("<I", zlib.crc32(raw))
    with pytest.raises(Corruption, match="version 2"):
        record_format.decode_block(bytes(raw), 7, "here")


@pytest.mark.parametrize(
    ("old", "changes", "expected"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": 1}, {"a": None}, {}),
        ({"a": 1}, {"z": None}, {"a": 1}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"y": 2}}),
    ],
)
def test_merged_fields(old: dict[str, Any], changes: dict[str, Any], expected: dict[str, Any]) -> None:
    pack = msgspec.msgpack.encode
    merged = record_format.merge_fields(pack(old) if old else b"", pack(changes))
    assert (msgspec.msgpack.decode(merged) if merged else {}) == expected


VALUES = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.dictionaries(st.sampled_from(["a", "b", "ü", "", "c" * 40]), VALUES, max_size=4)


@settings(derandomize=True, max_examples=80)
@given(RECORDS, RECORDS)
def test_fields_merge_as_dicts_do_whatever_their_values(old: dict[str, Any], changes: dict[str, Any]) -> None:
    pack = msgspec.msgpack.encode
    merged = record_format.merge_fields(pack(old) if old else b"", pack(changes))
    expected = {name: value for name, value in {**old, **changes}.items() if value is not None}
    assert (msgspec.msgpack.decode(merged) if merged else {}) == expected
    assert merged == (pack(expected) if expected else b"")


@pytest.mark.parametrize(
    "old", [b"\x81", b"\xc1", b"\x93\x01\x02\x03", b"\x81\x01\x01", b"\x81\xa1\xff\x01", b"\x80\x80"]
)
def test_damaged_fields_are_not_merged_into(old: bytes) -> None:
    with pytest.raises(Corruption, match="stored fields"):
        record_format.merge_fields(old, b"\x80")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_header_has_the_bytes_that_the_drawing_gives(dtype: str) -> None:
    head = b"VROW" + struct.pack("<HHIIQ", 1, DTYPES.index(dtype), 0, 300, 5)
    expected = head[:8] + struct.pack("<I", zlib.crc32(head)) + head[12:]
    raw = row_format.encode_header(dtype, 300, 5)
    assert raw == expected.ljust(4096, b"\0")
    row_format.check_header(raw, dtype, 300, 5, "here")


def test_every_flipped_byte_of_a_row_header_is_noticed() -> None:
    raw = row_format.encode_header("float32", 8, 0)
    for at in range(len(raw)):
        bad = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
        with pytest.raises(Corruption, match=f"byte {at} "):
            row_format.check_header(bad, "float32", 8, 0, "here")
    for length in (0, 31, 4095):
        with pytest.raises(Corruption):
            row_format.check_header(raw[:length], "float32", 8, 0, "here")


@pytest.mark.parametrize("other", [("float16", 8, 0), ("float32", 9, 0), ("float32", 8, 1)], ids=str)
def test_a_row_header_of_another_file_is_noticed(other: tuple[str, int, int]) -> None:
    with pytest.raises(Corruption, match="header differs"):
        row_format.check_header(row_format.encode_header(*other), "float32", 8, 0, "here")
