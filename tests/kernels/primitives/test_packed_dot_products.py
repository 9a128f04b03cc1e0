"""Goal: the dot product of a packed code and a query is the same integer on every instruction path, at every width and
at the ends of its range.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from tests.support.processors import run_on
from vecdb.kernels.primitives import dot_products

# Runs here and in processes that compile for other targets.
_PROGRAM = """
import numpy as np
from numba import njit
from numba.core.registry import cpu_target
from vecdb.kernels.primitives import dot_products

@njit
def dots(codes, offsets, width, query, bits, out):
    for i in range(len(offsets)):
        out[i] = dot_products.dot_packed(codes, offsets[i], width, query, bits)

def truth(code, query, bits):
    width = len(code)
    fields = [(code >> (bits * f)) & ((1 << bits) - 1) for f in range(8 // bits)]
    return int(np.concatenate(fields).astype(np.int64) @ query.astype(np.int64))

for bits in (1, 2, 4, 8):
    rng = np.random.default_rng(bits)
    for width in (16, 32, 48, 64, 112, 384):
        dim = width * 8 // bits
        queries = [rng.integers(-127, 128, dim), np.full(dim, 127), np.full(dim, -127), np.zeros(dim)]
        queries += [np.where(np.arange(dim) % 2, 127, -127), np.where(np.arange(dim) < width, 127, -127)]
        if bits == 8:
            queries += [np.full(dim, -128), rng.integers(-128, 128, dim)]
        codes = rng.integers(0, 256, 40 * width + 100, dtype=np.uint8)
        codes[:width] = 0
        codes[width : 2 * width] = 255
        offsets = np.concatenate([np.arange(40) * width, np.array([3, 17, 52])])  # bodies start at any multiple of 4
        for query in queries:
            query = query.astype(np.int8)
            out = np.zeros(len(offsets), np.int32)
            dots(codes, offsets, np.int64(width), query, (0,) * bits, out)
            wanted = [truth(codes[at : at + width], query, bits) for at in offsets]
            assert out.tolist() == wanted, (bits, width, query[:4], out[:3], wanted[:3])
print("path", dot_products.dot_path(cpu_target.target_context))
"""


def _flags() -> str:
    return Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""


@pytest.mark.parametrize(
    ("name", "features", "path", "needs"),
    [
        (None, None, None, None),
        ("generic", "", "plain", None),
        ("haswell", "", "avx2", "avx2"),
        ("skylake-avx512", "+avx512f,+avx512vnni,+avx512vl,+avx2,+sse4.2,+crc32", "vnni512", "avx512_vnni"),
        ("skylake-avx512", "+avx512f,+avx512vnni,-avx512vl,+avx2,+sse4.2,+crc32", "vnni512", "avx512_vnni"),
        ("haswell", "+avx512vnni,+avx512vl,+avx2,+sse4.2,+crc32", "vnni256", "avx512_vnni"),
    ],
    ids=["here", "generic", "haswell", "vnni512", "vnni512 without vl", "vnni256"],
)
def test_packed_dots_are_exact_on_every_target(
    name: str | None, features: str | None, path: str | None, needs: str | None
) -> None:
    if needs is not None and needs not in _flags():
        pytest.skip(f"this processor has no {needs}")
    printed = run_on(_PROGRAM, name, features)
    if path is not None:
        assert f"path {path}" in printed


def test_a_byte_holds_dimensions_a_width_apart_the_first_in_its_lowest_bits() -> None:
    @njit
    def dot(codes, query, bits):  # type: ignore[no-untyped-def]
        return dot_products.dot_packed(codes, np.int64(0), np.int64(16), query, bits)

    code = np.zeros(16, np.uint8)
    code[5] = 0b11_01_00_10
    query = np.zeros(64, np.int8)
    for dimension, level in ((5, 2), (5 + 16, 0), (5 + 32, 1), (5 + 48, 3), (6, 0)):
        query[:] = 0
        query[dimension] = -7
        assert dot(code, query, (0, 0)) == -7 * level
