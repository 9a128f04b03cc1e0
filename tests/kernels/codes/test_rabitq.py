"""Goal: rotation keeps geometry, estimates are unbiased with the error that theory gives, and no input makes NaN."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from tests.support.spann.posting_lists import Search, arrays_of, prepared_for, view_heads_of, view_of
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.index.common.rotation import padded
from vecdb.index.spann.entry_coder import EntryCoder, new_coder, scaled
from vecdb.index.spann.searching.list_search import choose
from vecdb.kernels.codes import rabitq
from vecdb.kernels.primitives.dot_products import dot_packed
from vecdb.storage.disk.row_file import RowArrays


@njit
def _rotate(x, signs):  # type: ignore[no-untyped-def]
    for i in range(len(x)):
        rabitq.rotate(x[i], signs)


@njit
def _dots(codes, query8, bits, out):  # type: ignore[no-untyped-def]
    flat = codes.reshape(-1)
    for i in range(len(codes)):
        out[i] = dot_packed(flat, np.int64(i * codes.shape[1]), np.int64(codes.shape[1]), query8, bits)


def units_of(coder: EntryCoder, vectors: NDArray[Any]) -> NDArray[np.float32]:
    """What rows count as: unit vectors under cosine."""
    x = vectors.astype(np.float64)
    if coder.cosine:
        norms = np.linalg.norm(x, axis=1, keepdims=True)
        x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    return x.astype(np.float32)


def coder_for(
    sample: NDArray[Any], metric: int, bits: int, heads: NDArray[np.uint8] | None = None
) -> tuple[EntryCoder, NDArray[np.uint8]]:
    """A coder with one head, the sample's mean unless given, fixed as a build would fix it."""
    dim = sample.shape[1]
    top = max(float(np.abs(sample).max()), 1e-30)
    quantiser = ScalarQuantizer(np.zeros(dim, np.float32), top / 127, len(sample), False)
    arrays = RowArrays(sample, np.empty(0, np.uint32), np.empty(0, np.uint8), np.empty(0, np.uint64))
    coder = new_coder(arrays, metric, bits, quantiser, sample)
    if heads is None:
        units = units_of(coder, sample).mean(axis=0)
        heads = np.clip(np.round(units / quantiser.scale) + 128, 0, 255).astype(np.uint8)[None, :]
    return scaled(coder, sample, np.zeros(len(sample), np.int32), heads), heads


def estimates(
    coder: EntryCoder, head: NDArray[np.uint8], vectors: NDArray[Any], query: NDArray[np.float32]
) -> NDArray[np.float64]:
    """What a scan would estimate, from the definitions of the module, in float64."""
    n = len(vectors)
    codes, factors = coder.encode(vectors, np.zeros(n, np.int32), head, np.arange(n))
    pair = factors.view(np.float16).reshape(n, 2).astype(np.float64)
    assert np.isfinite(pair).all()
    query8s, steps, sums = np.zeros((1, coder.padded_dim), np.int8), np.zeros(1, np.float32), np.zeros(1, np.int32)
    rabitq.encode_queries(
        queries=query[None], center=coder.center, signs=coder.signs, rotated=np.zeros(coder.padded_dim, np.float32),
        query8s=query8s, steps=steps, sums=sums,
    )  # fmt: skip
    query8, step, total = query8s[0], float(steps[0]), int(sums[0])
    assert np.isfinite(step) and total == query8.astype(np.int64).sum()
    dots = np.zeros(n, np.int64)
    _dots(codes, query8, (0,) * coder.bits, dots)
    along = step * (dots - 0.5 * (2**coder.bits - 1) * total)
    c = coder.decode(head)[0].astype(np.float64)
    if coder.ip:
        return np.asarray(-(c @ query) + 0.5 * pair[:, 1] * coder.rescale_unit * along)
    near = ((c - query) ** 2).sum()
    return np.asarray(pair[:, 0] * coder.add_unit + near + pair[:, 1] * coder.rescale_unit * along)


@pytest.mark.parametrize("dim", [64, 128, 192, 320, 1024])
def test_rotation_keeps_norms_and_inner_products(dim: int) -> None:
    rng = np.random.default_rng(dim)
    signs = (1 - 2 * rng.integers(0, 2, (rabitq.ROUNDS, dim))).astype(np.float32)
    x = rng.standard_normal((40, dim)).astype(np.float32)
    x[0], x[1] = 0, np.eye(dim)[3]
    turned = x.copy()
    _rotate(turned, signs)
    assert np.allclose(turned.astype(np.float64) @ turned.T.astype(np.float64), x @ x.T, atol=2e-3)
    basis = np.eye(dim, dtype=np.float32)
    _rotate(basis, signs)
    assert np.allclose(basis @ basis.T, np.eye(dim), atol=1e-5)
    assert np.abs(basis).max() < 0.75  # no direction stays where it was, or codes of sparse rows would say little


