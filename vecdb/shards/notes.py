"""What is noted in a cluster's bucket beside the placement, each a small JSON object.

    servers/<shard>.<name>   one server: where it runs, which directory it has, what it is now
    wanted                   {"run": name, "up": whether its servers are to run, "copies": of each shard}: by
                             `vecdb cluster up` and `down`

Nobody needs these to search or to write: they tell people and jobs what the placement does not say.
"""

from __future__ import annotations

import os
import time
from typing import TypeVar

import msgspec

from vecdb.errors import Corruption, Unavailable
from vecdb.replication.objects import Bucket, Conflict

SERVERS, WANTED = "servers", "wanted"
STARTING = "starts"  # the role of a server that does not answer yet
_TRIES_MAX = 20

T = TypeVar("T", bound=msgspec.Struct)


class ServerNote(msgspec.Struct, frozen=True):
    """address : grpc://...   host : the machine's name.   path : of its directory there.   role : of roles.Role, or
    STARTING.   time : of the note, in seconds since 1970.
    """

    shard: int
    address: str
    host: str
    path: str
    role: str
    pid: int
    time: float


class ServersWanted(msgspec.Struct, frozen=True):
    """copies : of each shard, beside its writer; None: an older vecdb has noted this."""

    run: str
    up: bool
    copies: int | None = None


def decoded_note(raw: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError as error:
        raise Corruption(f"{where} is damaged ({error}); remove it") from None


def host_name() -> str:
    return os.uname().nodename


def server_key(shard: int, name: str) -> str:
    return f"{SERVERS}/{shard}.{name}"


def note_server(bucket: Bucket, name: str, shard: int, address: str, path: str, role: str, pid: int) -> None:
    made = ServerNote(shard, address, host_name(), path, role, pid, time.time())
    bucket.put(server_key(shard, name), msgspec.json.encode(made))


def servers(bucket: Bucket, shard: int | None = None) -> list[ServerNote]:
    """All that are noted, or those of a shard, by shard; one that was killed with its machine is among them."""
    found = []
    for key, _ in list(bucket.list(SERVERS)):
        if shard is not None and not key.startswith(server_key(shard, "")):
            continue
        raw = bucket.get(key)
        if raw is not None:
            found.append(decoded_note(raw, ServerNote, f"{bucket.url}: {key}"))
    return sorted(found, key=lambda one: (one.shard, one.address))


def wanted(bucket: Bucket) -> ServersWanted | None:
    raw = bucket.get(WANTED)
    return None if raw is None else decoded_note(raw, ServersWanted, f"{bucket.url}: {WANTED}")


def want(bucket: Bucket, made: ServersWanted, known: ServersWanted | None) -> bool:
    """Put what is wanted in the place of what is known. Returns whether nobody was faster."""
    for _ in range(_TRIES_MAX):
        found = bucket.get_versioned(WANTED)
        there = None if found is None else decoded_note(found[0], ServersWanted, f"{bucket.url}: {WANTED}")
        if there == made:
            return True
        if there != known:
            return False
        try:
            bucket.replace(WANTED, msgspec.json.encode(made), None if found is None else found[1])
            return True
        except Conflict:
            continue
    raise Unavailable(f"{bucket.url}: others changed {WANTED!r} {_TRIES_MAX} times meanwhile; try again")
