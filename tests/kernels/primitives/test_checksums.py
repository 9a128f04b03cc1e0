"""Goal: damaged rows and rows that no distance can be computed from are named, and why."""

from __future__ import annotations

import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("bad", "metric", "expected"),
    [
        (np.nan, "l2", checksums.NOT_FINITE),
        (np.inf, "ip", checksums.NOT_FINITE),
        (-np.inf, "cosine", checksums.NOT_FINITE),
        (3e38, "l2", checksums.NORM_OVERFLOWS),
        (0.0, "cosine", checksums.NORM_ZERO),
    ],
)
def test_values_without_a_distance_are_refused_with_their_row_and_reason(
    bad: float, metric: str, expected: int
) -> None:
    rows = np.ones((9, 5), np.float32)
    rows[6] = 0.0 if expected == checksums.NORM_ZERO else 1.0
    rows[6, 3] = bad
    assert checksums.check_finite(rows, metric) == (6, expected)
    assert checksums.check_finite(rows[:6], metric) == (-1, checksums.FINE)


def test_a_zero_vector_is_fine_where_its_norm_is_not_divided_by() -> None:
    assert checksums.check_finite(np.zeros((2, 3), np.float32), "l2") == (-1, checksums.FINE)


def test_half_precision_values_are_judged_by_value() -> None:
    rows = np.ones((3, 4), np.float16)
    assert checksums.check_finite(rows, "cosine") == (-1, checksums.FINE)
    rows[1, 1] = np.inf
    assert checksums.check_finite(rows, "cosine") == (1, checksums.NOT_FINITE)
    tiny = np.full((1, 4), 6e-8, np.float16)  # subnormal, not zero
    assert checksums.check_finite(tiny, "cosine") == (-1, checksums.FINE)


def test_read_only_rows_are_accepted() -> None:
    rows = np.ones((3, 4), np.float32)
    rows.flags.writeable = False
    assert checksums.check_finite(rows, "l2") == (-1, checksums.FINE)
    assert len(checksums.crc_rows(rows)) == 3
