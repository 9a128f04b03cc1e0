"""Goal: the kernels of posting lists do what a few lines of numpy and a dict of sets do, and no changed byte of an
extent passes for sound.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from vecdb.kernels import lists as kernels
from vecdb.storage import pages

NOTHING = np.empty(0, np.uint8)
ALL_ROWS = np.empty(0, np.uint64)
FAR = np.float32(np.inf)


@njit
def _select(keys, size, wanted):  # type: ignore[no-untyped-def]
    kernels.select_smallest(keys, size, wanted)


@njit
def _nearest(query8, query16, probe, codes, bias, groups, group_bias, ends, wanted, reach, group_keys, keys, blocks):  # type: ignore[no-untyped-def]
    return kernels.nearest_heads(
        query8, query16, probe, codes, bias, groups, group_bias, ends, wanted, reach, group_keys, keys, blocks
    )


@settings(max_examples=200)
@given(st.lists(st.integers(-(2**62), 2**62) | st.integers(-3, 3), min_size=1, max_size=120), st.data())
@example([5] * 64, None)
def test_the_smallest_keys_come_to_the_front_and_none_is_lost(values: list[int], data: Any) -> None:
    wanted = data.draw(st.integers(1, len(values))) if data is not None else len(values) // 2
    keys = np.array([*values, -(2**62), -(2**62)], np.int64)  # what lies behind `size` is not touched
    _select(keys, np.int64(len(values)), np.int64(wanted))
    assert sorted(keys[:wanted].tolist()) == sorted(values)[:wanted]
    assert sorted(keys[: len(values)].tolist()) == sorted(values) and (keys[len(values) :] == -(2**62)).all()


def heads_of(count: int, groups: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, count + 1, groups)).astype(np.int32)  # some groups are empty
    ends[-1] = count
    return rng.integers(0, 256, (count, 64), dtype=np.uint8), ends


def bias_of(codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    return ((codes.astype(np.int32) - 128) ** 2).sum(1, dtype=np.int32)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (5, 9), (300, 12), (300, 40), (300, 300)])
def test_the_nearest_heads_are_those_of_brute_force_when_all_groups_are_opened(
    count: int, wanted: int, biased: bool
) -> None:
    codes, ends = heads_of(count, 7, count)
    codes[count // 2] = codes[0]
    group_codes = np.random.default_rng(1).integers(0, 256, (7, 64), dtype=np.uint8)
    none = np.empty(0, np.int32)
    for seed in range(10):
        query8 = np.random.default_rng(seed).integers(-127, 128, 64).astype(np.int8)
        q = query8.astype(np.int64)
        constant = int(256 * q.sum() + ((q**2).sum() if biased else 0))
        keys = np.zeros(count + 64, np.int64)
        kept, seen = _nearest(
            query8, query8.astype(np.int16), (np.int32(constant), np.int32(0)), codes,
            bias_of(codes) if biased else none, group_codes, bias_of(group_codes) if biased else none, ends,
            np.int64(wanted), np.int64(1 << 40), np.zeros(7, np.int64), keys, (0,),
        )  # fmt: skip
        x = codes.astype(np.int64) - 128
        truth = ((x - q) ** 2).sum(1) if biased else -2 * (x @ q)
        expected = sorted((int(d) << 32) | head for head, d in enumerate(truth))[:wanted]
        assert (kept, seen) == (min(count, wanted), count + 7)
        assert sorted(keys[:kept].tolist()) == expected
        assert keys[: min(kept, 16)].tolist() == expected[:16]


def test_groups_are_opened_nearest_first_until_they_reach_far_enough() -> None:
    codes, _ = heads_of(400, 8, 3)
    ends = np.arange(50, 401, 50).astype(np.int32)
    group_codes = np.random.default_rng(4).integers(0, 256, (8, 64), dtype=np.uint8)
    query8 = np.random.default_rng(5).integers(-127, 128, 64).astype(np.int8)
    q = query8.astype(np.int64)
    keys = np.zeros(300, np.int64)
    kept, seen = _nearest(
        query8, query8.astype(np.int16), (np.int32(256 * q.sum() + (q**2).sum()), np.int32(0)), codes, bias_of(codes),
        group_codes, bias_of(group_codes), ends, np.int64(200), np.int64(101), np.zeros(8, np.int64), keys, (0,),
    )  # fmt: skip
    order = np.argsort(((group_codes.astype(np.int64) - 128 - q) ** 2).sum(1), kind="stable")
    assert (kept, seen) == (150, 158)
    assert {int(key & 0xFFFFFFFF) // 50 for key in keys[:kept]} == set(order[:3].tolist())


# -- bodies --------------------------------------------------------------------------------------

WIDTH = 16
ENTRY = WIDTH + 8


class Bodies:
    """Lists as a dict {list: [(row, code, factor)]} and as bytes in an arena, side by side."""

    def __init__(self, lists: dict[int, list[tuple[int, bytes, int]]], count: int) -> None:
        self.count = count
        self.lists = lists
        entries = [(head, *entry) for head, line in lists.items() for entry in line]
        self.labels = np.array([e[0] for e in entries], np.int32)
        self.rows = np.array([e[1] for e in entries], np.int64)
        self.codes = np.frombuffer(b"".join(e[2] for e in entries), np.uint8).reshape(-1, WIDTH)
        self.factors = np.array([e[3] for e in entries], np.uint32)
        self.lengths = np.bincount(self.labels, minlength=count).astype(np.int32)
        self.places, self.arena = room_for(self.lengths)
        fill = np.stack([self.lengths, np.zeros(count, np.int32)], axis=1)
        order = np.argsort(self.labels, kind="stable")
        kernels.place_entries(
            order, self.labels, self.rows, self.codes, self.factors, self.places, fill, self.arena,
            self.arena.view(np.uint32), WIDTH,
        )  # fmt: skip
        assert np.array_equal(fill[:, 0], fill[:, 1])


def room_for(lengths: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Places with gaps between them, and an arena of a byte that gives away what was not written."""
    sizes = lengths.astype(np.int64) * ENTRY + 8
    return np.cumsum(sizes) - sizes + 8, np.full(int(sizes.sum()) + 64, 0xEE, np.uint8)


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
    arena32 = bodies.arena.view(np.uint32)
    live = np.full(4, -1, np.int32)
    kernels.count_live(chosen, bodies.places, bodies.lengths, arena32, WIDTH, deleted, removed, bitmap, live)
    assert live.tolist() == [len(kept[head]) for head in chosen.tolist()]
    # into lists of other numbers, in which other entries join them
    targets = np.array([2, 0, 1, 3], np.int64)
    joined = {2: [(900, b"a" * WIDTH, 5)], 3: [(901, b"b" * WIDTH, 6), (902, b"c" * WIDTH, 7)]}
    fill = np.zeros((5, 2), np.int32)
    fill[targets, 0] = live
    for head, line in joined.items():
        fill[head, 0] += len(line)
    starts, out = room_for(fill[:, 0])
    kernels.carry(
        chosen, bodies.places, bodies.lengths, bodies.arena, arena32, WIDTH, deleted, removed, bitmap, targets, starts,
        fill, out, out.view(np.uint32),
    )  # fmt: skip
    entries = [(head, *entry) for head, line in joined.items() for entry in line]
    kernels.place_entries(
        np.arange(3), np.array([e[0] for e in entries], np.int32), np.array([e[1] for e in entries], np.int64),
        np.frombuffer(b"".join(e[2] for e in entries), np.uint8).reshape(-1, WIDTH),
        np.array([e[3] for e in entries], np.uint32), starts, fill, out, out.view(np.uint32), WIDTH,
    )  # fmt: skip
    expected = {head: joined.get(head, []) for head in range(5)}
    for source, target in zip(chosen.tolist(), targets.tolist(), strict=True):
        expected[target] = kept[source] + expected[target]
    assert read(starts, fill[:, 0].copy(), out) == expected
    rows, owners = np.full(999, -1, np.int64), np.full(999, -1, np.int32)
    count = kernels.gather_rows(chosen, bodies.places, bodies.lengths, arena32, WIDTH, deleted, removed, rows, owners)
    alive = [(e[0], i) for i, head in enumerate(chosen.tolist()) for e in bodies.lists[head] if e[0] not in gone]
    assert list(zip(rows[:count].tolist(), owners[:count].tolist(), strict=True)) == alive


