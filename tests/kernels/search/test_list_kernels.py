"""Goal: what a query does with posting lists is what a few lines of numpy and a dict of sets do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import njit
from numpy.typing import NDArray

from tests.support.spann.posting_lists import (
    ALL_ROWS,
    WIDTH,
    Bodies,
    Search,
    arrays_of,
    key_of,
    plain_coder,
    prepared_for,
    read_keys,
    view_heads_of,
    view_of,
)
from vecdb.errors import Corruption
from vecdb.index.spann.searching import list_search
from vecdb.kernels.array_table import ArrayTable
from vecdb.kernels.primitives import topk
from vecdb.kernels.search import list_probe, list_rerank, list_scan
from vecdb.kernels.search.list_probe import ListWork


@njit
def _select(keys, size, wanted):  # type: ignore[no-untyped-def]
    topk.select_smallest(keys, size, wanted)


@njit
def _nearest(query8, query16, probe, codes, bias, groups, group_bias, ends, wanted, reach, group_keys, keys, blocks):  # type: ignore[no-untyped-def]
    heads = list_probe.HeadArrays(codes, bias, groups, group_bias, ends)
    scratch = list_probe.HeadScratch(query8, query16, group_keys, keys)
    return list_probe.nearest_heads(probe, heads, wanted, reach, scratch, blocks)


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


# -- scan ----------------------------------------------------------------------------------------

L2, IP = 0, 2


class Scene:
    """Queries and lists of 2-bit codes, with their estimates from the definition."""

    def __init__(self, seed: int, replicas: bool, metric: int = L2) -> None:
        rng = np.random.default_rng(seed)
        self.rng = rng
        self.ip = metric == IP
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
        self.nears = rng.uniform(-3 if self.ip else 1, 3, (self.nq, self.lists)).astype(np.float32)
        self.counts = np.array([6, 4, 1], np.int32)
        self.allow = ALL_ROWS
        self.row_count, self.sequence = self.n, 5
        coder = plain_coder(metric, np.float32, 64, 2, np.zeros(64, np.float32), 1.0)
        coder = replace(coder, add_unit=4.0, rescale_unit=0.5)
        heads = view_heads_of(rng.integers(0, 256, (self.lists, 64), dtype=np.uint8))
        arrays = arrays_of(np.zeros((self.n, 64), np.float32))
        self.deleted = arrays.deleted
        view = view_of(
            coder, heads, self.bodies.places, self.bodies.lengths, self.bodies.arena, self.n, 2 if replicas else 1
        )
        self.prepared = prepared_for(view, arrays)

    def estimates(self, i: int) -> dict[int, tuple[float, float]]:
        """Estimate, and its error, of every visible row that a probed list of query i holds: of a row in several lists
        the nearest, under ip the surest.
        """
        found: dict[int, tuple[float, float]] = {}
        q = self.query8s[i].astype(np.float64)
        for p in range(self.counts[i]):
            near = float(self.nears[i, p])
            for row, code, factors in self.bodies.lists[int(self.probes[i, p])]:
                raw = np.frombuffer(code, np.uint8)
                u = np.concatenate([(raw >> (2 * field)) & 3 for field in range(4)]).astype(np.float64)
                add, rescale = np.array([factors], np.uint32).view(np.float16).astype(np.float64) * (4.0, 0.5)
                along = float(self.steps[i]) * ((u - 1.5) @ q)
                value = near + (0.5 * rescale * along if self.ip else add + rescale * along)
                hidden = self.deleted[row] and self.deleted[row] <= self.sequence
                if row >= self.row_count or hidden:
                    continue
                if not len(self.allow) or (int(self.allow[row >> 6]) >> (row & 63)) & 1:
                    error = abs(rescale) * (1.0 if self.ip else near**0.5)
                    known = found.get(row)
                    if known is None or (error < known[1] if self.ip else value < known[0]):
                        found[row] = float(value), float(error)
        return found

    def scan(self, most: int, parts: int = 1) -> list[list[tuple[float, int, float]]]:
        search = Search(self.prepared, self.nq, 1, self.lists, most, self.row_count, self.sequence, self.allow)
        probed = search.b.probed
        probed.lists[:], probed.nears[:], probed.counts[:] = self.probes, self.nears, self.counts
        probed.query8s[:], probed.steps[:], probed.sums[:] = self.query8s, self.steps, self.sums
        for part in range(parts):
            search.scan(np.where(np.arange(self.lists) % parts == part, self.bodies.places, -1))
        lengths = self.bodies.lengths
        scanned = sum(int(lengths[self.probes[i, : self.counts[i]]].sum()) for i in range(self.nq))
        assert search.work[ListWork.ENTRIES] == scanned
        return search.shortlists()

    def assert_as_expected(self, most: int, parts: int) -> None:
        for i, line in enumerate(self.scan(most, parts)):
            expected = self.estimates(i)
            assert len({row for _, row, _ in line}) == len(line) == min(most, len(expected))
            for value, row, error in line:
                assert np.isclose(value, expected[row][0], rtol=1e-4, atol=1e-4)
                assert np.isclose(error, expected[row][1], rtol=1e-4, atol=1e-6)
            best = sorted(value for value, _ in expected.values())[: len(line)]
            assert np.allclose([value for value, _, _ in line], best, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("metric", [L2, IP], ids=["l2", "ip"])
@pytest.mark.parametrize("most", [1, 10, 400])
def test_a_scan_keeps_the_nearest_estimates(most: int, metric: int, parts: int) -> None:
    """Also in two goes, lists in memory first and those from disk after them."""
    Scene(1, False, metric).assert_as_expected(most, parts)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("most", [1, 10, 60, 400])
def test_a_row_in_several_lists_is_kept_once_at_its_nearest_estimate(most: int, parts: int) -> None:
    Scene(2, True, L2).assert_as_expected(most, parts)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_row_in_several_lists_is_kept_once_under_ip_at_its_surest_estimate(parts: int) -> None:
    """Of those that enter a shortlist: one that all fit into shows it."""
    Scene(2, True, IP).assert_as_expected(400, parts)


def test_codes_of_a_width_that_was_not_compiled_in_are_scanned_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_search, "_UNROLLED_BYTES_MAX", 0)
    scene = Scene(2, True)
    assert scene.prepared.chunks == ()
    scene.assert_as_expected(60, 2)


def test_a_scan_keeps_only_what_the_snapshot_and_the_bitmap_hold() -> None:
    scene = Scene(3, True)
    scene.deleted[:60] = scene.rng.integers(0, 10, 60)
    scene.deleted[5] = 2**64 - 1
    scene.assert_as_expected(40, 2)
    scene.row_count = 90
    scene.assert_as_expected(40, 1)
    scene.allow = scene.rng.integers(0, 2**63, 2, dtype=np.uint64)
    scene.assert_as_expected(40, 1)
    scene.allow = np.zeros(3, np.uint64)
    assert scene.scan(40) == [[], [], []]


# -- reads ---------------------------------------------------------------------------------------


class Chosen:
    """What `choose_reads` makes of shortlists. errors : float32[nq, any], as the scan left them."""

    def __init__(
        self, values: NDArray[Any], rows: NDArray[Any], errors: NDArray[np.float32], slack: float, *,
        norms: NDArray[np.float32] | None = None, row_bytes: int = 96, limit: int = 10, least: int = 12,
    ) -> None:  # fmt: skip
        nq, size = values.shape
        shortlist = np.array(
            [[key_of(v, r) for v, r in zip(*pair, strict=True)] for pair in zip(values, rows.tolist(), strict=True)]
        )
        self.sizes = np.full(nq, size, np.int32)
        self.rows, self.owners, self.offsets, self.lengths, self.places = (
            np.full(nq * size, -1, np.int64) for _ in range(5)
        )
        none, i32, f32 = np.zeros((nq, 0), np.float32), np.zeros(nq, np.int32), np.zeros(nq, np.float32)
        tables = (
            ArrayTable(list_probe.ProbedQueries(
                lists=np.zeros((nq, 0), np.int32), nears=none, counts=i32, query8s=np.zeros((nq, 0), np.int8),
                steps=f32, sums=i32, units=f32, norms=f32 if norms is None else norms, unit=f32, rotated=f32,
            )),
            ArrayTable(list_scan.ListShortlist(
                keys=shortlist, errors=errors, sizes=self.sizes, dots=i32, estimates=f32, matches=np.zeros(0, np.int64),
            )),
            ArrayTable(list_rerank.RowFileLayout(
                header_bytes=4096, row_bytes=row_bytes, page_bytes=4096, crcs=np.zeros(0, np.uint32)
            )),
            ArrayTable(list_rerank.RowReads(
                rows=self.rows, owners=self.owners, offsets=self.offsets, sizes=self.lengths, starts=self.places,
                staged=np.zeros((1, 0), np.uint8),
            )),
        )  # fmt: skip
        self.total, self.ranges, self.nbytes = list_rerank.choose_reads(
            *(one.table for one in tables), limit=limit, least=least, slack=np.float32(slack), ip=norms is not None
        )


def some_shortlists(seed: int, nq: int = 4, size: int = 60) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.permutation(400)[:size] for _ in range(nq)])
    values = np.sort(rng.uniform(1, 2, (nq, size)).astype(np.float32), axis=1)
    return values, rows, rng.uniform(1, 4, (nq, size)).astype(np.float32)


@pytest.mark.parametrize("row_bytes", [96, 1200, 4096, 5000])
def test_every_row_to_read_lies_inside_an_aligned_range_and_no_range_is_read_twice(row_bytes: int) -> None:
    values, rows, errors = some_shortlists(row_bytes)
    got = Chosen(values, rows, errors, 0.05, row_bytes=row_bytes)
    assert got.total == got.sizes.sum() and (got.sizes >= 12).all()
    taken = np.concatenate([rows[i, : got.sizes[i]] for i in range(len(rows))])
    assert np.array_equal(got.rows[: got.total], taken)
    for row, owner in zip(got.rows[: got.total].tolist(), got.owners[: got.total].tolist(), strict=True):
        first = 4096 + row * row_bytes
        assert got.offsets[owner] <= first and first + row_bytes <= got.offsets[owner] + got.lengths[owner]
    offsets, lengths = got.offsets[: got.ranges], got.lengths[: got.ranges]
    assert (offsets % 4096 == 0).all() and (lengths % 4096 == 0).all()
    assert np.array_equal(got.places[: got.ranges], np.cumsum(lengths) - lengths)
    assert got.nbytes == lengths.sum()
    used, firsts = np.unique(got.owners[: got.total], return_index=True)
    assert np.array_equal(used, np.arange(got.ranges))
    query = np.searchsorted(np.cumsum(got.sizes), firsts, side="right")  # each query has ranges of its own
    pairs = list(zip(query.tolist(), offsets.tolist(), lengths.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("ip", [False, True])
@pytest.mark.parametrize("slack", [0.0, 0.02, 0.1, 9.0])
def test_a_shortlist_is_cut_past_the_slack_that_its_first_rows_errors_allow(slack: float, ip: bool) -> None:
    """The first `least` stay in any case. Under ip an error is proportional to the query's norm."""
    values, rows, errors = some_shortlists(5)
    norms = np.array([0.5, 1, 2, 4], np.float32) if ip else None
    got = Chosen(values, rows, errors, slack, norms=norms)
    allowed = norms if norms is not None else errors[:, :10].mean(1)
    bounds = values[:, 9] + np.float32(slack) * allowed
    expected = [max(12, int((line <= bound + 1e-6).sum())) for line, bound in zip(values, bounds, strict=True)]
    assert got.sizes.tolist() == expected
    assert slack not in (0.02, 0.1) or len(set(expected)) > 1


