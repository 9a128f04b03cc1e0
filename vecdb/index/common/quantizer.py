"""The 8-bit scalar quantizer as a value, and the size of its codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # each is a compile: few steps, small waste


def block_count(dim: int) -> int:
    """64-byte blocks of a code, padded to one of BLOCK_COUNTS."""
    return next(count for count in BLOCK_COUNTS if 64 * count >= dim)


class ScalarQuantizer:
    """code = clip(round((x - mean) / scale) + 128); see kernels/codes/sq8.py. Immutable."""

    __slots__ = ("lossless", "mean", "scale", "trained_rows")

    def __init__(self, mean: NDArray[np.float32], scale: float, trained_rows: int, lossless: bool) -> None:
        self.mean = mean
        self.scale = scale
        self.trained_rows = trained_rows
        self.lossless = lossless
