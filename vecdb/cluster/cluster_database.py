"""ClusterDatabase: the backend of a `Database` whose records are spread over shards, and how it is opened.

Every shard has every collection. Which there are, and what they are called, the first shard says: it is asked first,
and the others follow. A call that fails in between is made again: what the others have done already they pass over.

Threads: any.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from vecdb import limits, validate
from vecdb.api.backend import Progress
from vecdb.client.remote_database import RemoteDatabase
from vecdb.cluster import merging
from vecdb.cluster.asking.legs import FanOut
from vecdb.cluster.asking.long_work import SharedProgress, run_all
from vecdb.cluster.asking.members import Members
from vecdb.cluster.asking.servers import Access
from vecdb.cluster.asking.shards import Shards
from vecdb.cluster.cluster_collection import ClusterCollection
from vecdb.cluster.placement import bucket_url
from vecdb.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable, VecdbError
from vecdb.replication.bucket import open_bucket
from vecdb.schema import CollectionConfig
from vecdb.v1 import admin_pb2

MakeCollection = Callable[[ClusterCollection, CollectionConfig], Any]
_PATIENCE_S = 2.0  # of a request to the store that fails


def connect_cluster(
    url: str,
    token: Any,
    tls: Any,
    insecure: bool,
    timeout: Any,
    allow_partial: Any,
    make_collection: MakeCollection,
) -> ClusterDatabase:
    """The database of a cluster of which a server of each shard answers. make_collection : what users hold.

    Raises NotFound where there is no cluster, Unavailable where a shard does not answer, PermissionDenied.
    """
    timeout_s = None if timeout is None else validate.seconds(timeout)
    partial = validate.flag(allow_partial, "allow_partial")
    bucket = open_bucket(bucket_url(url), patience_s=_PATIENCE_S)
    members = Members(url, bucket, Access(token, tls, insecure))
    database = ClusterDatabase(Shards(members, timeout_s), make_collection, partial=partial)
    try:
        database.greet()
    except BaseException:
        database.close()
        raise
    return database


class ClusterDatabase:
    """make_collection(backend, config) : the object that users hold.   partial : as of ClusterCollection."""

    def __init__(self, shards: Shards, make_collection: MakeCollection, *, partial: bool) -> None:
        self._shards = shards
        self._make_collection = make_collection
        self._partial = partial

    @property
    def path(self) -> str:
        return self._shards.name

    @property
    def read_only(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return self._shards.closed

    def _every(self) -> Any:
        return RemoteDatabase(self._shards, _config_of)  # type: ignore[arg-type]

    def _at(self, *shards: int) -> Any:
        return RemoteDatabase(self._shards.only(*shards), _config_of)  # type: ignore[arg-type]

    def greet(self) -> None:
        """Ask a server of each shard whose the token is. Shards may be missing where searches may do without them."""
        legs = self._shards.call("GetServerInfo", admin_pb2.GetServerInfoRequest(), _tenant_of).gather()
        errors = [leg.error for leg in legs if leg.error is not None]
        if errors and (not self._partial or len(errors) == len(legs)):
            FanOut(legs, later=True).values()
        tenants = {leg.value for leg in legs if leg.error is None}
        if len(tenants) > 1:
            raise PermissionDenied(
                f"servers of {self.path} know this token as one of several tenants: give all of them the same tokens"
            )
        [self._shards.members.tenant] = tenants

    # -- collections ---------------------------------------------------------------------------------

    def create_collection(self, config: CollectionConfig, exist_ok: bool) -> Any:
        first, *others = self._shards.numbers
        self._at(first).create_collection(config, exist_ok).value()
        if others:
            self._at(*others).create_collection(config, True).values()
        return self.collection(config.name)

    def collection(self, name: str) -> Any:
        def configs() -> list[CollectionConfig]:
            legs = self._every().collection(name).gather()
            if self._partial and any(leg.error is None for leg in legs):
                legs = [leg for leg in legs if not isinstance(leg.error, Unavailable)]
            return list(FanOut(legs, later=True).values().values())

        found = self._shards.again(configs)
        config = replace(merging.merge_config(name, found), name=name)
        return self._make_collection(ClusterCollection(self._shards, config, partial=self._partial), config)

    def collections(self, tenant: bytes | None = None) -> list[str]:
        if tenant is None:
            found: list[str] = self._first("collections")
            return found
        return [name for name in self._first("collections") if self._has_tenant(name, tenant.decode())]

    def _has_tenant(self, collection: str, tenant: str) -> bool:
        with suppress(NotFound):
            self.collection(collection).stats(tenant=tenant)
            return True
        return False

    def _first(self, method: str, *arguments: Any) -> Any:
        """What the first shard answers."""
        return self._shards.again(lambda: getattr(self._at(self._shards.numbers[0]), method)(*arguments).value())

    def _change(self, method: str, *arguments: Any) -> None:
        """The first shard decides whether a change can be made; the others follow, and may have made it before."""
        self._first(method, *arguments)
        _, *others = self._shards.numbers
        if others:
            errors = [leg.error for leg in getattr(self._at(*others), method)(*arguments).gather()]
            for error in errors:
                if error is not None and not isinstance(error, NotFound):
                    raise error

    def drop_collection(self, name: str) -> None:
        first, *others = self._shards.numbers
        if name in self._first("aliases"):
            self._first("drop_collection", name)  # which is refused
        if name not in self._first("collections"):
            self._first("drop_collection", name)
        for leg in self._at(*others).drop_collection(name).gather() if others else ():
            if leg.error is not None and not isinstance(leg.error, NotFound):
                raise leg.error
        self._at(first).drop_collection(name).value()  # the last, so that it can be dropped again where others failed

    def rename_collection(self, old: str, new: str) -> None:
        self._change("rename_collection", old, new)

    def set_alias(self, alias: str, collection: str) -> None:
        self._change("set_alias", alias, collection)

    def drop_alias(self, alias: str) -> None:
        self._change("drop_alias", alias)

    def aliases(self) -> dict[str, str]:
        found: dict[str, str] = self._first("aliases")
        return found

    # -- care ----------------------------------------------------------------------------------------

    def stats(self, disk: bool) -> dict[str, Any]:
        parts = self._shards.again(lambda: self._every().stats(disk).values())
        placement = self._shards.members.current()
        return merging.merge_stats(parts) | {"path": self.path, "placement_epoch": placement.epoch}

    def sequence(self) -> dict[int, int]:
        """The newest commit of each shard, as its writer has it."""
        return self._shards.again(self._sequence)

    def _sequence(self) -> dict[int, int]:
        members, found = self._shards.members, {}
        members.current()
        calls = {}
        for shard in self._shards.numbers:
            server = members.writer(shard)
            if server is not None:
                calls[shard] = server.start("GetServerInfo", admin_pb2.GetServerInfoRequest(), limits.cluster_revoke_s)
        for shard, call in calls.items():
            with suppress(Exception):  # then any server of the shard says
                found[shard] = int(call.result().sequence)
        left = [shard for shard in self._shards.numbers if shard not in found]
        return dict(sorted((found | (self._at(*left).sequence().values() if left else {})).items()))

    def wait_for(self, sequence: Any, timeout_s: float) -> None:
        wanted = _numbers_of(sequence)
        ends_at = time.monotonic() + timeout_s
        members, calls = self._shards.members, []
        placement = members.current()
        unknown = wanted.keys() - placement.shards.keys()
        if unknown:
            raise InvalidArgument(f"sequence has commits of shards {sorted(unknown)}, which this cluster does not have")
        for shard, number in wanted.items():
            servers = [*members.copies(shard), *([writer] if (writer := members.writer(shard)) is not None else [])]
            request = admin_pb2.GetServerInfoRequest(min_sequence=number)
            calls.append((shard, [(one, one.start("GetServerInfo", request, timeout_s)) for one in servers]))
        for shard, asked in calls:
            _wait_for_all(shard, asked, max(0.0, ends_at - time.monotonic()) + 1.0)

    def vacuum(self, progress: Progress) -> None:
        shared = SharedProgress(progress)
        run_all([self._at(shard).vacuum(shared.of(shard)) for shard in self._shards.numbers])

    def check(self) -> list[str]:
        shards = self._shards.numbers
        found = run_all([self._at(shard).check() for shard in shards])
        return [f"shard {shard}: {one}" for shard, some in zip(shards, found, strict=True) for one in some]

    def backup(self, path: str, keep: int | None, progress: Progress) -> None:
        """Each shard's server makes a backup of its own, named after the shard, in its folder for backups."""
        shared = SharedProgress(progress)
        run_all(
            [self._at(shard).backup(f"{path}-shard-{shard}", keep, shared.of(shard)) for shard in self._shards.numbers]
        )

    def close(self) -> None:
        self._shards.members.close()


