"""Which of 4,096 slots a record is in. A slot is what a placement gives to a shard (placement.py).

    slot = hash of the owner mod 4,096   where the record has an owner: a search with `owner=` asks one shard
           hash of the id mod 4,096      else

    hash of an int    the 64-bit finaliser of splitmix64 (Steele, Lea, Flood, 2014) of its 64 bits
    hash of a text    BLAKE2b of 8 bytes, little-endian, of its UTF-8

These hashes are part of what is stored: another one would look for records where they are not. Collections put the same
id into the same slot, so aliases may lead from one collection to another.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from vecdb.validate import IdBatch
from vecdb.validate.common import gil_slices

SLOTS = 4_096
_SLICE_TEXTS = 512  # hashed per bytecode stretch

Slots = NDArray[np.int64]


def slots_of(ids: IdBatch, owner: bytes = b"") -> Slots:
    """int64[n], the slots of records with these ids. owner : whose they all are, UTF-8; b"" for nobody's."""
    if owner:
        return np.full(ids.n, slot_of_text(owner), np.int64)
    if ids.ints is not None:
        return slots_of_ints(ids.ints)
    made = np.empty(ids.n, np.int64)
    for start, stop in gil_slices(ids.n, _SLICE_TEXTS):
        made[start:stop] = [slot_of_text(key) for key in ids.keys[start:stop]]
    return made


def slots_of_ints(ids: NDArray[np.int64]) -> Slots:
    """int64[n], the slots of records with int ids and no owner. ids : int64[n]."""
    mixed = np.ascontiguousarray(ids, np.int64).view(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(SLOTS)).astype(np.int64)


def slot_of_text(text: bytes) -> int:
    """The slot of an owner, or of a record with a text as id and no owner. text : UTF-8."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") % SLOTS
