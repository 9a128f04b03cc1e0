"""What a server of a cluster has to be, by what it sees: one writer a shard, and none while the shard is held."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vecdb.cluster.placement import Placement, Shard
from vecdb.shards.servers.roles import Role, Seen, claimed, moved, published, role_of

ME, OTHER = "grpc://me:1", "grpc://other:1"
SEEN = Seen(address=ME, directory="nothing", held=False, log_there=True, alone_s=0.0, patience_s=5.0)


def placement(writer: str | None, *copies: str) -> Placement:
    return Placement.even(1).with_shard(0, Shard("shard-0", writer, copies))


@pytest.mark.parametrize(
    ("writer", "changes", "role"),
    [
        (ME, {}, Role.WRITE),
        (ME, {"directory": "own"}, Role.WRITE),
        (ME, {"directory": "copy", "held": True}, Role.WRITE),
        (OTHER, {}, Role.FOLLOW),
        (OTHER, {"directory": "own"}, Role.FOLLOW),
        (OTHER, {"log_there": False}, Role.WAIT),
        (OTHER, {"alone_s": 4.9}, Role.FOLLOW),
        (OTHER, {"alone_s": 5.0}, Role.CLAIM),
        (None, {"log_there": False}, Role.CLAIM),
        (None, {"directory": "own"}, Role.CLAIM),
        (None, {}, Role.FOLLOW),
        (None, {"alone_s": 6.0}, Role.CLAIM),
        (None, {"held": True, "directory": "own"}, Role.READ),
        (None, {"held": True, "directory": "copy", "alone_s": 99.0}, Role.FOLLOW),
        (None, {"held": True, "alone_s": 99.0}, Role.FOLLOW),
    ],
)
def test_a_role(writer: str | None, changes: dict[str, Any], role: Role) -> None:
    assert role_of(placement(writer), 0, replace(SEEN, **changes)) is role


def test_a_server_of_a_shard_that_is_no_more_leaves() -> None:
    assert role_of(placement(ME), 7, SEEN) is Role.LEAVE
    assert published(placement(ME), 7, ME, copy=True) == placement(ME)
    assert claimed(placement(ME), 7, ME, None) == placement(ME)
    assert moved(placement(ME), 7, ME, OTHER) == placement(ME)


def test_of_two_who_claim_the_first_has_it() -> None:
    before = placement(None, ME, OTHER)
    first = claimed(before, 0, ME, None)
    assert first.shards[0] == Shard("shard-0", ME, (OTHER,))
    assert claimed(first, 0, OTHER, None) == first
    assert claimed(first, 0, OTHER, ME).shards[0] == Shard("shard-0", OTHER, ())


def test_a_copy_is_named_once_and_a_writer_is_no_copy() -> None:
    named = published(placement(OTHER), 0, ME, copy=True)
    assert named.shards[0].copies == (ME,)
    assert published(named, 0, ME, copy=True) == named
    assert published(named, 0, ME, copy=False).shards[0].copies == ()
    assert published(placement(ME, ME), 0, ME, copy=True).shards[0] == Shard("shard-0", ME, ())


def test_a_server_that_moved_is_named_where_it_is() -> None:
    assert moved(placement("grpc://old:1", OTHER), 0, "grpc://old:1", ME).shards[0] == Shard("shard-0", ME, (OTHER,))
    assert moved(placement(OTHER, "grpc://old:1"), 0, "grpc://old:1", ME).shards[0] == Shard("shard-0", OTHER, ())