def _config_of(_backend: Any, config: CollectionConfig) -> CollectionConfig:
    """What a shard answers in the place of a collection."""
    return config


def _tenant_of(answer: Any) -> bytes:
    return str(answer.tenant).encode()


def _numbers_of(sequence: Any) -> dict[int, int]:
    if not isinstance(sequence, Mapping):
        raise InvalidArgument(
            "sequence of a cluster is a dict with the number of a commit for each shard, as db.sequence() and "
            f"hits.sequence give it, got {validate.short_repr(sequence)}"
        )
    return {
        validate.integer(shard, "the number of a shard", 0, 2**31): validate.integer(one, "sequence", 0, 2**63 - 1)
        for shard, one in sequence.items()
    }


def _wait_for_all(shard: int, asked: list[Any], timeout_s: float) -> None:
    """Raises Unavailable where a server of the shard answers and does not get the commit in time, or none answers."""
    reached = False
    late: VecdbError | None = None
    for server, call in asked:
        try:
            server.note_answer(call.result(timeout=timeout_s))
            reached = True
        except Exception as failed:
            error = server.error(failed, "GetServerInfo", timeout_s) if hasattr(failed, "code") else Unavailable("late")
            if "cannot be reached" not in str(error):  # one that cannot be reached answers no reads either
                late = error
    if isinstance(late, PermissionDenied):
        raise late
    if late is not None or not reached:
        raise Unavailable(f"shard {shard} did not get the commit in time; try again") from late
