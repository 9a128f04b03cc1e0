"""Writes as messages, without copies of their vectors on the way: those are most of a message, and protobuf copies
bytes when a message is made, put into another, measured, written, read and looked at.

    IngestRequest := batch | write := (WriteRequest without vectors) | vectors := dtype, dim, numbers

The sender puts the numbers last, at a multiple of `_ALIGNED` bytes: then the receiver need not move them before it
computes with them. Messages of other senders are read, too, whatever their order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vecdb.v1 import common_pb2, records_pb2
from vecdb.wire.arrays import DTYPE_NUMBERS, little_bytes, little_view

_ALIGNED = 8
_BATCH, _WRITE, _VECTORS, _NUMBERS = b"\x08", b"\x12", b"\x22", b"\x0a"  # tags of the fields
_LENGTH_DELIMITED, _VARINT, _FIXED = 2, 0, {1: 8, 5: 4}  # kinds of fields; bytes of those of fixed length
_FIELDS_MAX = 64  # of one message that are looked at: a write has few
_WORTH_BYTES = 1 << 14  # of numbers that are worth to be left where they are


class BulkWrite(NamedTuple):
    """write : a WriteRequest without `vectors`.   vectors : [n, dim] in one of the four types; None: it has none."""

    write: Any
    vectors: NDArray[Any] | None

    @property
    def dim(self) -> int:
        return 0 if self.vectors is None else int(self.vectors.shape[1])

    def message(self) -> Any:
        """The WriteRequest."""
        if self.vectors is not None:
            shape = self._shape()
            self.write.vectors.dtype, self.write.vectors.dim = shape.dtype, shape.dim
            self.write.vectors.data = little_bytes(self.vectors)
        return self.write

    def packed(self, batch: int) -> bytes:
        """The bytes of an IngestRequest. batch : its number."""
        rest = self.write.SerializeToString()
        if self.vectors is None:
            return b"".join((_BATCH, _varint(batch), _WRITE, _varint(len(rest)), rest))
        numbers = little_view(self.vectors)
        head = self._shape().SerializeToString() + _NUMBERS + _varint(len(numbers))
        vectors = _VECTORS + _varint(len(head) + len(numbers)) + head
        write = _WRITE + _varint(len(rest) + len(vectors) + len(numbers))
        number = _varint(batch)
        before = len(_BATCH) + len(number) + len(write) + len(rest) + len(vectors)
        return b"".join((_BATCH, _longer(number, -before % _ALIGNED), write, rest, vectors, numbers))

    def _shape(self) -> Any:
        assert self.vectors is not None
        return common_pb2.Vectors(dtype=DTYPE_NUMBERS[self.vectors.dtype.name], dim=self.dim)


def ingest_request_of(data: bytes) -> tuple[Any, NDArray[np.uint8] | None]:
    """The IngestRequest, and the numbers of its vectors, uint8[bytes], which lie in `data`; None: they are in the
    message. Raises DecodeError where the bytes are no message.
    """
    write = _only(data, 0, len(data), 2)
    vectors = write and _only(data, write[1], write[2], 4)
    numbers = vectors and _only(data, vectors[1], vectors[2], 1)
    if not write or not vectors or not numbers or numbers[2] - numbers[1] < _WORTH_BYTES:
        return records_pb2.IngestRequest.FromString(data), None
    message = records_pb2.IngestRequest.FromString(_without(data, 0, write, len(data)))
    message.write.SetInParent()
    message.write.MergeFromString(_without(data, write[1], vectors, write[2]))
    message.write.vectors.SetInParent()
    message.write.vectors.MergeFromString(_without(data, vectors[1], numbers, vectors[2]))
    return message, np.frombuffer(data, np.uint8)[numbers[1] : numbers[2]]


def _without(data: bytes, start: int, field: tuple[int, int, int], stop: int) -> bytes:
    return data[start : field[0]] + data[field[2] : stop]


def _only(data: bytes, start: int, stop: int, number: int) -> tuple[int, int, int] | None:
    """Where the one length-delimited field of that number begins, where its bytes begin, and where they end; None where
    there is none, where there are several, which would have to be merged, or where it is not clear.
    """
    found, at = None, start
    for _ in range(_FIELDS_MAX):
        if at == stop:
            return found
        begins = at
        key, at = _number_at(data, at, stop)
        kind = key & 7
        if kind == _VARINT:
            _, at = _number_at(data, at, stop)
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind == _LENGTH_DELIMITED:
            length, first = _number_at(data, at, stop)
            at = first + length
        if kind not in (_VARINT, _LENGTH_DELIMITED, *_FIXED) or at > stop:
            return None
        if key >> 3 == number:
            if found is not None or kind != _LENGTH_DELIMITED:
                return None
            found = begins, first, at
    return None


def _number_at(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """A varint, and where it ends; beyond `stop` where it is none."""
    value = 0
    for shift in range(0, 63, 7):
        if at >= stop:
            break
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    return 0, stop + 1


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)


def _longer(varint: bytes, by: int) -> bytes:
    """The same number in so many bytes more: with zeros before its first digits, as every reader takes them."""
    return varint if not by else varint[:-1] + bytes([varint[-1] | 128]) + b"\x80" * (by - 1) + b"\x00"
