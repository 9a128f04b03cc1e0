"""Pickles are read for their plain values, and nothing that they say is run. Python's own pickle writes them."""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb_datasets.formats.foreign.plain_pickle import ClassName, PlainObject, PlainPickle

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)
hashed = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner),
    max_leaves=6,
)


def read(raw: bytes, allowed: tuple[str, ...] = ()) -> Any:
    return PlainPickle(raw, lambda found: found.name in allowed).value()


@settings(max_examples=150, deadline=None)
@given(value=plain, protocol=st.integers(2, 5))
def test_plain_values_are_read_as_they_were_written(value: Any, protocol: int) -> None:
    raw = pickle.dumps(value, protocol)
    try:
        found = read(raw)
    except ValueError as error:
        assert "uses twice" in str(error) or protocol == 2, "bytes are a call in protocol 2"
    else:
        assert found == value


@settings(max_examples=150, deadline=None)
@given(value=plain | st.dictionaries(hashed, plain) | st.sets(hashed), data=st.data())
def test_damaged_pickles_are_refused_or_read(value: Any, data: st.DataObject) -> None:
    raw = bytearray(pickle.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ValueError):
        read(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@settings(max_examples=150, deadline=None)
@given(value=st.dictionaries(hashed, st.none(), min_size=1) | st.sets(hashed, min_size=1))
def test_keys_and_items_of_sets_are_texts_or_refused(value: Any) -> None:
    raw = pickle.dumps(value)
    if all(isinstance(one, str) for one in value):
        assert read(raw) == value
    else:
        with pytest.raises(ValueError, match=r"that is no text|uses twice"):
            read(raw)


@pytest.mark.parametrize("begin, end", [(b"}", b"K\x01s."), (b"}(", b"K\x01u."), (b"\x8f(", b"\x90.")])
def test_a_key_that_is_tuples_within_tuples_is_refused_and_not_hashed(begin: bytes, end: bytes) -> None:
    with pytest.raises(ValueError, match="no text, but tuple"):
        read(b"\x80\x04" + begin + b")" + b"\x85" * 200_000 + end)


class Runs:
    """What an attacker pickles."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_what_a_pickle_calls_is_not_called(tmp_path: Path) -> None:
    raw = pickle.dumps({"id": 1, "vector": Runs(tmp_path / "made")})
    with pytest.raises(ValueError, match=r"mkdir, which is no plain value"):
        read(raw)
    with pytest.raises(ValueError, match="is not followed"):
        read(raw, ("mkdir",))
    assert not (tmp_path / "made").exists()
    with pytest.raises(ValueError, match=r"datetime\.date"):
        read(pickle.dumps(datetime.date(2020, 1, 1)))


class Point:
    def __init__(self) -> None:
        self.id, self.vector = 7, [1.0, 2.0]


def test_an_object_of_an_allowed_class_is_its_attributes() -> None:
    assert read(pickle.dumps(Point()), ("Point",)) == PlainObject("Point", {"id": 7, "vector": [1.0, 2.0]})
    seen: list[ClassName] = []
    PlainPickle(pickle.dumps(Point()), lambda found: seen.append(found) or True).value()
    assert [(one.module, one.name) for one in seen] == [(Point.__module__, "Point")]


def test_values_that_would_grow_without_end_are_refused() -> None:
    bomb: list[Any] = ["x"]
    for _ in range(60):
        bomb = [bomb, bomb]
    itself: list[Any] = []
    itself.append(itself)
    for one in (bomb, itself):
        with pytest.raises(ValueError, match="uses twice"):
            read(pickle.dumps(one))


@pytest.mark.parametrize("text", [b"X", b"B"])
def test_texts_and_bytes_are_used_again_up_to_a_bound(text: bytes) -> None:
    def used(times: int) -> bytes:
        size = 1 << 20
        return b"\x80\x04](" + text + size.to_bytes(4, "little") + b"a" * size + b"q\x00" + b"h\x00" * times + b"e."

    assert len(read(used(16))) == 17
    with pytest.raises(ValueError, match="more than 16,777,216 bytes"):
        read(used(17))