@pytest.mark.parametrize(("dim", "bits"), [(24, 1), (24, 2), (100, 1), (129, 2), (64, 4), (65, 8)])
def test_codes_are_whole_vectors_of_sixteen_bytes(dim: int, bits: int) -> None:
    wide = padded(dim, bits)
    assert wide >= dim and wide % 64 == 0 and (wide * bits // 8) % 16 == 0 and wide - dim < 128


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("metric", [0, 2], ids=["l2", "ip"])
@pytest.mark.parametrize("data", ["gaussian", "clustered"])
def test_estimates_are_unbiased_and_as_near_as_theory_says(data: str, metric: int, bits: int) -> None:
    """Theory: the error of <r, q> has deviation |r| |q - c| tan(angle of code and row) / sqrt(D - 1)."""
    rng = np.random.default_rng(bits)
    dim, n = 128, 2000
    vectors = rng.standard_normal((n, dim))
    if data == "clustered":
        vectors = 3 * rng.standard_normal((1, dim)) + rng.standard_normal((n, 16)) @ rng.standard_normal((16, dim)) / 4
    vectors = vectors.astype(np.float32)
    coder, head = coder_for(vectors, metric, bits)
    queries = (vectors[:30] + 0.7 * rng.standard_normal((30, dim))).astype(np.float32)
    v64 = vectors.astype(np.float64)
    c = coder.decode(head)[0].astype(np.float64)
    lengths = np.linalg.norm(v64 - c, axis=1)
    errors = []
    for query in queries:
        q = query.astype(np.float64)
        truth = -(v64 @ q) if metric == 2 else ((v64 - q) ** 2).sum(1)
        # under ip the query itself meets the residual, under l2 its difference from the centre of all
        reach = np.linalg.norm(q) if metric == 2 else 2 * np.linalg.norm(q - coder.center)
        errors.append((estimates(coder, head, vectors, query) - truth) / (lengths * reach))
    error = np.array(errors)
    # deviation of codes of a gaussian element after the best uniform quantiser: cos^2 = 2/pi, .8825, .98853, ...
    tangent = {1: 0.756, 2: 0.366, 4: 0.110, 8: 0.0095}[bits]
    expected = tangent / np.sqrt(dim - 1)
    assert abs(error.mean()) < 0.15 * expected + 1e-4
    assert 0.5 * expected < error.std() < 1.25 * expected + 4e-4  # 4e-4: factors are float16, queries 8 bits


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("metric", [0, 2], ids=["l2", "ip"])
def test_the_error_that_a_coder_states_is_the_error_that_it_has(metric: int, bits: int) -> None:
    """Stated in units of |rescale| |q - c|, under ip of the query's norm; rows and queries of many norms."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((1000, 128)).astype(np.float32)
    if metric == 0:
        vectors *= np.exp(rng.uniform(-1, 1, (1000, 1))).astype(np.float32)
    coder, head = coder_for(vectors, metric, bits)
    c = coder.decode(head)[0]
    _, factors = coder.encode(vectors, np.zeros(1000, np.int32), head, np.arange(1000))
    rescale = np.abs(factors.view(np.float16).reshape(-1, 2)[:, 1].astype(np.float64)) * coder.rescale_unit
    seen = []
    for query in vectors[:20] + np.float32(0.3):
        truth = ((vectors.astype(np.float64) - query) ** 2).sum(1)
        unit = rescale * np.linalg.norm(query - c)
        if metric == 2:
            truth, unit = -(vectors.astype(np.float64) @ query), np.full(1000, np.linalg.norm(query))
        seen.append((estimates(coder, head, vectors, query) - truth) / unit)
    assert 0.8 < np.std(seen) / coder.error < 1.2


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_integers_are_their_own_codes_and_distances_exact(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    low, high = (0, 256) if dtype == np.uint8 else (-128, 128)
    vectors = rng.integers(low, high, (300, 40)).astype(dtype)
    vectors[0], vectors[1] = low, high - 1
    mean = np.full(40, 128 if dtype == np.uint8 else 0, np.float32)
    arrays = RowArrays(vectors, np.empty(0, np.uint32), np.empty(0, np.uint8), np.empty(0, np.uint64))
    coder = new_coder(arrays, 0, 8, ScalarQuantizer(mean, 1.0, 300, True), vectors)
    assert coder.lossless and coder.width == 64
    codes, squares = coder.encode(vectors, np.zeros(300, np.int32), np.zeros((1, 64), np.uint8), np.arange(300))
    stands_for = codes[:, :40].astype(np.int64) - 128
    assert np.array_equal(stands_for, vectors.astype(np.int64) - mean.astype(np.int64)) and (codes[:, 40:] == 128).all()
    assert np.array_equal(squares.view(np.float32), (stands_for**2).sum(1))
    queries = np.concatenate([vectors[:5], rng.integers(low, high, (5, 40)).astype(dtype)]).astype(np.float32)
    body = np.concatenate([codes.reshape(-1), np.arange(300, dtype=np.uint32).view(np.uint8), squares.view(np.uint8)])
    found = lossless_estimates(coder, vectors, body, queries)
    truth = ((vectors.astype(np.int64)[None] - queries.astype(np.int64)[:, None]) ** 2).sum(2)
    for i, line in enumerate(found):
        assert sorted(row for _, row, _ in line) == list(range(300))
        assert [value for value, _, _ in line] == truth[i, [row for _, row, _ in line]].tolist()
        assert not any(error for _, _, error in line)
    # a query between the integers is off by its rounding, one beyond them by a step of the scale that makes it fit
    for query, unit in ((queries[0] + np.float32(0.37), 1.0), (8 * (queries[0] - mean) + mean, None)):
        line = lossless_estimates(coder, vectors, body, query[None])[0]
        exact = ((vectors.astype(np.float64) - query) ** 2).sum(1)
        inside = query.astype(np.float64) - mean
        step = unit or max(1.0, float((-inside / 128).max()), float((inside / 127).max()))
        assert (step > 1) == (unit is None)
        norms = np.abs(vectors.astype(np.float64) - mean).sum(1)  # each element of the query is off by half a step
        for value, row, _ in line:
            assert abs(value - exact[row]) <= step * norms[row] * 1.001 + 1e-5 * exact[row]


def lossless_estimates(
    coder: EntryCoder, vectors: NDArray[Any], body: NDArray[np.uint8], queries: NDArray[np.float32]
) -> list[list[tuple[float, int, float]]]:
    """(estimate, row, error) of all rows, as a search of one list that holds them finds them."""
    n = len(vectors)
    heads = view_heads_of(np.full((1, 64), 128, np.uint8))
    view = view_of(coder, heads, np.zeros(1, np.int64), np.array([n], np.int32), body, n)
    search = Search(prepared_for(view, arrays_of(vectors)), len(queries), 1, 1, n, n, 1)
    choose(search.plan.context, search.b, queries, np.float32(np.inf), search.work)
    assert search.b.probed.counts.tolist() == [1] * len(queries)
    search.scan()
    return search.shortlists()


@pytest.mark.parametrize("metric", [0, 1, 2], ids=["l2", "cosine", "ip"])
@pytest.mark.parametrize("scale", [1e-20, 1e-12, 1.0, 1e12, 1e15])
def test_rows_of_any_norm_and_rows_at_their_head_give_numbers(scale: float, metric: int) -> None:
    rng = np.random.default_rng(2)
    vectors = (rng.standard_normal((60, 24)) * scale).astype(np.float32)
    vectors[0] = 0
    vectors[1] = np.float32(scale)  # constant
    vectors[2] *= np.float32(1e-6)
    vectors[3] *= np.float32(1e3)
    for bits in (1, 2, 8):
        coder, head = coder_for(vectors, metric, bits)
        vectors[4] = coder.decode(head)[0]  # no residual at all
        assert all(np.isfinite((coder.add_unit, coder.rescale_unit, coder.error)))
        for query in (vectors[1], vectors[5], np.zeros(24, np.float32), coder.decode(head)[0]):
            unit = units_of(coder, query[None])[0]
            assert np.isfinite(estimates(coder, head, vectors, unit)).all()


def test_a_row_at_its_head_is_estimated_at_the_distance_of_the_head() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((50, 24)).astype(np.float32)
    coder, head = coder_for(vectors, 0, 2)
    centre = coder.decode(head)
    query = vectors[7]
    assert np.allclose(estimates(coder, head, centre, query), ((centre[0] - query) ** 2).sum(), rtol=1e-5)


def test_rows_beyond_the_sample_are_clipped_to_what_a_factor_holds() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((50, 24)).astype(np.float32)
    coder, head = coder_for(vectors, 0, 2)
    codes, factors = coder.encode(vectors * np.float32(1e9), np.zeros(50, np.int32), head, np.arange(50))
    assert np.isfinite(factors.view(np.float16).astype(np.float32)).all()
    assert codes.any() and replace(coder).width == codes.shape[1]
