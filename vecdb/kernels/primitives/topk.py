"""The nearest of many: sort keys, sorted lists, a heap, selection.

    key  := order of the distance << 32 | row        int64, so that integers sort as (distance, row)

A key of a float32 distance comes from `key_of`; where distances are int32, as those of codes, the distance itself is
the upper half.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.compile import inlined, part
from vecdb.kernels.primitives.float_bits import bits_float, float_bits

ROW_OF_KEY = np.int64(0xFFFFFFFF)  # key & ROW_OF_KEY is the row (or slot, or node) of a key
_INSERTION_MAX = 48  # up to so many keys insertion sort is faster than heap sort


@inlined()
def ordered_bits(distance):
    """An int32 whose order is that of the float32 distance."""
    bits = float_bits(distance + np.float32(0.0))  # + 0.0 turns -0.0 into 0.0
    return bits ^ np.int32(0x7FFFFFFF) if bits < 0 else bits


@part()
def key_of(distance, row):
    """Sort key of (float32 distance, row): its integer order is the order of the pair."""
    bits = float_bits(distance + np.float32(0.0))  # + 0.0 turns -0.0 into 0.0
    if bits < 0:
        bits ^= np.int32(0x7FFFFFFF)
    return (np.int64(bits) << 32) | np.int64(row)


@part()
def distance_of(key):
    """The float32 distance inside a `key_of`."""
    bits = np.int32(key >> 32)
    if bits < 0:
        bits ^= np.int32(0x7FFFFFFF)
    return bits_float(bits)


def distances_of(keys: NDArray[np.int64]) -> NDArray[np.float32]:
    """The float32 distance inside each `key_of` of an array."""
    bits = (keys >> 32).astype(np.int32)
    distances: NDArray[np.float32] = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).view(np.float32)
    return distances


@inlined()
def insert(keys, size, key):
    """Insert key into the sorted keys[:size]; keys[size] must exist. Returns the position it took."""
    at = size
    while at > 0 and keys[at - 1] > key:
        keys[at] = keys[at - 1]
        at -= 1
    keys[at] = key
    return at


@part()
def add_key(keys, size, most, key):
    """Insert key into the sorted keys[:size] unless it is there or `most` smaller ones are. Returns the new size."""
    at = size
    while at > 0 and keys[at - 1] >= key:
        at -= 1
    if at >= most or (at < size and keys[at] == key):
        return size
    size = min(size + 1, most)
    for j in range(size - 1, at, -1):
        keys[j] = keys[j - 1]
    keys[at] = key
    return size


@inlined()
def sift_down(heap, at, size, value):
    """Put value at position `at` (int64) of heap[:size] or below it, so that no child is larger than its parent.

    The largest is heap[0]. A heap of ~key (bitwise not, which reverses the order) has the smallest key there.
    heap : any type that compares, value of the same type; what was at `at` is overwritten.
    """
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = value


@part()
def sort_keys(keys, size):
    """Sort keys[:size] ascending: insertion for short ones, heap sort beyond."""
    if size <= _INSERTION_MAX:
        for i in range(1, size):
            insert(keys, np.int64(i), keys[i])
        return
    for at in range(size // 2 - 1, -1, -1):
        sift_down(keys, np.int64(at), np.int64(size), keys[at])
    for end in range(size - 1, 0, -1):
        last = keys[end]
        keys[end] = keys[0]
        sift_down(keys, np.int64(0), np.int64(end), last)


@part()
def select_smallest(keys, size, wanted):
    """Move the `wanted` smallest of keys[:size] to the front, in no order (quickselect, median of three)."""
    low = np.int64(0)
    high = np.int64(size) - 1
    target = np.int64(wanted) - 1
    while low < high:
        a, b, c = keys[low], keys[(low + high) >> 1], keys[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i = low
        j = high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                held = keys[i]
                keys[i] = keys[j]
                keys[j] = held
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            return


@part()
def first_at_least(ascending, low, high, value):
    """First place in ascending[low:high] whose number is `value` or more; `high` where there is none."""
    while low < high:
        middle = (low + high) >> 1
        if np.int64(ascending[middle]) < value:
            low = middle + 1
        else:
            high = middle
    return low


@part()
def put_answer(keys, size, limit, rows, distances):
    """Write the first of the sorted keys[:size] as rows int64[limit], distances float32[limit]. Returns how many."""
    found = min(size, limit)
    for j in range(found):
        rows[j] = keys[j] & ROW_OF_KEY
        distances[j] = distance_of(keys[j])
    for j in range(found, limit):
        rows[j] = -1
        distances[j] = np.float32(np.inf)
    return found
