"""A random rotation, which codes of few bits need: its dimensions and signs (kernels/codes/rabitq.py applies it)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.codes import rabitq


def padded(dim: int, bits: int) -> int:
    """Dimensions of a packed code: whole vectors of 16 bytes, and a multiple of 64 for the rotation."""
    unit = max(64, 128 // bits) if bits < 8 else 64
    return -(-dim // unit) * unit


def rotation(rng: np.random.Generator, dim: int) -> NDArray[np.float32]:
    """Signs of a rotation of `dim` dimensions, as `rabitq.rotate` takes them: float32[4, dim] of +-1."""
    signs: NDArray[np.float32] = (1 - 2 * rng.integers(0, 2, (rabitq.ROUNDS, dim))).astype(np.float32)
    return signs
