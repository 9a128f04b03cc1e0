"""A shard opened for reading where it lies: in the directory of one of its servers on this machine, else in one that is
made from its log in the bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import vecdb
from vecdb.api.database import Database
from vecdb.cluster.placement import Placement, cluster_bucket
from vecdb.errors import NotFound, Unavailable, VecdbError
from vecdb.replication.bucket import open_bucket
from vecdb.replication.log import epochs
from vecdb.replication.objects import Bucket
from vecdb.shards import notes
from vecdb.shards.servers.member import log_url
from vecdb.storage.disk import filesystem

_BEHIND_S = 10.0  # for the directory of a copy to have what the log had


@contextmanager
def opened_shard(url: str, shard: int, work: Path) -> Iterator[Database]:
    """The database of a shard, with at least what its log holds now. work : a folder for a copy, where there is none.

    Raises NotFound where the cluster has no such shard, or the shard no log yet; Unavailable.
    """
    bucket = cluster_bucket(url)
    placement = Placement.read(bucket)
    log = log_url(url, placement, shard)
    end = epochs.find_end(open_bucket(log))
    if end is None:
        raise NotFound(f"shard {shard} of {url} has no log yet: nothing was written")
    for path in directories_here(bucket, placement, shard):
        with suppress(VecdbError):
            db = vecdb.open(path, read_only=True)
            try:
                db.wait_for(end.position.sequence, timeout=_BEHIND_S)
            except Unavailable:
                db.close()
                continue
            with db:
                yield db
                return
    path = work / f"copy-{log.rpartition('/')[2]}"
    filesystem.make_dir(work)
    with vecdb.open(path, follow=log, staleness_s=None, maintenance=False) as db:
        db.wait_for(end.position.sequence, timeout=_BEHIND_S)
        yield db


def directories_here(bucket: Bucket, placement: Placement, shard: int) -> list[Path]:
    """Directories of the shard's servers on this machine."""
    addresses = placement.shards[shard].servers
    here = [one for one in notes.servers(bucket, shard) if one.address in addresses and one.host == notes.host_name()]
    return [Path(one.path) for one in here if filesystem.exists(Path(one.path))]
