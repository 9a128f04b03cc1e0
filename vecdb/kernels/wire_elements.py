"""How many elements a protobuf message has, counted on its bytes, before an object is made for any of them.

    message := (tag value)*          tag: varint, field number << 3 | wire type
    value   := varint | 8 bytes | length bytes | 4 bytes

An element is one (tag value), at any depth: a message within a message is one, and so is each of its own. Fields that
nobody declared count as well, because a parser keeps them. A packed list is one.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.compile import inlined, kernel
from vecdb.kernels.primitives.checksums import for_kernels

NUMBERS_MAX = 32  # field numbers of messages within messages are below this
DEPTH_MAX = 32

_VARINT, _FIXED64, _BYTES, _GROUP, _GROUP_END, _FIXED32 = range(6)


@inlined()
def _varint(data, at, stop):
    """(value, the place behind it); the place is -1 where it does not end before `stop`."""
    value, shift = np.uint64(0), np.uint64(0)
    while at < stop and shift < np.uint64(64):
        byte = np.uint64(data[at])
        value |= (byte & np.uint64(127)) << shift
        at += 1
        if byte < np.uint64(128):
            return value, at
        shift += np.uint64(7)
    return value, -1


@kernel()
def _count(data, children, root, most, ends, kinds):
    at, depth, count = 0, 0, 0
    ends[0], kinds[0] = len(data), root
    while True:
        while at >= ends[depth]:
            if depth == 0:
                return count
            depth -= 1
        stop = ends[depth]
        count += 1
        if count > most:
            return count
        tag, at = _varint(data, at, stop)
        if at < 0:
            return count
        wire = np.int64(tag & np.uint64(7))
        if wire == _VARINT:
            _, at = _varint(data, at, stop)
            if at < 0:
                return count
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        elif wire == _BYTES:
            size, at = _varint(data, at, stop)
            if at < 0 or size > np.uint64(stop - at):
                return count
            number = tag >> np.uint64(3)
            child = children[kinds[depth], np.int64(number)] if number < np.uint64(NUMBERS_MAX) else np.int32(-1)
            if child >= 0 and depth + 1 < DEPTH_MAX:
                depth += 1
                ends[depth], kinds[depth] = at + np.int64(size), child
            else:
                at += np.int64(size)
        elif wire > _FIXED32:
            return count


def count_elements(data: bytes, children: np.ndarray, most: int) -> int:
    """The elements of a message, or `most` + 1 where there are more. Of bytes that are no message, those before the
    place where that shows.

    children : int32[kinds, NUMBERS_MAX]; for the messages of a kind and a field number the kind of the message in that
    field, -1 where it is none. The message itself is of kind 0.
    """
    ends, kinds = np.empty(DEPTH_MAX, np.int64), np.empty(DEPTH_MAX, np.int64)
    return int(_count(for_kernels(np.frombuffer(data, np.uint8)), children, np.int64(0), np.int64(most), ends, kinds))
