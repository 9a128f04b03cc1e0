"""The arithmetic of the two families of vector files that have no magic number.

    fvecs ivecs bvecs          record := dim i32, value[dim]                     file := record*
    fbin ibin hbin u8bin i8bin file   := n u32, dim u32, value[n * dim]
    truth                      file   := n u32, k u32, row u32[n * k], distance f32[n * k]      (big-ann-benchmarks)

All little-endian. Formats: http://corpus-texmex.irisa.fr and https://big-ann-benchmarks.com.
"""

from __future__ import annotations

import numpy as np

VECS: dict[str, np.dtype[np.generic]] = {
    "fvecs": np.dtype("<f4"),
    "ivecs": np.dtype("<i4"),
    "bvecs": np.dtype("u1"),
}
BINS: dict[str, np.dtype[np.generic]] = {
    "fbin": np.dtype("<f4"),
    "ibin": np.dtype("<i4"),
    "hbin": np.dtype("<f2"),
    "u8bin": np.dtype("u1"),
    "i8bin": np.dtype("i1"),
}

file_dim_max = 1 << 20  # a dimension beyond this is a misread header, not a vector


def vecs_record_bytes(format: str, dim: int) -> int:
    """Bytes of one record of an fvecs, ivecs or bvecs file."""
    return 4 + dim * VECS[format].itemsize


def bin_file_bytes(format: str, n: int, dim: int) -> int:
    """Bytes of a whole fbin, ibin, hbin, u8bin or i8bin file."""
    return 8 + n * dim * BINS[format].itemsize


def truth_file_bytes(n: int, k: int) -> int:
    """Bytes of a whole ground-truth file."""
    return 8 + n * k * 8
