"""Goal: every instruction path gives the same integers, on this processor and on compile targets that lack its
instructions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processors import run_on

_PROGRAM = """
import sys, zlib
import numpy as np
from numba import njit
from numba.core.registry import cpu_target
from vecdb.kernels.primitives import checksums, dot_products

@njit
def dots(codes, q8, q16, blocks, out):
    for i in range(len(codes)):
        out[i] = dot_products.dot_codes(codes, np.int64(i), q8, q16, blocks)

for blocks in (1, 8):
    rng = np.random.default_rng(blocks)
    codes = rng.integers(0, 256, (50, 64 * blocks), dtype=np.uint8)
    q8 = rng.integers(-128, 128, 64 * blocks).astype(np.int8)
    codes[0], codes[1] = 255, 255
    if blocks == 8:
        q8[:] = np.where(np.arange(64 * blocks) % 2, 127, -128)
        q8[:64] = 127  # pairs of 255 * 127 saturate 16 bits
    out = np.zeros(50, np.int32)
    dots(codes, q8, q8.astype(np.int16), (0,) * blocks, out)
    assert np.array_equal(out, codes.astype(np.int64) @ q8.astype(np.int64)), (blocks, out)
@njit
def words(codes, query8, blocks, out):
    for i in range(len(codes)):
        out[i] = dot_products.dot_words(codes, np.int64(i), query8, blocks)

for blocks in (5, 9):
    rng = np.random.default_rng(blocks)
    codes = rng.normal(size=(50, 32 * blocks))
    codes[0], codes[1] = 0, 1
    codes[0, 3] = 1
    codes = np.round(codes / np.linalg.norm(codes, axis=1)[:, None] * 46_200).clip(-32_767, 32_767).astype(np.int16)
    out = np.zeros(50, np.int32)
    for one in (0, 1, 7):
        words(codes.view(np.uint8), codes[one].view(np.int8), (np.int16(0),) * blocks, out)
        assert np.array_equal(out, codes.astype(np.int64) @ codes[one].astype(np.int64)), (blocks, out)
vector = np.frombuffer(b"123456789", np.uint8).reshape(1, 9)
assert checksums.crc_rows(vector)[0] == 0xE3069283, hex(checksums.crc_rows(vector)[0])
zeros = np.zeros((1, 32), np.uint8)
assert checksums.crc_rows(zeros)[0] == 0x8A9136AA
print("path", dot_products.dot_path(cpu_target.target_context))
"""


@pytest.mark.parametrize(
    ("name", "features", "path"), [(None, None, None), ("generic", "", "plain"), ("haswell", "", "avx2")], ids=str
)
def test_dots_and_checksums_are_exact_on_every_target(name: str | None, features: str | None, path: str | None) -> None:
    if path == "avx2":
        flags = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
        if "avx2" not in flags:
            pytest.skip("this processor cannot run haswell code")
    printed = run_on(_PROGRAM, name, features)
    if path is not None:
        assert f"path {path}" in printed


def test_importing_vecdb_does_not_import_numba() -> None:
    program = "import sys, vecdb, vecdb.schema; assert 'numba' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