@pytest.mark.parametrize("ip", [False, True])
def test_a_shortlist_is_not_cut_shorter_where_estimates_are_below_zero(ip: bool) -> None:
    """Estimates near zero fall on both sides of it: more slack must never leave fewer rows."""
    values = np.sort(np.random.default_rng(0).normal(0 if not ip else -9, 0.5, 60)).astype(np.float32)
    left = []
    for slack in (0.0, 0.1, 0.5):
        ones = np.ones((1, 60), np.float32)
        got = Chosen(values[None], np.arange(60)[None], ones, slack, norms=ones[:, 0].copy() if ip else None)
        left += got.sizes.tolist()
    assert left == sorted(left) and left[-1] > 12


def test_a_shortlist_shorter_than_the_least_is_kept_whole() -> None:
    values, rows, errors = some_shortlists(6, size=7)
    got = Chosen(values, rows, errors, 0.0)
    assert got.sizes.tolist() == [7] * 4 and got.total == 28


# -- far rows ------------------------------------------------------------------------------------


class FarRows:
    """A search that has three answers already, and rows beyond the codes that are to join them."""

    def __init__(self, metric: int, limit: int) -> None:
        rng = np.random.default_rng(metric)
        self.vectors = rng.standard_normal((80, 24)).astype(np.float32)
        self.queries = rng.standard_normal((3, 24)).astype(np.float32)
        self.arrays = arrays_of(self.vectors)
        self.far = np.array([5, 11, 30, 31, 70, 79], np.int64)
        self.metric, self.limit = metric, limit
        coder = plain_coder(metric, np.float32, 24, 2, np.zeros(24, np.float32), 1.0)
        view = view_of(
            coder, view_heads_of(np.full((1, 64), 128, np.uint8), 1), np.zeros(1, np.int64), np.zeros(1, np.int32),
            np.zeros(64, np.uint8), 80,
        )  # fmt: skip
        self.view = replace(view, outlier_rows=self.far)

    def truth(self, i: int) -> NDArray[np.float64]:
        v, q = self.vectors.astype(np.float64), self.queries[i].astype(np.float64)
        if self.metric == 0:
            return np.asarray(((v - q) ** 2).sum(1))
        dots = v @ q
        return -dots if self.metric == 2 else 1 - dots / (np.linalg.norm(v, axis=1) * np.linalg.norm(q))

    def answers(
        self, there: list[int], row_count: int = 80, sequence: int = 9, allow: NDArray[np.uint64] = ALL_ROWS
    ) -> list[list[tuple[float, int]]]:
        search = Search(prepared_for(self.view, self.arrays), 3, self.limit, 1, 20, row_count, sequence, allow)
        for i in range(3):
            truth = self.truth(i)
            keys = sorted(key_of(float(np.float32(truth[row])), row) for row in there)[: self.limit]
            search.b.keys[0, i, : len(keys)] = keys
            search.b.sizes[0, i] = len(keys)
        search.plan._score_outliers(search.b, self.queries, allow, search.work)
        out = []
        for keys, size in zip(search.b.keys[0], search.b.sizes[0].tolist(), strict=True):
            values, rows = read_keys(keys[:size])
            out.append(list(zip(values.tolist(), rows.tolist(), strict=True)))
        return out

    def assert_answers(self, there: list[int], joining: list[int], **how: Any) -> None:
        for i, line in enumerate(self.answers(there, **how)):
            truth = self.truth(i)
            expected = sorted({*there, *joining}, key=lambda row: (truth[row], row))[: self.limit]
            assert [row for _, row in line] == expected
            assert np.allclose([value for value, _ in line], truth[expected], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("limit", [1, 4, 20])
@pytest.mark.parametrize("metric", [0, 1, 2], ids=["l2", "cosine", "ip"])
def test_far_rows_are_scored_on_their_vectors_and_join_the_answers(metric: int, limit: int) -> None:
    here = FarRows(metric, limit)
    here.assert_answers([1, 2, 60], here.far.tolist())
    here.assert_answers([], here.far.tolist())


def test_far_rows_that_the_snapshot_or_the_bitmap_hides_stay_out() -> None:
    here = FarRows(0, 20)
    here.arrays.deleted[[5, 11]] = (9, 10)
    here.assert_answers([1], [11, 30, 31, 70], row_count=79)
    allow = np.zeros(2, np.uint64)
    allow[0] = np.uint64(1 << 5 | 1 << 11 | 1 << 31)
    here.assert_answers([1], [11, 31], allow=allow)


def test_a_far_row_that_is_damaged_is_no_answer() -> None:
    here = FarRows(0, 20)
    here.vectors[31, 3] += 1
    with pytest.raises(Corruption, match="31"):
        here.answers([1])
    here.assert_answers([1], [5, 11, 30], row_count=31)  # what is hidden is not looked at
