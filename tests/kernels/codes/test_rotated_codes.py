"""Goal: rotated codes stand for the rotated vectors as closely as their bits allow, and distances between codes are
exact, as numpy computes them from the bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit

from vecdb.index.common.quantizer import BLOCK_COUNTS, ROTATED8, ROTATED16, ScalarQuantizer, block_count, kernel_blocks
from vecdb.index.common.quantizer import rotated_dim as padded
from vecdb.index.common.rotation import rotation
from vecdb.kernels.codes import rotated_codes
from vecdb.kernels.codes.code_formats import code_as_query, code_distance, encode_query
from vecdb.kernels.codes.float_codes import ANGLES, PRODUCTS, SQUARES
from vecdb.kernels.primitives import checksums
from vecdb.kernels.primitives.distance import COSINE, IP, L2

NO_BIAS, NO_FAR = np.empty(0, np.int32), np.empty(0, np.int32)
FORMATS = (ROTATED8, ROTATED16)
DIM = 40


@njit
def to_query(codes, bias, query, parameters, scale, metric, query8, query16, blocks, out):  # type: ignore[no-untyped-def]
    probe = encode_query(query, parameters, scale, metric, False, query8, query16, blocks)
    for row in range(len(codes)):
        out[row] = code_distance(codes, bias, np.int64(row), query8, query16, probe, blocks)


@njit
def to_row(codes, bias, other, kind, query8, query16, blocks, out):  # type: ignore[no-untyped-def]
    probe = code_as_query(codes, bias, np.int64(other), kind, query8, query16, blocks)
    for row in range(len(codes)):
        out[row] = code_distance(codes, bias, np.int64(row), query8, query16, probe, blocks)


def made(dim: int, code_format: str, metric: int, seed: int = 3) -> tuple[Any, ScalarQuantizer, Any]:
    """(vectors, a quantizer, their codes): lengths from 1e-3 to 1e3, one row of zeros."""
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(50, dim)) * 10.0 ** rng.integers(-3, 4, (50, 1))).astype(np.float32)
    if metric != COSINE:
        vectors[4] = 0
    mean = rng.normal(size=dim).astype(np.float32) * (metric != IP)
    signs = rotation(rng, padded(dim)).ravel()
    quantiser = ScalarQuantizer(mean, 0.5, 50, False, code_format, signs=signs)
    codes = np.full((50, quantiser.width), 7, np.uint8)
    assert quantiser.encode(checksums.for_kernels(vectors), 0, 50, metric, codes, NO_BIAS, NO_FAR) == 0
    return vectors, quantiser, codes


def stands_for(codes: Any, code_format: str, dim: int) -> tuple[Any, Any, Any]:
    """(integers int64[n, D], scale float64[n], sum of squares int64[n]), read from the bytes."""
    tails = np.ascontiguousarray(codes[:, -8:])
    if code_format == ROTATED16:
        integers = np.ascontiguousarray(codes[:, : 2 * padded(dim)]).view(np.int16).astype(np.int64)
    else:
        integers = codes[:, : padded(dim)].astype(np.int64) - 128
    return (
        integers,
        tails[:, :4].copy().view(np.float32)[:, 0].astype(np.float64),
        tails[:, 4:].copy().view(np.int32)[:, 0],
    )


def as_bits(distances: Any) -> Any:
    """int32 whose order is that of the distances, float64 rounded to float32."""
    bits = (distances.astype(np.float32) + np.float32(0)).view(np.int32)
    return np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)


def buffers(quantiser: ScalarQuantizer) -> tuple[Any, Any, tuple[Any, ...]]:
    width = quantiser.width
    return np.zeros(width, np.int8), np.zeros(2 * width, np.int16), kernel_blocks(width, quantiser.code_format)


@pytest.mark.parametrize("dim", [3, 40, 96])
@pytest.mark.parametrize("code_format", FORMATS)
def test_a_code_is_the_rotated_row_in_steps_of_its_own(dim: int, code_format: str) -> None:
    vectors, quantiser, codes = made(dim, code_format, L2)
    integers, steps, squares = stands_for(codes, code_format, dim)
    wanted = (vectors.astype(np.float64) - quantiser.mean) / quantiser.scale
    lengths = np.linalg.norm(wanted, axis=1)
    assert np.array_equal((integers**2).sum(axis=1), squares)
    assert (squares.astype(np.int64) < 2**31).all() and np.abs(integers).max() <= (
        32_767 if "16" in code_format else 127
    )
    # A rotation keeps lengths and products, whatever it is.
    decoded = integers * steps[:, None]
    rounding = steps * np.sqrt(padded(dim)) / 2 + 1e-6 * lengths
    assert (np.abs(np.linalg.norm(decoded, axis=1) - lengths) <= rounding).all()
    errors = np.abs(decoded @ decoded.T - wanted @ wanted.T)
    assert (errors <= np.outer(rounding, lengths) + np.outer(lengths, rounding) + np.outer(rounding, rounding)).all()
    if code_format == ROTATED16:
        assert (steps >= lengths / 46_200 * (1 - 1e-6)).all()


@pytest.mark.parametrize("code_format", FORMATS)
def test_distances_between_rows_are_exact_and_symmetric(code_format: str) -> None:
    _, quantiser, codes = made(DIM, code_format, L2)
    integers, steps, squares = stands_for(codes, code_format, DIM)
    query8, query16, blocks = buffers(quantiser)
    found = np.zeros((50, 50), np.int32)
    for row in range(50):
        to_row(codes, NO_BIAS, row, SQUARES, query8, query16, blocks, found[row])
    own = steps * steps * squares
    wanted = (own[:, None] + own) - 2.0 * ((steps[:, None] * steps) * (integers @ integers.T))
    assert np.array_equal(found, as_bits(wanted)) and np.array_equal(found, found.T)
    assert (np.diag(found) == 0).all()
    for row in range(50):
        to_row(codes, NO_BIAS, row, PRODUCTS, query8, query16, blocks, found[row])
    assert np.array_equal(found, as_bits(-(steps[:, None] * steps) * (integers @ integers.T)))


@pytest.mark.parametrize("code_format", FORMATS)
def test_angles_between_rows_are_exact_symmetric_and_those_of_centred_rows(code_format: str) -> None:
    vectors, quantiser, codes = made(DIM, code_format, L2)
    vectors[5] = quantiser.mean  # lies at the centre, and has no direction
    quantiser.encode(checksums.for_kernels(vectors), 0, 50, L2, codes, NO_BIAS, NO_FAR)
    integers, _, squares = stands_for(codes, code_format, DIM)
    query8, query16, blocks = buffers(quantiser)
    found = np.zeros((50, 50), np.int32)
    for row in range(50):
        to_row(codes, NO_BIAS, row, ANGLES, query8, query16, blocks, found[row])
    squares = squares.astype(np.float64)
    cosines = (integers @ integers.T) / np.sqrt(np.maximum(np.outer(squares, squares), 1.0))
    assert np.array_equal(found, as_bits(-cosines)) and np.array_equal(found, found.T)
    centred = vectors.astype(np.float64) - quantiser.mean
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1), 1e-300)[:, None]
    assert np.abs(cosines - unit @ unit.T).max() < (0.02 if code_format == ROTATED8 else 1e-3)
    assert not found[5].any()


@pytest.mark.parametrize("metric", [L2, COSINE, IP])
@pytest.mark.parametrize("code_format", FORMATS)
def test_a_query_is_coded_as_a_row_is(code_format: str, metric: int) -> None:
    vectors, quantiser, codes = made(DIM, code_format, metric)
    integers, steps, _ = stands_for(codes, code_format, DIM)
    query8, query16, blocks = buffers(quantiser)
    for row in (0, 17):
        found = np.zeros(50, np.int32)
        to_query(codes, NO_BIAS, vectors[row], quantiser.parameters, 0.5, metric, query8, query16, blocks, found)
        if metric != IP:
            between = np.zeros(50, np.int32)
            to_row(codes, NO_BIAS, row, False, query8, query16, blocks, between)
            assert np.array_equal(found, between) and found[row] == 0
        else:
            products = vectors.astype(np.float64) @ vectors[row].astype(np.float64)
            allowed = (
                3
                * np.linalg.norm(vectors, axis=1)
                * np.linalg.norm(vectors[row])
                / (127 if "8" in code_format else 32_767)
            )
            decoded = (integers * steps[:, None]) @ (integers[row] * steps[row]) * 0.25
            assert (np.abs(decoded - products) <= allowed).all()
            order = np.argsort(found, kind="stable")
            assert (np.diff(decoded[order]) <= allowed[order][1:] + allowed[order][:-1]).all()


def test_every_dimension_has_room_for_scale_and_squares() -> None:
    for code_format, size in ((ROTATED8, 1), (ROTATED16, 2)):
        for dim in (1, 8, 56, 57, 64, 100, 384, 1_000, 8_192):
            count = block_count(dim, code_format)
            assert 64 * count >= size * padded(dim) + rotated_codes.TRAILER
            assert count in BLOCK_COUNTS or count - 1 in BLOCK_COUNTS
