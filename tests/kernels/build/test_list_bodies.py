"""Goal: bodies are rewritten as lists of a dict would be, and no changed byte of an extent passes for sound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.spann.posting_lists import ENTRY, WIDTH, Bodies, room_for
from vecdb.kernels.build import list_bodies as kernels
from vecdb.storage.disk import list_file

NOTHING = np.empty(0, np.uint8)


def read(places: NDArray[np.int64], lengths: NDArray[np.int32], arena: NDArray[np.uint8]) -> dict[int, list[Any]]:
    out: dict[int, list[Any]] = {}
    for head, (place, n) in enumerate(zip(places.tolist(), lengths.tolist(), strict=True)):
        codes = arena[place : place + n * WIDTH].reshape(n, WIDTH)
        rows = arena[place + n * WIDTH :][: 4 * n].view(np.uint32)
        factors = arena[place + n * (WIDTH + 4) :][: 4 * n].view(np.uint32)
        out[head] = [(int(rows[j]), codes[j].tobytes(), int(factors[j])) for j in range(n)]
        assert (arena[place + n * ENTRY :][:8] == 0xEE).all() or head < len(places) - 1
    return out


def some_lists(seed: int, count: int = 9, rows: int = 200) -> Bodies:
    rng = np.random.default_rng(seed)
    lists: dict[int, list[tuple[int, bytes, int]]] = {head: [] for head in range(count)}
    for row in rng.permutation(rows).tolist():
        for head in rng.choice(count - 1, rng.integers(1, 3), replace=False).tolist():  # the last list stays empty
            lists[head].append((row, rng.bytes(WIDTH), int(rng.integers(0, 2**32))))
    return Bodies(lists, count)


@pytest.mark.parametrize("seed", range(4))
def test_entries_are_read_back_as_they_were_placed(seed: int) -> None:
    bodies = some_lists(seed)
    assert read(bodies.places, bodies.lengths, bodies.arena) == bodies.lists


@pytest.mark.parametrize("moved", [False, True])
def test_what_stays_is_carried_counted_and_gathered_like_in_a_dict(moved: bool) -> None:
    bodies = some_lists(7)
    rng = np.random.default_rng(1)
    deleted = np.where(rng.random(200) < 0.4, rng.integers(1, 9, 200), 0).astype(np.uint64)
    removed = 4
    gone = set(np.flatnonzero((deleted > 0) & (deleted <= removed)).tolist())
    bitmap = NOTHING
    left_lists = gone
    if moved:
        flags = rng.random(200) < 0.3
        bitmap = np.packbits(flags, bitorder="little")
        left_lists = gone | set(np.flatnonzero(flags).tolist())
    kept = {head: [e for e in line if e[0] not in left_lists] for head, line in bodies.lists.items()}
    chosen = np.array([7, 0, 3, 8], np.int64)
    live = np.full(4, -1, np.int32)
    kernels.count_live(chosen, bodies.places, bodies.lengths, bodies.arena, WIDTH, deleted, removed, bitmap, live)
    assert live.tolist() == [len(kept[head]) for head in chosen.tolist()]
    # into lists of other numbers, in which other entries join them
    targets = np.array([2, 0, 1, 3], np.int64)
    joined = {2: [(900, b"a" * WIDTH, 5)], 3: [(901, b"b" * WIDTH, 6), (902, b"c" * WIDTH, 7)]}
    fill = np.zeros((5, 2), np.int32)
    fill[targets, 0] = live
    for head, line in joined.items():
        fill[head, 0] += len(line)
    starts, out = room_for(fill[:, 0])
    kernels.copy_live_entries(
        chosen, bodies.places, bodies.lengths, bodies.arena, WIDTH, deleted, removed, bitmap, targets, starts, fill, out
    )
    entries = [(head, *entry) for head, line in joined.items() for entry in line]
    kernels.place_entries(
        np.arange(3), np.array([e[0] for e in entries], np.int32), np.array([e[1] for e in entries], np.int64),
        np.frombuffer(b"".join(e[2] for e in entries), np.uint8).reshape(-1, WIDTH),
        np.array([e[3] for e in entries], np.uint32), starts, fill, out, WIDTH,
    )  # fmt: skip
    expected = {head: joined.get(head, []) for head in range(5)}
    for source, target in zip(chosen.tolist(), targets.tolist(), strict=True):
        expected[target] = kept[source] + expected[target]
    assert read(starts, fill[:, 0].copy(), out) == expected
    rows, owners = np.full(999, -1, np.int64), np.full(999, -1, np.int32)
    count = kernels.gather_rows(
        chosen, bodies.places, bodies.lengths, bodies.arena, WIDTH, deleted, removed, rows, owners
    )
    alive = [(e[0], i) for i, head in enumerate(chosen.tolist()) for e in bodies.lists[head] if e[0] not in gone]
    assert list(zip(rows[:count].tolist(), owners[:count].tolist(), strict=True)) == alive


def test_renumbering_changes_rows_and_nothing_else() -> None:
    bodies = some_lists(3)
    mapping = np.random.default_rng(0).permutation(200).astype(np.int64)
    kernels.renumber(bodies.places, bodies.lengths, WIDTH, mapping, bodies.arena)
    expected = {head: [(int(mapping[e[0]]), *e[1:]) for e in line] for head, line in bodies.lists.items()}
    assert read(bodies.places, bodies.lengths, bodies.arena) == expected


def test_whole_bodies_are_copied() -> None:
    bodies = some_lists(5)
    places, out = room_for(bodies.lengths)
    places = places[::-1].copy()  # another order, hence other places
    sizes = bodies.lengths.astype(np.int64) * ENTRY
    places = np.cumsum(sizes[::-1] + 8)[::-1] - sizes
    out = np.full(int((sizes + 8).sum()) + 64, 0xEE, np.uint8)
    kernels.copy_ranges(bodies.places, sizes, places, bodies.arena, out)
    assert read(places, bodies.lengths, out)[0] == bodies.lists[0]
    assert read(places, bodies.lengths, out) == bodies.lists


# -- extents ---------------------------------------------------------------------------------------


def sealed_extents() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]:
    counts = np.array([3, 0, 400, 168], np.int32)
    sizes = list_file.pages_of(counts, ENTRY) * list_file.PAGE
    starts = np.cumsum(sizes) - sizes
    buffer = np.zeros(int(sizes.sum()), np.uint8)
    heads = list_file.headers(starts // list_file.PAGE + 1, counts, 77, ENTRY, 9)
    for start, head, count in zip(starts.tolist(), heads, counts.tolist(), strict=True):
        buffer[start : start + 64] = head
        body = np.random.default_rng(count).integers(0, 256, count * ENTRY, dtype=np.uint8)
        buffer[start + 64 : start + 64 + len(body)] = body
    kernels.seal_extents(starts, sizes, buffer)
    return starts, sizes, counts, buffer


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_the_seal_of_an_extent_is_the_crc_of_all_that_follows_it() -> None:
    starts, sizes, _, buffer = sealed_extents()
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        stored = int(buffer[start : start + 4].view(np.uint32)[0])
        assert stored == _crc32c(buffer[start + 4 : start + size].tobytes())


def first_bad_extent(verified: NDArray[np.uint8] = NOTHING, **changes: Any) -> int:
    """What the kernel says of the four extents, or of what they are with `changes`."""
    starts, sizes, counts, buffer = sealed_extents()
    said: dict[str, Any] = {
        "numbers": np.arange(4), "lists": np.arange(4), "starts": starts, "sizes": sizes, "got": sizes,
        "extent_pages": starts // list_file.PAGE + 1, "lengths": counts, "writer_ids": np.full(4, 9, np.uint64),
        "uid": 77, "entry_bytes": ENTRY, "buffer": buffer, **changes,
    }  # fmt: skip
    return int(kernels.first_bad_extent(**said, verified=verified))


def test_every_changed_byte_of_an_extent_is_noticed() -> None:
    starts, _, _, buffer = sealed_extents()
    for place in range(0, len(buffer), 7):
        buffer[place] ^= 1 << (place % 8)
        assert first_bad_extent(buffer=buffer) == int(np.searchsorted(starts, place, side="right")) - 1
        buffer[place] ^= 1 << (place % 8)
    assert first_bad_extent(buffer=buffer) == -1


def test_extents_are_compared_once_and_only_sound_ones_are_marked() -> None:
    starts, _, _, buffer = sealed_extents()
    names = starts // list_file.PAGE + 1
    verified = np.zeros(64, np.uint8)
    buffer[starts[2] + 100] ^= 1
    assert first_bad_extent(verified, buffer=buffer) == 2
    assert np.flatnonzero(verified).tolist() == names[:2].tolist()
    buffer[starts[2] + 100] ^= 1
    buffer[starts[0] + 100] ^= 1
    assert first_bad_extent(verified, buffer=buffer) == -1
    assert np.flatnonzero(verified).tolist() == names.tolist()


def test_an_extent_that_is_not_where_or_what_it_says_is_noticed() -> None:
    starts, sizes, counts, _ = sealed_extents()
    numbers = starts // list_file.PAGE + 1
    assert first_bad_extent() == -1
    assert first_bad_extent(extent_pages=numbers + np.array([0, 0, 1, 1])) == 2
    assert first_bad_extent(lengths=(counts + np.array([0, 1, 0, 0])).astype(np.int32)) == 1
    assert first_bad_extent(writer_ids=np.array([9, 9, 9, 10], np.uint64)) == 3
    assert first_bad_extent(uid=78) == 0 and first_bad_extent(entry_bytes=ENTRY + 8) == 0
    assert first_bad_extent(got=sizes - np.array([0, 0, 8, 0])) == 2
    assert first_bad_extent(extent_pages=numbers + 1, numbers=np.array([3, 1])) == 3  # others are not looked at


def test_an_extent_belongs_to_the_list_that_is_named() -> None:
    starts, _, counts, _ = sealed_extents()
    order = np.array([2, 0, 3, 1])
    firsts, lengths = np.empty(4, np.int64), np.empty(4, np.int32)
    firsts[order], lengths[order] = starts // list_file.PAGE + 1, counts
    assert first_bad_extent(lists=order, extent_pages=firsts, lengths=lengths) == -1
    assert first_bad_extent(lists=order[::-1].copy(), extent_pages=firsts, lengths=lengths) == 0
