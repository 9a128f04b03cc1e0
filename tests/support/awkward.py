"""Data of shapes that 8-bit codes with one scale tell too little of, and ordinary data beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def shape(name: str, n: int, dim: int, seed: int = 11) -> NDArray[np.float32]:
    """float32[n, dim] of the shape `name`, which says what it is: a number at the end is its size or spread."""
    rng = np.random.default_rng(seed)
    gauss = rng.normal(size=(n, dim))
    kind, _, last = name.rpartition(" ")
    size = float(last.lstrip("x+")) if kind else 0.0
    if kind == "clusters":
        centres = rng.normal(size=(30, dim))
        gauss = centres[rng.integers(0, 30, n)] + size * gauss
    elif kind == "one":
        gauss[n // 2] *= size
    elif kind == "wide":
        gauss[:, 3] *= size
    elif kind == "two":
        gauss[:, :2] += size
    elif kind == "all":
        gauss += size
    elif kind == "log-normal":
        gauss *= rng.lognormal(0, size, (n, 1))
    elif name == "half":
        gauss *= np.where(rng.random(n) < 0.5, 1e-3, 10.0)[:, None]
    elif name == "plain":
        gauss *= np.where(np.arange(dim) < dim // 4, 1.0, 0.05)
    elif name == "huge":
        gauss *= 1e15
    elif name == "tiny":
        gauss *= 1e-15
    elif name == "duplicates":
        gauss = gauss[np.arange(n) // 50]
    else:
        assert name == "gauss", name
    return gauss.astype(np.float32)


def near(vectors: NDArray[Any], count: int, seed: int = 5) -> NDArray[np.float32]:
    """Queries float32[count, dim]: stored rows, moved by a thousandth of their own elements' mean."""
    rng = np.random.default_rng(seed)
    picked = vectors[rng.choice(len(vectors), count)].astype(np.float64)
    step = 1e-3 * np.abs(picked).mean(axis=1, keepdims=True)
    moved: NDArray[np.float32] = (picked + step * rng.normal(size=picked.shape)).astype(np.float32)
    return moved
