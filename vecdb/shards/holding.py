"""Which shards must have no writer, since they are being reshaped: one object of the cluster's bucket."""

from __future__ import annotations

import msgspec

from vecdb.replication.objects import Bucket
from vecdb.shards.notes import decoded_note

HELD = "held"


class Hold(msgspec.Struct, frozen=True):
    """shards : that nobody may write.   job : for which."""

    job: str
    shards: tuple[int, ...]


def is_held(bucket: Bucket, shard: int) -> bool:
    raw = bucket.get(HELD)
    return raw is not None and shard in decoded_note(raw, Hold, f"{bucket.url}: {HELD}").shards


def hold(bucket: Bucket, job: str, shards: tuple[int, ...]) -> None:
    bucket.put(HELD, msgspec.json.encode(Hold(job, shards)))


def let_go(bucket: Bucket) -> None:
    bucket.delete([HELD])
