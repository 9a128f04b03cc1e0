"""Names, configurations and the arguments of a search: each is normalised or refused by name."""

from __future__ import annotations

import enum
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tests.support.gate_values import name_of
from vecdb import limits, validate
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.schema import CollectionConfig, Flat, Hnsw, SearchParams

# -- names and configuration -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "docs 2", "Größe", "x" * 128, "..a"])
def test_printable_collection_names_pass_unchanged(name: str) -> None:
    assert validate.collection_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "..", ".", "../x", "a\\b", "a\x00b", "a\nb", " a", "a ", "é" * 65, "\ud800", None, 3, b"a"]
)
def test_other_collection_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="collection name"):
        validate.collection_name(name)


def test_a_configuration_is_normalised() -> None:
    got = validate.collection_config("docs", np.int32(8), "cosine", Hnsw(m=np.int64(8)), np.float16)  # type: ignore[arg-type]
    assert got == CollectionConfig("docs", 8, "cosine", "float16", Hnsw(m=8))
    assert type(got.dim) is int and isinstance(got.index, Hnsw) and type(got.index.m) is int


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 0},
        {"dim": -1},
        {"dim": limits.dim_max + 1},
        {"dim": 3.0},
        {"dim": True},
        {"dim": "3"},
        {"metric": "euclid"},
        {"metric": None},
        {"dtype": "float64"},
        {"dtype": None},
        {"dtype": np.int16},
        {"index": "hnsw"},
        {"index": Hnsw},
        {"index": Hnsw(m=1)},
        {"index": Hnsw(m=limits.m_max + 1)},
        {"index": Hnsw(ef_construction=0)},
        {"index": Hnsw(ef=limits.ef_max + 1)},
        {"index": Hnsw(ef=True)},
        {"index": Hnsw(quantization="pq")},  # type: ignore[arg-type]
    ],
    ids=name_of,
)
def test_a_configuration_out_of_bounds_is_refused(change: dict[str, Any]) -> None:
    good: dict[str, Any] = {"name": "docs", "dim": 3, "metric": "l2", "index": None, "dtype": "float32"}
    assert validate.collection_config(**good)
    with pytest.raises(InvalidArgument):
        validate.collection_config(**(good | change))


def test_every_index_choice_within_bounds_passes() -> None:
    for index in (None, Flat(), Hnsw(), Hnsw(m=2, ef_construction=1, ef=1, quantization=None)):
        assert validate.index_config(index, "float32") == index


def test_an_owner_is_bytes_and_none_is_the_empty_one() -> None:
    assert validate.owner(None) == validate.owner("") == b""
    assert validate.owner("ä") == "ä".encode()
    assert len(validate.owner("x" * 128)) == 128
    for bad in ("x" * 129, "\udfff", b"a", 0, False):
        with pytest.raises(InvalidArgument, match="owner"):
            validate.owner(bad)


# -- a search's other arguments ----------------------------------------------------------------


def test_limits_in_range_pass_as_ints() -> None:
    for value in (1, 10, np.int32(7), limits.limit_max):
        got = validate.search_limit(value, 1)
        assert got == value and type(got) is int


@pytest.mark.parametrize("value", [0, -1, limits.limit_max + 1, 10**30, True, 1.0, "1", None, np.float64(1)])
def test_other_limits_are_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="limit"):
        validate.search_limit(value, 1)


def test_the_size_of_an_answer_is_bounded() -> None:
    nq = limits.search_cells_max // limits.limit_max
    assert validate.search_limit(limits.limit_max, nq) == limits.limit_max
    with pytest.raises(LimitExceeded, match="several calls"):
        validate.search_limit(limits.limit_max, nq + 1)


def test_a_flag_is_true_or_false_and_nothing_that_counts_as_either() -> None:
    for value in (True, False, np.True_, np.False_):
        assert validate.flag(value, "explain") is bool(value)
    for other in ("no", "", 0, 1, None, [], 1.0, np.int64(1), np.array(True)):
        with pytest.raises(InvalidArgument, match="explain must be True or False, got "):
            validate.flag(other, "explain")


def test_search_parameters_are_normalised() -> None:
    assert validate.search_params(None, 10) == SearchParams()
    assert validate.search_params(SearchParams(ef=np.int64(5)), 10) == SearchParams(ef=10)  # type: ignore[arg-type]
    assert validate.search_params(SearchParams(ef=50, threads=2, exact=np.True_), 10) == SearchParams(  # type: ignore[arg-type]
        ef=50, threads=2, exact=True
    )
    assert validate.search_params(SearchParams(recall=1), 10).recall == 1.0


@pytest.mark.parametrize(
    "params",
    [
        SearchParams(ef=0),
        SearchParams(ef=limits.ef_max + 1),
        SearchParams(ef=1.5),  # type: ignore[arg-type]
        SearchParams(ef=True),
        SearchParams(nprobe=0),
        SearchParams(recall=0),
        SearchParams(recall=1.01),
        SearchParams(recall=float("nan")),
        SearchParams(recall=True),
        SearchParams(recall="high"),  # type: ignore[arg-type]
        SearchParams(recall=0.9, ef=10),
        SearchParams(recall=0.9, nprobe=10),
        SearchParams(exact=1),  # type: ignore[arg-type]
        SearchParams(threads=0),
        SearchParams(threads=limits.threads_max + 1),
        SearchParams(threads=None),  # type: ignore[arg-type]
        {"beam": 10},
        {"ef": 0},
        10,
    ],
    ids=name_of,
)
def test_search_parameters_out_of_bounds_are_refused(params: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"[pP]arams"):
        validate.search_params(params, 10)


def test_thread_counts() -> None:
    assert validate.threads(3) == 3 and 1 <= validate.threads(None) <= limits.threads_max
    for bad in (0, -1, limits.threads_max + 1, 2.0, True, "2"):
        with pytest.raises(InvalidArgument, match="threads"):
            validate.threads(bad)


def test_field_selections() -> None:
    assert validate.field_selection(None) is None and validate.field_selection(True) is None
    assert validate.field_selection([]) == validate.field_selection(False) == ()
    assert validate.field_selection("lang") == ("lang",)
    assert validate.field_selection(["b", "a", "b"]) == ("b", "a")
    for bad in (1, [1], {"a": 1}, b"a"):
        with pytest.raises(InvalidArgument, match="fields"):
            validate.field_selection(bad)


class Shade(str, enum.Enum):  # noqa: UP042 - StrEnum is its text already
    RED = "red"


def test_an_enum_of_texts_is_its_text() -> None:
    [data] = validate.fields([{Shade.RED: Shade.RED, "in": [{Shade.RED: Shade.RED}]}], 1) or [b""]
    assert validate.decode_fields(data) == {"red": "red", "in": [{"red": "red"}]}
    assert validate.field_selection([Shade.RED]) == ("red",)
    assert validate.collection_name(Shade.RED) == "red"


@pytest.mark.parametrize("sign", [1, -1])
def test_an_int_of_any_length_is_refused_by_name(sign: int) -> None:
    value = sign * 10**5_000  # which Python refuses to write
    with pytest.raises(InvalidArgument, match=r"limit .* an int of 16,610 bits"):
        validate.search_limit(value, 1)
    with pytest.raises(InvalidArgument, match="an int of 16,610 bits"):
        validate.fields([{"x": value}], 1)


def test_the_gate_does_not_import_numba() -> None:
    code = "import sys; import vecdb.validate, vecdb.api.hits; sys.exit('numba' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=False, env={"PYTHONPATH": ":".join(p for p in sys.path if p)}
        ).returncode
        == 0
    )
