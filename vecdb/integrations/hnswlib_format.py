"""Reads the file that hnswlib 0.8 writes with `save_index`, from bytes that the caller has read or mapped.

    file    := header level0 upper
    header  := offset_level0 u64, max_elements u64, count u64, size_per_element u64, label_offset u64, offset_data u64,
               maxlevel i32, enterpoint u32, max_m u64, max_m0 u64, m u64, mult f64, ef_construction u64      96 bytes
    level0  := element[count]                                                             size_per_element bytes each
    element := link_count u16, deleted u8, unused u8, link u32[max_m0], vector f32[dim], label u64
    upper   := node[count]
    node    := size u32, list[size / (4 + 4 max_m)]                                  one list per layer from 1 upwards
    list    := link_count u16, unused u16, link u32[max_m]

All numbers are little-endian. There is no checksum and no magic, so every number is checked: what does not fit the
file's size, or does not make a graph, raises Corruption. The file does not say its metric. A cosine space stores
vectors that hnswlib has scaled to length 1, so the lengths that the user gave are lost.

Thread rule: a pure function of the bytes; it opens no file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import Corruption

_HEADER = struct.Struct("<6QiI3QdQ")
_NO_ENTRY = 0xFFFFFFFF  # the entry point of an empty graph
_LEVEL_MAX = 254
_CHUNK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class HnswlibGraph:
    """Everything in the file, n elements in hnswlib's internal order.

    vectors : float32[n, dim], a read-only strided view of the bytes passed in, never a copy: copy the slices that you
        need while the bytes are mapped. Every other array owns its memory.
    labels : uint64[n], distinct.   deleted : bool[n], marked as deleted, but still part of the graph.
    links0 : int32[n, 2m], layer 0, padded with -1.
    levels : uint8[n], top layer of each element.
    upper : int32[sum(levels), m], padded with -1; layer l >= 1 of element i is row `upper_starts[i] + l - 1`.
    upper_starts : int64[n + 1].
    entry : element where searches start, -1 when n is 0.   max_level : its layer, -1 when n is 0.
    max_elements : capacity that the index was created with.
    """

    dim: int
    m: int
    ef_construction: int
    max_elements: int
    max_level: int
    entry: int
    vectors: NDArray[np.float32]
    labels: NDArray[np.uint64]
    deleted: NDArray[np.bool_]
    links0: NDArray[np.int32]
    levels: NDArray[np.uint8]
    upper: NDArray[np.int32]
    upper_starts: NDArray[np.int64]


def parse(data: Any, *, name: str = "hnswlib file") -> HnswlibGraph:
    """Read a whole file.

    Parameters
    ----------
    data : bytes-like (bytes, mmap, memoryview or uint8 array), the whole file. It stays mapped while `vectors` is used.
    name : the file, for messages.

    Raises
    ------
    Corruption : the bytes are not a whole, consistent hnswlib index.
    """
    raw = np.frombuffer(data, np.uint8)
    raw.flags.writeable = False
    header = _header(raw, name)
    n, m, max_level, entry = header.elements, header.m, header.max_level, header.entry
    labels = header.column(raw, "<u8", header.label_at).astype(np.uint64)
    ordered = np.sort(labels)
    if (ordered[1:] == ordered[:-1]).any():
        _bad(name, f"label {ordered[:-1][ordered[1:] == ordered[:-1]][0]} occurs twice")
    all_counts, all_links = header.column(raw, "<u2", 0), header.column(raw, "<u4", 4, 2 * m)
    links0 = np.empty((n, 2 * m), np.int32)
    for start, stop in _chunks(n):
        counts, links = all_counts[start:stop], all_links[start:stop]
        links0[start:stop] = _padded(counts, links, np.arange(start, stop), n, f"{name}, layer 0")
    levels, upper, starts = _upper(raw[_HEADER.size + n * header.element_bytes :], n, m, max_level, name)
    if n and not (entry < n and levels[entry] == max_level):
        _bad(name, f"entry point {entry} of {n:,} elements is not on the top layer {max_level}")
    return HnswlibGraph(
        dim=header.dim,
        m=m,
        ef_construction=header.ef_construction,
        max_elements=header.max_elements,
        max_level=max_level,
        entry=entry if n else -1,
        vectors=header.column(raw, "<f4", header.data_at, header.dim),
        labels=labels,
        deleted=(header.column(raw, "u1", 2) & 1).astype(np.bool_),
        links0=links0,
        levels=levels,
        upper=upper,
        upper_starts=starts,
    )


class _Header(NamedTuple):
    """The header's numbers, in the order of the file."""

    offset0: int
    max_elements: int
    elements: int
    element_bytes: int
    label_at: int
    data_at: int
    max_level: int
    entry: int
    max_m: int
    max_m0: int
    m: int
    level_factor: float
    ef_construction: int

    @property
    def dim(self) -> int:
        return (self.label_at - self.data_at) // 4

    def column(self, raw: NDArray[np.uint8], dtype: str, at: int, width: int | None = None) -> NDArray[Any]:
        """The field at byte `at` of every element, a view: dtype[elements], or dtype[elements, width]."""
        n, item = self.elements, np.dtype(dtype).itemsize
        shape = (n,) if width is None else (n, width)
        strides = (self.element_bytes,) if width is None else (self.element_bytes, item)
        return np.ndarray(shape, dtype, raw, _HEADER.size + at if n else 0, strides)


