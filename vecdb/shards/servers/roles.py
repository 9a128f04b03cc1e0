"""What one server of a cluster has to be, by the placement and by what its directory holds.

    the placement names ...          the directory is       role
    this server as writer            any                    WRITE: of a copy, or of nothing, after taking the log over
    another as writer                any                    FOLLOW; one that was written itself is put aside before
    no writer, and the shard held    written itself         READ: it is complete, and nobody may write
                                     else                   FOLLOW
    no writer                        any                    CLAIM, at once or after a while: then the first line
    no such shard                    any                    LEAVE

A shard is held (holding.py) while it is reshaped: it has no writer then because it must not have one.
A writer that cannot be reached for `takeover_s` loses the shard to a copy: CLAIM. Whoever changes the placement first
has it; taking the log over refuses the one before from its next commit on, whether it lives or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from vecdb.cluster.placement import Placement

Held = Literal["nothing", "copy", "own"]  # what a directory holds


class Role(Enum):
    WRITE = "writer"
    FOLLOW = "copy"
    READ = "reader"
    WAIT = "waits"
    LEAVE = "leaves"
    CLAIM = "claims"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server knows when it decides.

    address : its own.   directory : what it holds.   held : the shard must have no writer.   log_there : whether there
    is a log.   alone_s : how long the writer could not be reached, or there was none.   patience_s : how long that may
    last.
    """

    address: str
    directory: Held
    held: bool
    log_there: bool
    alone_s: float
    patience_s: float


def role_of(placement: Placement, shard: int, seen: Seen) -> Role:
    if shard not in placement.shards:
        return Role.LEAVE
    writer = placement.shards[shard].writer
    if writer == seen.address:
        return Role.WRITE
    if writer is None and seen.held:
        return Role.READ if seen.directory == "own" else Role.FOLLOW
    if writer is None and (seen.directory == "own" or not seen.log_there):
        return Role.CLAIM
    if seen.alone_s >= seen.patience_s:
        return Role.CLAIM
    return Role.FOLLOW if seen.log_there else Role.WAIT


def claimed(placement: Placement, shard: int, address: str, before: str | None) -> Placement:
    """The placement in which this server writes the shard, if nobody was faster. before : who was to write it."""
    if shard not in placement.shards or placement.shards[shard].writer != before:
        return placement
    return placement.with_writer(shard, address)


def published(placement: Placement, shard: int, address: str, *, copy: bool) -> Placement:
    """The placement in which this server is among the copies of a shard, or is not."""
    if shard not in placement.shards:
        return placement
    known = placement.shards[shard]
    others = tuple(one for one in known.copies if one != address)
    if copy and known.writer != address:
        return placement if address in known.copies else placement.with_copies(shard, (*others, address))
    return placement.with_copies(shard, others)


def moved(placement: Placement, shard: int, old: str, new: str) -> Placement:
    """The placement in which a server has another address."""
    if shard not in placement.shards or old == new:
        return placement
    known = placement.shards[shard]
    placement = placement.with_copies(shard, tuple(one for one in known.copies if one != old))
    return placement.with_writer(shard, new) if known.writer == old else placement
