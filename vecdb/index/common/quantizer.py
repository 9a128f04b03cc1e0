"""A quantizer as a value: how rows become codes, in which format, and how large those are.

    SQ8         8 bits an element, one scale for all rows        kernels/codes/sq8.py
    ROTATED8    8 bits, rotated, a scale a row                   kernels/codes/rotated_codes.py
    ROTATED16   16 bits, rotated, a scale a row
    FLOAT32     the elements themselves around a centre          kernels/codes/float_codes.py
    BITS        vectors of bits as they are                      kernels/codes/bit_codes.py

kernels/codes/code_formats.py says what a format is to kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.kernels.codes import bit_codes, float_codes, rotated_codes, sq8
from vecdb.kernels.primitives.distance import L2

# each is a compile: few steps, small waste
BLOCK_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
SQ8, ROTATED8, ROTATED16, FLOAT32, BITS = "sq8", "rotated8", "rotated16", "float32", "bits"
CODE_FORMATS = (SQ8, ROTATED8, ROTATED16, FLOAT32, BITS)  # stored in sealed files: they never change
ROTATED = (ROTATED8, ROTATED16)
_ELEMENTS: dict[str, Any] = {  # of `blocks`, as code_formats.py tells formats apart
    SQ8: 0, ROTATED8: np.int8(0), ROTATED16: np.int16(0), FLOAT32: np.float32(0), BITS: np.uint64(0),
}  # fmt: skip
_ELEMENT_BYTES = {SQ8: 1, ROTATED8: 1, ROTATED16: 2, FLOAT32: 4, BITS: 1}
_ROTATED_DIM_MIN = 8
_FLAT_SQUARE = 4  # mean square of a code's elements


def block_count(dim: int, code_format: str = SQ8) -> int:
    """64-byte blocks of a code, padded to one of BLOCK_COUNTS, or to one more where scales have no room left."""
    needed = (rotated_dim(dim) if code_format in ROTATED else dim) * _ELEMENT_BYTES[code_format]
    count = next(count for count in BLOCK_COUNTS if 64 * count >= needed)
    return count + (code_format in ROTATED and needed + rotated_codes.TRAILER > 64 * count)


def rotated_dim(dim: int) -> int:
    """Dimensions of a rotated vector."""
    return max(dim, _ROTATED_DIM_MIN)


def kernel_blocks(width: int, code_format: str) -> tuple[Any, ...]:
    """What kernels are told of codes of `width` bytes."""
    return (_ELEMENTS[code_format],) * (width // 64)


class ScalarQuantizer:
    """How rows become codes. Immutable.

    mean : float32[dim].   scale : of all elements.   trained_rows : how many rows it was made from.
    lossless : rows are their own codes: those of bits, and some of 8 bits.   code_format : one of CODE_FORMATS.
    signs : float32[4 * rotated_dim(dim)] of +-1, of the rotation; None where there is none.
    recall : how many of the 10 nearest rows are among the 20 nearest codes, on average; None: not measured.
    measured_rows : of how many rows.
    parameters : float32[any], what kernels take: mean and signs.
    """

    __slots__ = (
        "code_format", "lossless", "mean", "measured_rows", "parameters", "recall", "scale", "signs", "trained_rows",
    )  # fmt: skip

    def __init__(
        self,
        mean: NDArray[np.float32],
        scale: float,
        trained_rows: int,
        lossless: bool,
        code_format: str = SQ8,
        *,
        signs: NDArray[np.float32] | None = None,
        recall: float | None = None,
        measured_rows: int = 0,
    ) -> None:
        self.mean = mean
        self.scale = scale
        self.trained_rows = trained_rows
        self.lossless = lossless
        self.code_format = code_format
        self.signs = signs
        self.recall = recall
        self.measured_rows = measured_rows
        self.parameters = mean if signs is None else np.concatenate([mean, signs])

    def measured(self, recall: float, rows: int) -> ScalarQuantizer:
        """The same with what was measured of it on `rows` rows."""
        return ScalarQuantizer(
            self.mean, self.scale, self.trained_rows, self.lossless, self.code_format, signs=self.signs, recall=recall,
            measured_rows=rows,
        )  # fmt: skip

    @property
    def width(self) -> int:
        """Bytes of a code."""
        return 64 * block_count(len(self.mean), self.code_format)

    def flat_below(self, metric: int) -> int:
        """Rows with a smaller bias are too short for the scale: on average two of its steps an element. 0: none is."""
        return 0 if self.lossless or metric != L2 else _FLAT_SQUARE * len(self.mean)

    def encode(
        self,
        vectors: NDArray[Any],
        first: int,
        stop: int,
        metric: int,
        codes: NDArray[np.uint8],
        bias: NDArray[np.int32],
        far: NDArray[np.int32],
        *,
        find_flat: bool = True,
    ) -> int:
        """Encode rows [first, stop) in place. Returns how many are far: their codes say little, and `far` lists them.
        find_flat : those that are too short for the scale, too.

        vectors : stored type[n, dim], as kernels take them (checksums.for_kernels).   codes : uint8[n, width].
        bias : int32[n], or int32[0] where none is kept.   far : int32[>= stop - first].
        """
        if self.code_format == SQ8:
            flat = self.flat_below(metric) if find_flat else 0
            return int(sq8.encode(vectors, first, stop, self.mean, self.scale, metric, flat, codes, bias, far))
        if self.code_format == FLOAT32:
            float_codes.encode(vectors, first, stop, self.mean, self.scale, metric, codes)
            return 0
        if self.code_format == BITS:
            bit_codes.encode(vectors, first, stop, codes, bias)
            return 0
        rotated_codes.encode(
            vectors, first, stop, self.parameters, self.scale, metric, self.code_format == ROTATED16, codes,
            np.empty(rotated_dim(len(self.mean)), np.float32),
        )  # fmt: skip
        return 0
