"""Messages of bulk loads: protobuf's own reading of them is the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from vecdb.v1 import common_pb2, records_pb2
from vecdb.wire import bulk_writes
from vecdb.wire.arrays import DTYPE_NUMBERS, vectors_of
from vecdb.wire.bulk_writes import BulkWrite, ingest_request_of

LARGE = 64  # vectors of 4,096 bytes, more than what is copied


def write_of(n: int, name: str = "docs") -> Any:
    return records_pb2.WriteRequest(
        collection=name, ids=common_pb2.Ids(ints=common_pb2.IntIds(values=range(n))), request_id="x" * (n % 7),
        fields=common_pb2.FieldMaps(msgpack=[b"\x80"] * n),
    )  # fmt: skip


def whole(found: tuple[Any, Any]) -> Any:
    """The message with its numbers."""
    message, numbers = found
    if numbers is not None:
        assert message.write.vectors.data == b""
        message.write.vectors.data = numbers.tobytes()
    return message


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8"])
@pytest.mark.parametrize("n", [1, LARGE])
def test_what_is_packed_is_what_protobuf_reads(dtype: str, n: int) -> None:
    vectors = np.random.default_rng(n).integers(0, 100, (n, 1_024)).astype(dtype)
    for batch in (1, 127, 128, 1 << 20):
        for extra in range(9):  # each moves the numbers by a byte
            write = write_of(n, "d" * (1 + extra))
            made = BulkWrite(write, vectors)
            data = made.packed(batch)
            read = records_pb2.IngestRequest.FromString(data)
            assert read.batch == batch and made.dim == 1_024
            assert read.write.vectors.dtype == DTYPE_NUMBERS[dtype] and read.write.vectors.dim == 1_024
            assert read.write.vectors.data == vectors.tobytes()
            assert whole(ingest_request_of(data)) == read
            message, numbers = ingest_request_of(data)
            if n == LARGE:
                found = vectors_of(message.write.vectors, numbers=numbers)
                assert found.dtype == dtype and np.array_equal(found, vectors) and found.flags.aligned
                assert found.ctypes.data % 8 == np.frombuffer(data, np.uint8).ctypes.data % 8
            assert BulkWrite(write_of(n, "d" * (1 + extra)), vectors).message() == read.write


def test_a_write_without_vectors_is_packed_too() -> None:
    made = BulkWrite(write_of(5), None)
    assert records_pb2.IngestRequest.FromString(made.packed(3)) == records_pb2.IngestRequest(batch=3, write=write_of(5))
    assert made.dim == 0 and whole(ingest_request_of(made.packed(3))).write == write_of(5)


def test_messages_of_others_are_read_as_protobuf_reads_them() -> None:
    """Fields in any order, several times, unknown, cut off, of other kinds, or any bytes at all."""
    rng = np.random.default_rng(7)
    numbers = rng.integers(0, 255, bulk_writes._WORTH_BYTES).astype(np.uint8).tobytes()

    def field(number: int, data: bytes) -> bytes:
        return bulk_writes._varint(number << 3 | 2) + bulk_writes._varint(len(data)) + data

    def mixed(parts: list[bytes]) -> bytes:
        chosen = [parts[i] for i in rng.permutation(len(parts))]
        return b"".join(chosen + [one for one in parts if rng.random() < 0.1])

    apart = 0
    for _ in range(2_000):
        vectors = mixed([field(1, numbers), b"\x10\x01", b"\x18\x80\x20"])
        write = mixed([field(1, b"docs"), field(4, vectors), field(8, b"me"), b"\xf8\x7f\x05"])
        data = mixed([b"\x08\x85\x80\x00", field(2, write), b"\x35\x01\x02\x03\x04", b"\x39" + b"\x01" * 8])
        damage = rng.integers(6)
        if damage == 0:
            data = data[: int(rng.integers(len(data)))]
        elif damage == 1:
            changed = bytearray(data)
            for at in rng.integers(0, len(data), 3):
                changed[at if rng.random() < 0.5 else at % 40] = rng.integers(256)
            data = bytes(changed)
        try:
            read = records_pb2.IngestRequest.FromString(data)
        except DecodeError:
            with pytest.raises(DecodeError):
                ingest_request_of(data)
            continue
        found = ingest_request_of(data)
        apart += found[1] is not None
        assert whole(found) == read
    assert apart > 200


def test_a_message_of_very_many_fields_is_not_looked_through() -> None:
    data = b"\x08\x01" * 100_000 + BulkWrite(write_of(LARGE), np.zeros((LARGE, 1_024), np.float32)).packed(2)
    message, numbers = ingest_request_of(data)
    assert numbers is None and message.batch == 2 and len(message.write.vectors.data) == LARGE * 4_096
