"""Goal: keys order as their rows, sequences and ids do; collections, generations and owners never mix."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb import validate
from vecdb.storage.kv import keys

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
quiet = settings(derandomize=True, max_examples=200)


@quiet
@given(U32, U32, U64, U64)
def test_numbered_keys_order_as_their_numbers(uid: int, generation: int, a: int, b: int) -> None:
    prefix = keys.prefix(uid, generation)
    assert (keys.row_key(prefix, a) < keys.row_key(prefix, b)) == (a < b)
    assert keys.number_of(keys.row_key(prefix, a)) == a
    assert keys.split_prefix(keys.row_key(prefix, a)) == (uid, generation)


def test_a_numbered_key_has_the_bytes_that_the_drawing_gives() -> None:
    assert keys.row_key(keys.prefix(1, 2), 3) == bytes.fromhex("00000001000000020000000000000003")
    assert keys.uid(258) == bytes.fromhex("00000102")


@quiet
@given(st.lists(U64, max_size=9))
def test_keys_of_many_numbers_are_those_of_each(numbers: list[int]) -> None:
    for head in (keys.prefix(1, 2), keys.tenant_numbers(3)):
        made = keys.row_keys(head, np.array(numbers, np.uint64))
        assert made == [keys.row_key(head, number) for number in numbers]


def test_the_keys_of_tenants_have_the_bytes_that_the_drawing_gives() -> None:
    assert keys.tenant_next(258) == bytes.fromhex("0000010200")
    assert keys.tenant_names(258) + "ö".encode() == bytes.fromhex("0000010201c3b6")
    assert keys.row_key(keys.tenant_numbers(258), 5) == bytes.fromhex("00000102020000000000000005")


def test_an_id_key_has_the_bytes_that_the_drawing_gives() -> None:
    head = keys.owner_prefix(keys.prefix(1, 2), "ö".encode())
    assert head == bytes.fromhex("000000010000000202c3b6")
    [key] = validate.ids([-1]).keys
    assert head + key == head + bytes.fromhex("7fffffffffffffff")
    assert keys.split_id(head + key) == ("ö".encode(), key)


@quiet
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=9, unique=True))
def test_int_ids_order_as_numbers(ids: list[int]) -> None:
    made = validate.ids(ids).keys
    assert [one for _, one in sorted(zip(made, ids, strict=True))] == sorted(ids)


@quiet
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), min_size=2, max_size=9, unique=True))
def test_string_ids_order_as_code_points(ids: list[str]) -> None:
    made = validate.ids(ids).keys
    assert [one for _, one in sorted(zip(made, ids, strict=True))] == sorted(ids)


@quiet
@given(
    st.tuples(st.binary(max_size=128), st.binary(min_size=1, max_size=9)),
    st.tuples(st.binary(max_size=128), st.binary(min_size=1, max_size=9)),
)
def test_keys_of_two_owners_never_meet(a: tuple[bytes, bytes], b: tuple[bytes, bytes]) -> None:
    prefix = keys.prefix(1, 1)
    first, second = (keys.owner_prefix(prefix, owner) + one for owner, one in (a, b))
    assert (first == second) == (a == b)
    assert keys.split_id(first) == a


@quiet
@given(U32, U32, U64)
def test_after_is_past_every_key_of_a_prefix_and_no_further(uid: int, generation: int, number: int) -> None:
    prefix = keys.prefix(uid, generation)
    following = keys.prefix_end(prefix)
    if following is None:
        assert prefix == b"\xff" * 8
        return
    assert keys.row_key(prefix, number) < following
    assert int.from_bytes(following, "big") == int.from_bytes(prefix, "big") + 1