def _header(raw: NDArray[np.uint8], name: str) -> _Header:
    """The header of a whole file; Corruption where its numbers do not fit one another or the file's size."""
    size = raw.nbytes
    if size < _HEADER.size:
        _bad(name, f"{size:,} bytes are fewer than the {_HEADER.size} of a header")
    header = _Header(*_HEADER.unpack(raw[: _HEADER.size].tobytes()))
    offset0, max_elements, n, element, label_at, data_at, max_level, entry, max_m, max_m0, m, mult, ef = header
    if not (0 < m <= 10_000 and max_m == m and max_m0 == 2 * m):
        _bad(name, f"m {m}, max_m {max_m} and max_m0 {max_m0} do not belong together")
    if offset0 != 0 or data_at != 4 + 4 * max_m0:
        _bad(name, f"level 0 is said to begin at {offset0} and vectors at {data_at}, expected 0 and {4 + 4 * max_m0}")
    if label_at <= data_at or (label_at - data_at) % 4 or element != label_at + 8:
        _bad(name, f"elements of {element} bytes with labels at {label_at} leave no float32 vectors at {data_at}")
    if header.dim > limits.dim_max:
        _bad(name, f"dim {header.dim:,} is over {limits.dim_max:,}")
    if n > max_elements or n > limits.rows_max:
        _bad(name, f"{n:,} elements are over the stated capacity of {max_elements:,} (or over {limits.rows_max:,})")
    stop0 = _HEADER.size + n * element
    if stop0 + 4 * n > size:  # before anything of n's size is allocated
        _bad(name, f"{n:,} elements of {element:,} bytes need {stop0 + 4 * n:,} bytes, the file has {size:,}")
    if not (np.isfinite(mult) and mult > 0) or not 0 < ef <= 2**31:
        _bad(name, f"level factor {mult} or ef_construction {ef} makes no sense")
    if (n == 0) != (max_level == -1) or (n == 0) != (entry == _NO_ENTRY) or not -1 <= max_level <= _LEVEL_MAX:
        _bad(name, f"entry point {entry} at layer {max_level} does not fit {n:,} elements")
    return header


def _bad(name: str, reason: str) -> NoReturn:
    raise Corruption(f"{name} is not a whole hnswlib 0.8 index: {reason}; save it again with save_index")


def _chunks(n: int) -> Iterator[tuple[int, int]]:
    return ((start, min(n, start + _CHUNK_ROWS)) for start in range(0, n, _CHUNK_ROWS))


