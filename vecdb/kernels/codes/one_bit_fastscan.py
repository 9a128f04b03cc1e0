"""Codes of one bit, thirty-two rows at once: for searches that look at many rows that lie beside one another.

    panel  := bits u8[width, 32] | add f32[32] | rescale f32[32]  the lines of 32 slots (one_bit_lines.py), turned round
    tables := u8[2 width, 16]    for four bits each, the sum of the query's elements that they name, and 16

A line is made for a row that lies alone: one access, seven nanoseconds of population counts. In a panel a byte of all
rows is one register, and a table of sixteen entries another: one instruction looks all of them up, and a row takes two
nanoseconds (measured at 384 dimensions; after Andre, Kermarrec and Le Scouarnec, 2015). So a tenant with a fifth of the
rows or more looks at all of them, and passes over what is not its own where it is near.

Products are the same integers as those of lines, and estimates the same but for their last bit.
"""

from __future__ import annotations

import numpy as np

from vecdb.kernels.codes.one_bit_lines import let_through, offer
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.bit_products import PANEL_ROWS as ROWS
from vecdb.kernels.primitives.bit_products import estimate_panel, lowest_bit
from vecdb.kernels.primitives.topk import first_at_least
from vecdb.kernels.primitives.visibility import is_visible

_SHIFT = np.int32(16)  # four elements of a query of three bits come to -16 to 12: with it, 8,192 of them fit 16 bits
FACTORS = 8  # bytes of a row beside its bits


@kernel()
def lay(lines, floats, stop, width, panels, panel_floats):
    """Turn the lines (uint8[slots, stride]) of slots [0, stop) into panels (uint8[any, 32 * (width + 8)]).

    floats, panel_floats : the same bytes as float32.
    """
    for slot in range(stop):
        panel, r = slot // ROWS, slot % ROWS
        for j in range(width):
            panels[panel, ROWS * j + r] = lines[slot, j]
        factors = (ROWS * width) >> 2
        panel_floats[panel, factors + r] = floats[slot, width >> 2]
        panel_floats[panel, factors + ROWS + r] = floats[slot, (width >> 2) + 1]


@part()
def fill_tables(planes, tables):
    """planes : uint8[3, width], a query's (sieve.as_planes).   tables : uint8[2 * width, 16], filled."""
    for j in range(planes.shape[1]):
        first, second, third = np.int32(planes[0, j]), np.int32(planes[1, j]), np.int32(planes[2, j])
        for half in range(2):
            table = tables[2 * j + half]
            table[0] = _SHIFT
            for bit in range(4):
                at = np.int32(4 * half + bit)
                u = ((first >> at) & 1) + 2 * ((second >> at) & 1) - 4 * ((third >> at) & 1)
                for known in range(1 << bit):
                    table[(1 << bit) + known] = np.int32(table[known]) + u


@part()
def sift_panels(
    listed, everything, low, high, first, stop, panels, tables, width, step, half, weight, limit, slack, most, seen,
    nearest, keys, kept, count, estimates,
):  # fmt: skip
    """What `sieve.sift` does, of the slots [first, stop) those that are in listed[low:high], or all that are visible.

    panels : uint8, all of them in a row.   estimates : float32[32], scratch.
    """
    rows_of, row_count, sequence, deleted = seen
    shift = half + np.float32(2 * np.int64(_SHIFT) * width)
    bound = nearest[0] + slack
    size = np.int64(0)
    for panel in range(first // ROWS, (stop + ROWS - 1) // ROWS):
        begin = np.int64(panel * ROWS)
        at = begin * (width + FACTORS)
        within = estimate_panel(panels, at, tables, weight, step, shift, bound, estimates, count)
        while within:
            r = lowest_bit(within)
            within &= within - np.uint32(1)
            slot, d = begin + r, estimates[r]
            if d > bound or slot < first or slot >= stop:
                continue
            if everything:
                if not is_visible(np.int64(rows_of[slot]), row_count, sequence, deleted, deleted[:0]):
                    continue
            else:
                low = first_at_least(listed, low, high, slot)
                if low == high or np.int64(listed[low]) != slot:
                    continue
            size, bound = offer(d, slot, bound, slack, limit, most, nearest, keys, size)
    return let_through(keys, size, bound, most, kept)
