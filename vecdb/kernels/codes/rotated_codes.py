"""Codes of 8 or 16 bits with a scale a row, of rotated vectors: no row is too long or too short for them.

    x' = P (x - center) / scale         float_codes.py says what x, center and scale are; P a fixed rotation
    code = round(x' / s)                integers, s a float32 of each row
           8 bits    s = max |x'_j| / 127                                  stored + 128
           16 bits   s = max(max |x'_j| / 32767, |x'| / 46200)             so that no product of two codes overflows

    row := code, zeros, s float32, n int32                                 n = sum of the code's squares

What two codes stand for is s * code, so that their distance is known exactly, and computed in float64 before it is
rounded to float32: near vectors far from the centre have little of a float32 left.

    l2        s^2 n + t^2 m - 2 s t dot         of the row and of a query, whose code, scale and sum of squares are
    product   - s t dot                         query8, t and m
    angle     - dot / sqrt(n m)                 between rows alone: the cosine of centred rows; 0 of a row at the centre

A probe is (SQUARES or PRODUCTS, t, t^2 m, sum of query8), or (ANGLES, t, m, sum of query8). Parameters of an encoding
are one array, float32[dim + 4 D]: the center, then the signs of the rotation. D is dim, at least 8.
"""

from __future__ import annotations

import math

import numpy as np

from vecdb.kernels.array_table import reinterpret
from vecdb.kernels.codes.float_codes import ANGLES, PRODUCTS, SQUARES, write_around, write_direction
from vecdb.kernels.codes.rabitq import ROUNDS, hadamard
from vecdb.kernels.compile import inlined, kernel, part
from vecdb.kernels.primitives.distance import IP

TRAILER = 8  # bytes of s and n
LENGTH_MAX = 46_200.0  # of a 16-bit code; with its rounding below 2**15.5
_ZERO = np.float32(0.0)


@part()
def _rotate(x, signs):
    """Rotate x (float32[D]) in place. signs : float32[ROUNDS * D] of +-1. As `rabitq.rotate`."""
    dim = len(x)
    count = np.int64(1)
    while 2 * count <= dim:
        count *= 2
    scale = np.float32(1.0 / math.sqrt(count))
    for turn in range(ROUNDS):
        flips = signs[turn * dim : (turn + 1) * dim]
        for j in range(dim):
            x[j] *= flips[j]
        first = np.int64(0) if turn % 2 == 0 else dim - count
        hadamard(x, first, count)
        for j in range(first, first + count):
            x[j] *= scale


@part()
def _step(x, wide):
    """The scale of a row's code. x : float32[D], rotated.   wide : 16 bits, else 8."""
    top = _ZERO
    for j in range(len(x)):
        top = max(top, abs(x[j]))
    if not wide:
        return top / np.float32(127.0)
    squares = 0.0
    for j in range(len(x)):
        squares += np.float64(x[j]) * np.float64(x[j])
    return max(top / np.float32(32_767.0), np.float32(math.sqrt(squares) / LENGTH_MAX))


@part()
def _rounded(x, factor, top):
    y = min(max(np.float64(x) * factor, -top), top)
    return np.int32(y + (0.5 if y > 0.0 else -0.5))


@part()
def _factor(step):
    return 1.0 / np.float64(step) if step > _ZERO else 0.0