def test_renumbering_changes_rows_and_nothing_else() -> None:
    bodies = some_lists(3)
    mapping = np.random.default_rng(0).permutation(200).astype(np.int64)
    kernels.renumber(bodies.places, bodies.lengths, WIDTH, mapping, bodies.arena.view(np.uint32))
    expected = {head: [(int(mapping[e[0]]), *e[1:]) for e in line] for head, line in bodies.lists.items()}
    assert read(bodies.places, bodies.lengths, bodies.arena) == expected


def test_whole_bodies_are_copied() -> None:
    bodies = some_lists(5)
    places, out = room_for(bodies.lengths)
    places = places[::-1].copy()  # another order, hence other places
    sizes = bodies.lengths.astype(np.int64) * ENTRY
    places = np.cumsum(sizes[::-1] + 8)[::-1] - sizes
    out = np.full(int((sizes + 8).sum()) + 64, 0xEE, np.uint8)
    kernels.copy_bodies(bodies.places, sizes, places, bodies.arena, out)
    assert read(places, bodies.lengths, out)[0] == bodies.lists[0]
    assert read(places, bodies.lengths, out) == bodies.lists


# -- scan ----------------------------------------------------------------------------------------


class Scene:
    """Queries and lists of 2-bit codes, with their estimates from the definition."""

    def __init__(self, seed: int, replicas: bool) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.nq, self.lists, self.n = 3, 6, 150
        owners = [rng.choice(self.lists, 2 if replicas and row % 2 else 1, replace=False) for row in range(self.n)]
        lists: dict[int, list[tuple[int, bytes, int]]] = {head: [] for head in range(self.lists)}
        for row, heads in enumerate(owners):
            for head in heads.tolist():
                pair = np.array([rng.uniform(5, 9), -rng.uniform(0.1, 0.3)], np.float16)
                lists[head].append((row, rng.bytes(WIDTH), int(pair.view(np.uint32)[0])))
        self.bodies = Bodies(lists, self.lists)
        self.query8s = rng.integers(-127, 128, (self.nq, 64)).astype(np.int8)
        self.sums = self.query8s.astype(np.int32).sum(1, dtype=np.int32)
        self.steps = rng.uniform(0.01, 0.03, self.nq).astype(np.float32)
        self.probes = np.stack([rng.permutation(self.lists) for _ in range(self.nq)]).astype(np.int32)
        self.nears = rng.uniform(1, 3, (self.nq, self.lists)).astype(np.float32)
        self.counts = np.array([6, 4, 1], np.int32)
        self.deleted = np.zeros(self.n, np.uint64)
        self.allow = ALL_ROWS
        self.row_count, self.sequence = self.n, 5

    def estimates(self, i: int, weight: float) -> dict[int, float]:
        """Nearest estimate of every visible row that a probed list of query i holds."""
        found: dict[int, float] = {}
        q = self.query8s[i].astype(np.float64)
        for p in range(self.counts[i]):
            for row, code, factors in self.bodies.lists[int(self.probes[i, p])]:
                raw = np.frombuffer(code, np.uint8)
                u = np.concatenate([(raw >> (2 * field)) & 3 for field in range(4)]).astype(np.float64)
                add, rescale = np.array([factors], np.uint32).view(np.float16).astype(np.float64)
                value = add * 4.0 + self.nears[i, p] + weight * rescale * 0.5 * self.steps[i] * ((u - 1.5) @ q)
                hidden = self.deleted[row] and self.deleted[row] <= self.sequence
                if row >= self.row_count or hidden:
                    continue
                if not len(self.allow) or (int(self.allow[row >> 6]) >> (row & 63)) & 1:
                    found[row] = min(value, found.get(row, np.inf))
        return found

    def scan(self, most: int, weight: float, once: bool, parts: int = 1) -> list[list[tuple[float, int]]]:
        shortlist, sizes = np.zeros((self.nq, most + 1), np.int64), np.zeros(self.nq, np.int32)
        work = np.zeros(10, np.int64)
        lengths = self.bodies.lengths
        for part in range(parts):
            places = np.where(np.arange(self.lists) % parts == part, self.bodies.places, -1)
            kernels.scan(
                self.probes, self.nears, self.counts, places, lengths, self.bodies.arena,
                self.bodies.arena.view(np.uint16), self.bodies.arena.view(np.uint32), WIDTH, False, np.float32(weight),
                np.float32(4), np.float32(0.5), self.query8s, self.steps, self.sums, once, self.row_count,
                self.sequence, self.deleted, self.allow, shortlist, sizes, np.zeros(self.n, np.int32),
                np.zeros(self.n, np.float32), work, (0, 0),
            )  # fmt: skip
        assert work[1] == sum(int(lengths[self.probes[i, : self.counts[i]]].sum()) for i in range(self.nq))
        out = []
        for i in range(self.nq):
            keys = shortlist[i, : sizes[i]]
            assert (np.diff(keys) > 0).all()
            bits = (keys >> 32).astype(np.int32)
            values = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits).astype(np.int32).view(np.float32)
            out.append([(float(v), int(key & 0xFFFFFFFF)) for v, key in zip(values, keys.tolist(), strict=True)])
        return out

    def assert_as_expected(self, most: int, weight: float, once: bool, parts: int) -> None:
        for i, line in enumerate(self.scan(most, weight, once, parts)):
            expected = self.estimates(i, weight)
            assert len({row for _, row in line}) == len(line) == min(most, len(expected))
            for value, row in line:
                assert np.isclose(value, expected[row], rtol=1e-4, atol=1e-4)
            best = sorted(expected.values())[: len(line)]
            assert np.allclose([value for value, _ in line], best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("weight", [1.0, 0.5])
@pytest.mark.parametrize("most", [1, 10, 400])
def test_a_scan_keeps_the_nearest_estimates(most: int, weight: float, parts: int) -> None:
    """Also in two goes, lists in memory first and those from disk after them."""
    Scene(1, False).assert_as_expected(most, weight, False, parts)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("most", [1, 10, 60, 400])
def test_a_row_in_several_lists_is_kept_once_at_its_nearest_estimate(most: int, parts: int) -> None:
    Scene(2, True).assert_as_expected(most, 1.0, True, parts)


def test_a_scan_keeps_only_what_the_snapshot_and_the_bitmap_hold() -> None:
    scene = Scene(3, True)
    scene.deleted[:60] = scene.rng.integers(0, 10, 60)
    scene.deleted[5] = 2**64 - 1
    scene.assert_as_expected(40, 1.0, True, 2)
    scene.row_count = 90
    scene.assert_as_expected(40, 1.0, True, 1)
    scene.allow = scene.rng.integers(0, 2**63, 2, dtype=np.uint64)
    scene.assert_as_expected(40, 1.0, True, 1)
    scene.allow = np.zeros(3, np.uint64)
    assert scene.scan(40, 1.0, True) == [[], [], []]


# -- reads ---------------------------------------------------------------------------------------


def _key(value: float, row: int) -> int:
    bits = int(np.float32(value).view(np.int32))
    return ((bits if bits >= 0 else bits ^ 0x7FFFFFFF) << 32) | row


@pytest.mark.parametrize("row_bytes", [96, 1200, 4096, 5000])
def test_every_row_to_read_lies_inside_an_aligned_range_and_ranges_do_not_overlap(row_bytes: int) -> None:
    rng = np.random.default_rng(row_bytes)
    nq, size = 4, 60
    chosen = np.stack([rng.permutation(400)[:size] for _ in range(nq)])
    values = np.sort(rng.uniform(1, 2, (nq, size)), axis=1)
    shortlist = np.array(
        [[_key(v, r) for v, r in zip(*pair, strict=True)] for pair in zip(values, chosen, strict=True)]
    )
    sizes = np.full(nq, size, np.int32)
    rows, owners, offsets, lengths, places = (np.full(nq * size, -1, np.int64) for _ in range(5))
    total, ranges, nbytes = kernels.choose_reads(
        shortlist, sizes, 10, 12, np.float32(0.05), np.ones(nq, np.float32), False, 4096, row_bytes, 4096, rows,
        owners, offsets, lengths, places,
    )  # fmt: skip
    assert total == sizes.sum() and (sizes >= 12).all()
    taken = np.concatenate([chosen[i, : sizes[i]] for i in range(nq)])
    assert np.array_equal(rows[:total], taken)
    for row, owner in zip(rows[:total].tolist(), owners[:total].tolist(), strict=True):
        first = 4096 + row * row_bytes
        assert offsets[owner] <= first and first + row_bytes <= offsets[owner] + lengths[owner]
    assert (offsets[:ranges] % 4096 == 0).all() and (lengths[:ranges] % 4096 == 0).all()
    assert np.array_equal(places[:ranges], np.cumsum(lengths[:ranges]) - lengths[:ranges])
    assert nbytes == lengths[:ranges].sum()
    for i in range(nq):
        assert values[i, sizes[i] - 1] <= max(values[i, 9] * 1.051, values[i, 11])


@pytest.mark.parametrize("ip", [False, True])
def test_a_shortlist_is_not_cut_shorter_where_estimates_are_below_zero(ip: bool) -> None:
    """Estimates near zero fall on both sides of it: more slack must never leave fewer rows."""
    values = np.sort(np.random.default_rng(0).normal(0 if not ip else -9, 0.5, 60))
    shortlist = np.array([[_key(v, r) for r, v in enumerate(values)]])
    left = []
    for slack in (0.0, 0.1, 0.5):
        sizes = np.full(1, 60, np.int32)
        spare = [np.zeros(60, np.int64) for _ in range(5)]
        kernels.choose_reads(
            shortlist, sizes, 10, 12, np.float32(slack), np.ones(1, np.float32), ip, 4096, 96, 4096, *spare
        )
        left.append(int(sizes[0]))
    assert left == sorted(left) and left[-1] > 12


# -- extents -------------------------------------------------------------------------------------


def sealed_extents() -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]:
    counts = np.array([3, 0, 400, 168], np.int32)
    sizes = pages.pages_of(counts, ENTRY) * pages.PAGE
    starts = np.cumsum(sizes) - sizes
    buffer = np.zeros(int(sizes.sum()), np.uint8)
    heads = pages.headers(starts // pages.PAGE + 1, counts, 77, ENTRY, 9)
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


def test_every_changed_byte_of_an_extent_is_noticed() -> None:
    starts, sizes, _, buffer = sealed_extents()
    assert kernels.first_damaged(starts, sizes, buffer, NOTHING, starts) == -1
    for place in range(0, len(buffer), 7):
        buffer[place] ^= 1 << (place % 8)
        which = int(np.searchsorted(starts, place, side="right")) - 1
        assert kernels.first_damaged(starts, sizes, buffer, NOTHING, starts) == which
        buffer[place] ^= 1 << (place % 8)
    assert kernels.first_damaged(starts, sizes, buffer, NOTHING, starts) == -1


def test_extents_are_compared_once_and_only_sound_ones_are_marked() -> None:
    starts, sizes, _, buffer = sealed_extents()
    names = starts // pages.PAGE + 1
    verified = np.zeros(64, np.uint8)
    buffer[starts[2] + 100] ^= 1
    assert kernels.first_damaged(starts, sizes, buffer, verified, names) == 2
    assert np.flatnonzero(verified).tolist() == names[:2].tolist()
    buffer[starts[2] + 100] ^= 1
    buffer[starts[0] + 100] ^= 1
    assert kernels.first_damaged(starts, sizes, buffer, verified, names) == -1
    assert np.flatnonzero(verified).tolist() == names.tolist()


def test_an_extent_that_is_not_where_or_what_it_says_is_noticed() -> None:
    starts, _, counts, buffer = sealed_extents()
    numbers = starts // pages.PAGE + 1

    def first(pages_: Any = numbers, counts_: Any = counts, uid: int = 77, entry: int = ENTRY) -> int:
        return int(
            kernels.first_misplaced(starts, pages_, counts_, uid, entry, buffer.view(np.uint64), buffer.view(np.uint32))
        )

    assert first() == -1
    assert first(pages_=numbers + np.array([0, 0, 1, 1])) == 2
    assert first(counts_=(counts + np.array([0, 1, 0, 0])).astype(np.int32)) == 1
    assert first(uid=78) == 0 and first(entry=ENTRY + 8) == 0