def _padded(counts: NDArray[Any], links: NDArray[Any], owners: NDArray[Any], n: int, where: str) -> NDArray[np.int32]:
    """Link lists as int32[len, width] with -1 beyond each count; every link is another element below n."""
    width = links.shape[1]
    if counts.size and int(counts.max()) > width:
        at = int(np.argmax(counts > width))
        _bad(where, f"element {owners[at]} has {counts[at]} links, room for {width}")
    used = np.arange(width) < counts[:, None]
    wrong = used & ((links >= n) | (links == owners[:, None]))
    if wrong.any():
        at, slot = (int(i) for i in np.argwhere(wrong)[0])
        _bad(where, f"element {owners[at]} links to {links[at, slot]}, itself or no element of {n:,}")
    return np.where(used, links, 0).astype(np.int32) - (~used).astype(np.int32)


def _upper(
    raw: NDArray[np.uint8], n: int, m: int, max_level: int, name: str
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int64]]:
    """Layers above 0: levels uint8[n], lists int32[sum(levels), m], where each element's lists begin int64[n + 1]."""
    if raw.nbytes % 4:
        _bad(name, f"{raw.nbytes:,} bytes of upper layers are no whole number of words")
    words = np.ndarray((raw.nbytes // 4,), "<u4", raw) if raw.nbytes else np.empty(0, "<u4")
    nodes, ats = _walk(words, n, 1 + m, max_level, name)
    levels = np.zeros(n, np.uint8)
    levels[nodes] = words[ats] // (4 + 4 * m)
    starts = np.zeros(n + 1, np.int64)
    np.cumsum(levels, out=starts[1:])
    tall = levels[nodes].astype(np.int64)
    owners = np.repeat(nodes, tall)
    layer = np.arange(len(owners)) - starts[owners] + 1
    rows = np.repeat(ats + 1, tall) + (layer - 1) * (1 + m)  # word where each list begins
    upper = np.empty((len(rows), m), np.int32)
    for start, stop in _chunks(len(rows)):
        lists = words[rows[start:stop, None] + np.arange(1 + m)]
        links = _padded(lists[:, 0] & 0xFFFF, lists[:, 1:], owners[start:stop], n, f"{name}, upper layers")
        low = (links >= 0) & (levels[links] < layer[start:stop, None])
        if low.any():
            at, slot = (int(i) for i in np.argwhere(low)[0])
            _bad(
                name,
                f"element {owners[start + at]} links to {links[at, slot]}, which is not on layer {layer[start + at]}",
            )
        upper[start:stop] = links
    return levels, upper, starts


def _walk(
    words: NDArray[Any], n: int, list_words: int, max_level: int, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Elements that reach above layer 0, and the word where each one's size stands.

    Sizes can only be found one after another. But most elements write a single zero word, so the walk goes from one
    non-zero word to the next, and takes as many steps as elements reach above layer 0 (one in m).
    """
    nonzero = np.flatnonzero(words)
    nodes: list[int] = []
    ats: list[int] = []
    node = at = skip = 0
    while True:
        skip += int(np.searchsorted(nonzero[skip : skip + 2 * _LEVEL_MAX * list_words], at))
        next_at = int(nonzero[skip]) if skip < len(nonzero) else len(words)
        node += next_at - at  # zero words: elements of layer 0 only
        if node >= n or next_at == len(words):
            break
        size = int(words[next_at])
        level, rest = divmod(size, 4 * list_words)
        if rest or level > max_level or next_at + 1 + level * list_words > len(words):
            _bad(name, f"element {node} states {size:,} bytes of upper layers, not up to {max_level} lists that fit")
        nodes.append(node)
        ats.append(next_at)
        node, at = node + 1, next_at + 1 + level * list_words
    if node != n or next_at != len(words):
        _bad(name, f"upper layers of {n:,} elements do not end where the file does")
    return np.array(nodes, np.int64), np.array(ats, np.int64)