@kernel()
def encode(vectors, first, stop, parameters, scale, metric, wide, codes, rotated):
    """Encode rows [first, stop).

    vectors : stored type [n, dim].   parameters : float32[dim + 4 D].   wide : 16 bits, else 8.
    codes : uint8[n, 64 * blocks].   rotated : float32[D], scratch.
    """
    dim = vectors.shape[1]
    center, signs = parameters[:dim], parameters[dim:]
    for row in range(first, stop):
        write_around(vectors[row], center, scale, metric, rotated)
        _rotate(rotated, signs)
        step = _step(rotated, wide)
        factor = _factor(step)
        code = codes[row]
        squares = np.int32(0)
        for j in range(len(code)):
            code[j] = np.uint8(0) if wide else np.uint8(128)
        if wide:
            words = reinterpret(code, np.int16)
            for j in range(len(rotated)):
                c = _rounded(rotated[j], factor, 32_767.0)
                words[j] = np.int16(c)
                squares += c * c
        else:
            for j in range(len(rotated)):
                c = _rounded(rotated[j], factor, 127.0)
                code[j] = np.uint8(c + np.int32(128))
                squares += c * c
        tail = len(code) // 4
        reinterpret(code, np.float32)[tail - 2] = step
        reinterpret(code, np.int32)[tail - 1] = squares


@part()
def encode_query(query, parameters, scale, metric, wide, query8, query16):
    """Rotate and quantise one query (float32[dim]) as a row. Returns its probe.

    query8 : int8[64 * blocks], filled, with words where `wide`.   query16 : int16[>= 2 D]; its bytes are scratch, and
    where codes have 8 bits it is filled with the same numbers as query8.
    """
    dim = len(query)
    center, signs = parameters[:dim], parameters[dim:]
    rotated = reinterpret(query16, np.float32)[: len(signs) // ROUNDS]
    kind = SQUARES
    if metric == IP:
        write_direction(query, rotated)
        kind = PRODUCTS
    else:
        write_around(query, center, scale, metric, rotated)
    _rotate(rotated, signs)
    step = _step(rotated, wide)
    factor = _factor(step)
    squares = np.int32(0)
    total = np.int32(0)
    for j in range(len(query8)):
        query8[j] = np.int8(0)
    if wide:
        words = reinterpret(query8, np.int16)
        for j in range(len(rotated)):
            c = _rounded(rotated[j], factor, 32_767.0)
            words[j] = np.int16(c)
            squares += c * c
    else:
        used = len(rotated)
        for j in range(used):  # in this order an element is read before the same bytes are written
            c = _rounded(rotated[j], factor, 127.0)
            query8[j] = np.int8(c)
            query16[j] = np.int16(c)
            squares += c * c
            total += c
        for j in range(used, len(query8)):
            query16[j] = np.int16(0)
    return kind, step, np.float64(step) * np.float64(step) * np.float64(squares), total


@part()
def code_as_query(codes, row, kind, wide, query8, query16):
    """Take a stored row as the query. kind : SQUARES, PRODUCTS or ANGLES. Returns the probe."""
    code = codes[row]
    tail = len(code) // 4
    step, squares = reinterpret(code, np.float32)[tail - 2], reinterpret(code, np.int32)[tail - 1]
    used = len(code) - TRAILER
    total = np.int32(0)
    if wide:
        for j in range(used):
            query8[j] = np.int8(code[j])
    else:
        for j in range(used):
            c = np.int32(code[j]) - np.int32(128)
            query8[j] = np.int8(c)
            query16[j] = np.int16(c)
            total += c
    for j in range(used, len(code)):
        query8[j] = np.int8(0)
        query16[j] = np.int16(0)
    if kind == ANGLES:
        return kind, step, np.float64(squares), total
    return kind, step, np.float64(step) * np.float64(step) * np.float64(squares), total


@inlined()
def distance(codes, row, dot, probe):
    """Distance of one row to the query, float32. dot : of both codes.   probe : of the query."""
    code = codes[row]
    tail = len(code) // 4
    step = np.float64(reinterpret(code, np.float32)[tail - 2])
    squares = np.float64(reinterpret(code, np.int32)[tail - 1])
    crossed = (step * np.float64(probe[1])) * np.float64(dot)
    if probe[0] != SQUARES:
        if probe[0] == PRODUCTS:
            return np.float32(0.0 - crossed)
        return np.float32(0.0 - np.float64(dot) / math.sqrt(max(squares * probe[2], 1.0)))
    return np.float32((step * step * squares + probe[2]) - 2.0 * crossed)
