"""Goal: damaged rows are named."""

from __future__ import annotations

import numpy as np

from vecdb.kernels.primitives import checksums


def test_verify_names_the_first_damaged_row_and_remembers_sound_ones() -> None:
    rows = np.random.default_rng(1).standard_normal((40, 7)).astype(np.float32)
    crcs = checksums.crc_rows(rows)
    verified = np.zeros(8, np.uint8)
    assert checksums.verify_rows(rows, 0, 40, crcs, verified) == -1
    assert np.unpackbits(verified).sum() == 40
    rows.view(np.uint8).reshape(40, 28)[17, 27] ^= 1
    assert checksums.verify_rows(rows, 0, 40, crcs, verified) == -1, "verified once per process"
    assert checksums.verify_rows(rows, 0, 40, crcs, np.zeros(8, np.uint8)) == 17


def test_read_only_rows_are_accepted() -> None:
    rows = np.ones((3, 4), np.float32)
    rows.flags.writeable = False
    assert len(checksums.crc_rows(rows)) == 3
