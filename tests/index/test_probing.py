"""How many lists a query reads: so many on average as were asked for, more where more are about as near."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.index.probing import NEAREST, SAMPLES, Probing, most


def _nears(lists: int = 400) -> np.ndarray:
    rng = np.random.default_rng(3)
    growth = rng.uniform(0.2, 2.0, (SAMPLES, 1))  # how fast distances grow differs from row to row
    nears = 5.0 * np.arange(1, lists + 1) ** growth * rng.uniform(0.9, 1.1, (SAMPLES, lists))
    return rng.permuted(nears, axis=1).astype(np.float32)


@pytest.mark.parametrize("probes", [8, 20, 64, 150])
def test_the_average_is_what_was_asked_for(probes: int) -> None:
    nears = np.sort(_nears(), axis=1)
    ratio = Probing(_nears()).ratio(probes, 400)
    read = (nears <= ratio * nears[:, :NEAREST].mean(axis=1, keepdims=True)).sum(axis=1)
    read = np.minimum(read, most(probes, 400))
    assert abs(read.mean() - probes) <= 1
    assert read.min() < probes < read.max()


def test_nothing_is_left_out_where_no_average_is_known() -> None:
    probing = Probing(_nears(40))
    assert probing.ratio(NEAREST - 1, 400) == np.inf  # too few to speak of near ones
    assert probing.ratio(400, 400) == np.inf  # all of them were asked for
    assert probing.ratio(30, 400) == np.inf  # more than the sample looked at
    assert probing.ratio(12, 400) < np.inf
    assert most(3, 400) == 3 and most(400, 400) == 400 and most(500, 400) == 400 and most(300, 400) == 400


def test_rows_that_are_all_alike_are_no_trouble() -> None:
    assert Probing(np.zeros((4, 100), np.float32)).ratio(10, 100) >= 0.0
