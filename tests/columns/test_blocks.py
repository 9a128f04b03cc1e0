"""Goal: a block answers comparisons as its whole codes do, in whatever type or halves it keeps them. Oracle: NumPy."""

from __future__ import annotations

import math
import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from vecdb.columns import column_file
from vecdb.columns.blocks import CodeBlock, among, in_interval, packed, unpacked
from vecdb.columns.column import BLOCK_ROWS
from vecdb.columns.column_set import ColumnView
from vecdb.columns.encoding import ABSENT, codes_of, interval
from vecdb.index.common import sealed_file

ROWS = 400
RNG = np.random.default_rng(5)
FACTS = {"kind": "columns", "generation": 3, "collection": 7}
VALUES = {
    "random": RNG.random(ROWS),
    "any sign and size": RNG.normal(size=ROWS) * 10.0 ** RNG.integers(-300, 300, ROWS),
    "with NaN and infinities": np.where(
        RNG.random(ROWS) < 0.1, [math.nan, math.inf, -math.inf, 0.0] * 100, RNG.random(ROWS)
    ),
    "steps within one upper half": 1.0 + np.arange(ROWS) * 2.0**-52,
    "steps around an upper half": np.nextafter(1.5, 0) + (np.arange(ROWS) - 200) * 2.0**-52,
    "prices": RNG.integers(1, 10_000, ROWS) / 100,
}
LARGE_INTS = {
    "all of int64": RNG.integers(-(2**63) + 1, 2**63 - 1, ROWS),
    "small and one large": [*range(ROWS - 1), 2**62],
}


def wide_codes(kind: str, values: object, absent: float) -> np.ndarray:
    codes = codes_of(kind, list(values))  # type: ignore[call-overload]
    codes[RNG.random(len(codes)) < absent] = ABSENT
    return codes


def as_array(found: object, rows: int) -> np.ndarray:
    return np.full(rows, found) if isinstance(found, bool) else np.asarray(found)


@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize("name", [*VALUES, *LARGE_INTS])
def test_halves_answer_as_whole_codes_do(name: str, absent: float) -> None:
    kind = "float" if name in VALUES else "int"
    wide = wide_codes(kind, VALUES.get(name, LARGE_INTS.get(name)), absent)
    block = packed(wide)
    assert isinstance(block, CodeBlock)
    assert block.codes.dtype.itemsize <= 4
    assert np.array_equal(unpacked(block, ROWS), wide)
    some = np.sort(RNG.choice(ROWS, 50, replace=False))
    assert np.array_equal(block.at(some), wide[some])
    present = np.unique(wide[wide != ABSENT])
    bounds = [*RNG.choice(present, 12).tolist(), int(present[0]), int(present[-1])]
    bounds += [min(one + step, 2**64 - 1) for one in bounds for step in (-1, 1)]
    for low in bounds:
        for high in random.Random(low).sample(bounds, 8):
            expected = (wide >= np.uint64(low)) & (wide <= np.uint64(high)) & (wide != ABSENT)
            assert np.array_equal(as_array(in_interval(block, (low, high)), ROWS), expected), (low, high)
    for count in (1, 3, 30):
        wanted = np.unique(np.array(random.Random(count).sample(bounds, count), np.uint64))
        assert np.array_equal(as_array(among(block, wanted), ROWS), np.isin(wide, wanted) & (wide != ABSENT))


def test_halves_of_a_file_take_no_memory(tmp_path: Path) -> None:
    values = RNG.random(BLOCK_ROWS)
    view = ColumnView().extended([{"score": float(one)} for one in values], BLOCK_ROWS)
    assert view.nbytes == 8 * BLOCK_ROWS
    column_file.write(tmp_path / "columns", view, FACTS)
    again = column_file.read(tmp_path / "columns", FACTS)
    assert again.nbytes == 4 * BLOCK_ROWS
    column = again.paths["score"].columns["float"]
    [block] = column.blocks
    assert block is not None
    for bound in (0.25, float(values[77])):
        found = as_array(in_interval(block, interval("float", "<=", bound)), BLOCK_ROWS)
        assert np.array_equal(found, values <= bound)


def test_a_file_of_whole_codes_is_read(tmp_path: Path) -> None:
    wide = codes_of("float", VALUES["random"].tolist() * 200)[:BLOCK_ROWS]
    places = [
        column_file.Place(0, "<u8", BLOCK_ROWS),
        column_file.Place(8 * BLOCK_ROWS, "<u8", 0),
    ]
    base = int(wide.min()) - 1
    block = column_file.BlockLayout(places[0], base, base + 1, int(wide.max()), True)
    column = column_file.ColumnLayout("float", [block], places[1], None, BLOCK_ROWS, False, None)
    layout = column_file.ViewLayout(BLOCK_ROWS, 4, False, [column_file.PathLayout("score", [column], [])])
    sections = {
        "layout": np.frombuffer(msgspec.msgpack.encode(layout), np.uint8),
        "data": (wide - np.uint64(base)).view(np.uint8),
    }
    sealed_file.write(tmp_path / "columns", b"VDBCOLS\0", {"version": 1, **FACTS}, sections)
    view = column_file.read(tmp_path / "columns", FACTS)
    rows = np.arange(0, BLOCK_ROWS, 7)
    assert np.array_equal(view.paths["score"].columns["float"].codes_at(rows), wide[rows])
