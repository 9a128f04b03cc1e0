"""One-bit codes, 32 rows at once (FastScan): for searches that look at many rows that lie beside one another.

    panel  := bits u8[width, 32] | add f32[32] | rescale f32[32]  the lines of 32 slots (one_bit_lines.py), transposed
    tables := u8[2 width, 16]    for four bits each, the sum of the query's elements that they name, plus 16

A line serves a row that lies alone: one access to memory, seven nanoseconds of population counts. In a panel the same
byte of 32 rows is one register, and a table of sixteen entries another: one instruction looks up all rows, and a row
takes two nanoseconds (measured at 384 dimensions; after Andre, Kermarrec and Le Scouarnec, 2015). So a tenant with a
fifth of the rows or more looks at the panels of all rows, and passes over those rows with a small estimate that are not
its own.

Products are the same integers as those of lines, and estimates the same but for their last bit.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import float32, uint8

from vecdb.kernels.codes.one_bit_lines import offer, take_candidates
from vecdb.kernels.compile import kernel, part
from vecdb.kernels.primitives.bit_products import PANEL_ROWS as ROWS
from vecdb.kernels.primitives.bit_products import estimate_panel, lowest_bit
from vecdb.kernels.primitives.topk import first_at_least
from vecdb.kernels.primitives.visibility import is_visible

_SHIFT = np.int32(16)  # four elements of a query of three bits come to -16 to 12: with it, 8,192 of them fit 16 bits
FACTORS = 8  # bytes of a row beside its bits


class BitPanels(NamedTuple):
    """Panels one after another, or none; a query's tables uint8[2 * width, 16]; estimates float32[32], scratch."""

    octets: uint8[::1]
    tables: uint8[:, ::1]
    estimates: float32[::1]


@kernel()
def pack_panels(lines, floats, stop, width, panels, panel_floats):
    """Transpose the lines (uint8[slots, stride]) of slots [0, stop) into panels (uint8[any, 32 * (width + 8)]).

    width : bytes of the bits of a row.   floats, panel_floats : the same bytes as float32.
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
    """planes : uint8[3, width], of one query (`query_bit_planes`).   tables : uint8[2 * width, 16], filled."""
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
def filter_panels(listed, everything, low, high, first, stop, panels, query, shortlist, rows, code_words):
    """What `filter_by_estimate` does, for slots [first, stop): for those of them that are in listed[low:high], or where
    `everything` is set for all that are visible.

    panels : BitPanels.   The rest : see `filter_by_estimate`.
    """
    width = np.int64(8 * len(code_words))
    shift = query.half + np.float32(2 * np.int64(_SHIFT) * width)
    bound = shortlist.nearest[0] + shortlist.slack
    size = np.int64(0)
    for panel in range(first // ROWS, (stop + ROWS - 1) // ROWS):
        begin = np.int64(panel * ROWS)
        at = begin * (width + FACTORS)
        within = estimate_panel(
            panels.octets, at, panels.tables, query.weight, query.step, shift, bound, panels.estimates, code_words
        )
        while within:
            r = lowest_bit(within)
            within &= within - np.uint32(1)
            slot, distance = begin + r, panels.estimates[r]
            if distance > bound or slot < first or slot >= stop:
                continue
            if everything:
                if not is_visible(
                    np.int64(rows.rows_of[slot]), rows.row_count, rows.sequence, rows.deleted, rows.deleted[:0]
                ):
                    continue
            else:
                low = first_at_least(listed, low, high, slot)
                if low == high or np.int64(listed[low]) != slot:
                    continue
            size, bound = offer(distance, slot, bound, shortlist, size)
    return take_candidates(shortlist.keys, size, bound, shortlist.most, shortlist.kept)
