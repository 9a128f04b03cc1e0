"""The 8-bit codes of rows that a tree is made of, whichever codes its searches compare.

A tree's heads are codes of one scale (clustering/cluster_tree.py), and rows are sorted into leaves by codes of the same
kind. Where those fit the data, searches compare them too, and they are at hand. Elsewhere searches compare codes of
another format (common/code_choice.py), and those of the tree are made again from the vectors while an order is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.index.common import sq8_training
from vecdb.index.common.quantizer import ScalarQuantizer
from vecdb.storage.disk.row_file import RowArrays


@dataclass(frozen=True, slots=True)
class RowsInSpace:
    """own : of the space; None: the codes that searches compare are in it.

    codes : uint8[slots, width], what searches compare.   slots_of : uint32[rows], where each row has them.
    """

    own: ScalarQuantizer | None
    codes: NDArray[np.uint8]
    slots_of: NDArray[np.uint32]
    arrays: RowArrays
    metric: int

    def codes_of(self, rows: NDArray[Any]) -> NDArray[np.uint8]:
        """uint8[n, 64 * blocks]."""
        return self.codes_and_far(rows)[0]

    def codes_and_far(self, rows: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
        """Codes, and how many of them are beyond the range of a space of its own: 0 where it has none."""
        if self.own is None:
            return self.codes[self.slots_of[rows]], 0
        vectors = np.ascontiguousarray(self.arrays.vectors[rows])
        codes, _, far = sq8_training.quantise(self.own, vectors, self.metric)
        return codes, len(far)
