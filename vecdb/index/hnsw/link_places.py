"""How many links a row of a graph may have on layer 0, and by what they are chosen.

    near      by l2, or by what else the metric compares rows by: they keep every row reachable
    second    by another measure, `kind`, which leads to what links by l2 lead past:
              inner product               under ip, where rows are of different lengths
              cosine of centred rows      under l2, where a dense core lies in a sparse cloud

From outside the core thousands of its rows are about equally near, and the question becomes one of direction, for which
links by l2 give no way (measured at equal distances computed, 20,000 x 96, half of the rows .0001 times as long: recall
.91 with links by l2 alone, .99 with both). Most data need no second links.
"""

from __future__ import annotations

from typing import NamedTuple

from vecdb.index.common import sq8_training
from vecdb.index.common.quantizer import ROTATED, ScalarQuantizer
from vecdb.index.common.sampling import DENSITY_SAMPLE, has_dense_core, sample
from vecdb.kernels.codes.float_codes import ANGLES, PRODUCTS
from vecdb.kernels.primitives.distance import IP, L2
from vecdb.storage.disk.row_file import RowArrays


class LinkPlaces(NamedTuple):
    """kind : PRODUCTS or ANGLES, of the second links."""

    near: int
    second: int
    kind: int

    @property
    def total(self) -> int:
        return self.near + self.second

    def with_codes(self, code_format: str) -> LinkPlaces:
        """As codes of this format allow: those that know no angles leave all places to links by l2."""
        return self if self.kind != ANGLES or code_format in ROTATED else LinkPlaces(self.total, 0, self.kind)


def of_one_kind(m: int) -> LinkPlaces:
    return LinkPlaces(2 * m, 0, int(PRODUCTS))


def with_products(m: int) -> LinkPlaces:
    return LinkPlaces(m, 2 * m, int(PRODUCTS))


def with_angles(m: int) -> LinkPlaces:
    return LinkPlaces(m, m, int(ANGLES))


def are_by_angle(arrays: RowArrays, metric: int, row_count: int) -> bool:
    """Whether rows [0, row_count) should have links by angle, for which codes have to be rotated. 8-bit data stay their
    own codes.
    """
    if metric != L2 or arrays.vectors.dtype.kind != "f":
        return False
    return has_dense_core(sample(arrays, row_count, DENSITY_SAMPLE))


def places_for(
    arrays: RowArrays, metric: int, row_count: int, quantiser: ScalarQuantizer, m: int, *, by_angle: bool
) -> LinkPlaces:
    """For a graph that begins with rows [0, row_count). by_angle : what `are_by_angle` says of them."""
    # among rows of one length what is near by l2 is near by inner product
    if metric == IP and sq8_training.needs_bias(arrays, IP, row_count):
        return with_products(m)
    if by_angle and quantiser.code_format in ROTATED:
        return with_angles(m)
    return of_one_kind(m)
