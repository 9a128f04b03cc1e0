"""Goal: columns answer every filter as the records themselves would, however they came about, and never change.

Oracle: `holds`, the second evaluation of filters, over lists of records. Blocks are made small, and dictionaries give
way to hashes early, so that every way is gone.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from tests.support.filters.column_views import Records, history, rows_that_match, small_blocks
from tests.support.filters.filter_trees import holds, random_tree
from vecdb import limits
from vecdb.columns.column_set import ColumnView
from vecdb.columns.evaluation import Evaluation, rows_of_bits
from vecdb.filters.tree import And, Compare, In


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("paths_max", [1_024, 4])
def test_filters_are_answered_as_by_the_records(monkeypatch: pytest.MonkeyPatch, seed: int, paths_max: int) -> None:
    small_blocks(monkeypatch)
    monkeypatch.setattr(limits, "columns_max", paths_max)
    rng = random.Random(1_000 * seed + paths_max)
    made = history(rng, 12)
    for view, records in rng.sample(made, 5):  # earlier views, too: nobody changed them
        assert view.row_count == len(records)
        for _ in range(40):
            node = random_tree(rng)
            expected = [row for row, record in enumerate(records) if holds(node, record)]
            assert rows_that_match(view, node, records) == expected, str(node)


def test_comparisons_of_one_field_are_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    small_blocks(monkeypatch)
    rng = random.Random(3)
    values = [1, 2, 2**62, 2.5, -0.5, 1e300, float("nan"), True, "2", None, [2], "b", 2**53 + 1, float(2**53)]
    records: Records = [{"mixed": rng.choice(values), "plain": rng.random()} for _ in range(300)]
    view = ColumnView().extended(records, len(records))
    for _ in range(200):
        field = rng.choice(["mixed", "plain"])
        bounds = [one for one in values if one is not None and not isinstance(one, list) and one == one]
        if field == "plain":
            bounds = [0.25, 0.5, records[7]["plain"], 1]
        terms = [Compare(field, rng.choice(["<", "<=", ">", ">=", "=="]), rng.choice(bounds)) for _ in range(3)]
        node = And((*terms, Compare("plain", ">", 0.1)))
        expected = [row for row, record in enumerate(records) if holds(node, record)]
        assert rows_that_match(view, node, records) == expected, str(node)


def test_texts_that_rarely_repeat_are_hashed_and_looked_up_in_the_records() -> None:
    records: Records = [{"url": f"https://example.org/{row:07d}", "lang": "en"} for row in range(70_000)]
    view = ColumnView()
    for start in range(0, len(records), 5_000):
        view = view.extended(records[start : start + 5_000], start + 5_000)
    url, lang = view.paths["url"].columns["str"], view.paths["lang"].columns["str"]
    assert url.dictionary is not None and url.dictionary.hashed
    assert lang.dictionary is not None and not lang.dictionary.hashed
    assert url.nbytes < 6 * len(records)
    evaluation = Evaluation(view, lambda rows: [records[row] for row in rows.tolist()])
    found = rows_of_bits(evaluation.bits(In("url", ("https://example.org/0000007", "https://example.org/no"))))
    assert found.tolist() == [7] and evaluation.by_records < 10, "the hash leaves few records to look at"


@pytest.mark.parametrize(
    ("values", "most"),
    [
        ([row % 200 for row in range(131_072)], 1.1),
        ([1_700_000_000 + row for row in range(131_072)], 4.1),
        ([float(row) for row in range(131_072)], 8.1),
    ],
)
def test_codes_take_as_few_bytes_as_hold_them(values: list[Any], most: float) -> None:
    view = ColumnView().extended([{"x": value} for value in values], len(values))
    assert view.nbytes <= most * len(values)
    assert rows_that_match(view, Compare("x", "==", values[77]), []) == [
        row for row, value in enumerate(values) if value == values[77]
    ]


def test_integers_and_floats_compare_as_exact_numbers_at_the_ends_of_their_types() -> None:
    numbers = [-(2**63), -(2**63) + 1, -1, 0, 2**53, 2**53 + 1, 2**63 - 1, -0.0, 0.5, 2.0**53, 1e308, float("inf"),
               float("-inf"), float("nan"), 5e-324]  # fmt: skip
    records: Records = [{"x": number} for number in numbers]
    view = ColumnView().extended(records, len(records))
    for wanted in [*(one for one in numbers if one == one), 2**63, -(2**63) - 1, 2**70, 0.25, 2**53 + 2, -1e300]:
        for op in ("==", "<", "<=", ">", ">="):
            node = Compare("x", op, wanted)  # type: ignore[arg-type]
            expected = [row for row, record in enumerate(records) if holds(node, record)]
            assert rows_that_match(view, node, records) == expected, str(node)


def test_a_path_that_had_no_column_is_given_none_when_more_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealed file may be older than the bound."""
    monkeypatch.setattr(limits, "columns_max", 1)
    records: Records = [{"a": 1}, {"a": 1, "b": 2}]
    view = ColumnView().extended(records[:1], 1).extended(records[1:], 2)
    monkeypatch.setattr(limits, "columns_max", 10)
    records += [{"a": 1, "b": 2}, {"c": 3}]
    view = view.extended(records[2:], 4)
    records[0] = {"a": 1, "c": 3}
    view = view.changed(np.array([0]), records[:1], 5)
    assert rows_that_match(view, Compare("b", "==", 2), records) == [1, 2]
    assert rows_that_match(view, Compare("c", "==", 3), records) == [0, 3]
