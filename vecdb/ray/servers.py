"""The servers of a cluster as Ray actors: each keeps one (shards/servers/member.py), Ray starts those again that die.

    Supervisor --as the placement has shards--> ServerActor, ServerActor, ...   --owns--> `vecdb serve`
                                                  each by the placement alone, without the supervisor

Where a machine is gone Ray starts its actors on another: an empty directory there becomes a copy from the bucket, and
the shard's writer is one of the copies by then. Queries never pass through Ray: the servers go on where its control
store fails, as long as Ray itself does, a minute where nothing brings it back; then its actors end, and the servers
with them. What must outlive that runs `vecdb cluster join` without Ray.

The supervisor of a laptop is the process of `vecdb cluster up`. On a Ray cluster it is an actor of its own.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from vecdb.cluster.placement import Placement, cluster_bucket
from vecdb.errors import AlreadyExists, InvalidArgument, NotFound, Unavailable, VecdbError
from vecdb.ray.session import NAMESPACE, load_ray
from vecdb.replication.objects import Bucket
from vecdb.shards import notes
from vecdb.shards.servers import directories
from vecdb.shards.servers.member import Member, MemberSettings

_TICK_S = 1.0
_GONE_S = 5.0
_STOP_S = 90.0  # for all servers to end


@dataclass(frozen=True, slots=True)
class UpSettings:
    """url : of the cluster.   shards : of a new one; None: as it has.   copies : beside each writer; None: as it had, 1
    of a new one.   folder : below which each machine keeps its servers' directories.   first : what servers have in
    common.   local : they are all on this machine.   cpus : that Ray sets aside for each server.
    """

    url: str
    shards: int | None
    copies: int | None
    folder: str
    first: MemberSettings
    local: bool = True
    cpus: float = 0.0


class ServerActor:
    """One server, in a process of Ray's."""

    def __init__(self, settings: MemberSettings, local: bool) -> None:
        os.environ.pop("OMP_NUM_THREADS", None)  # Ray sets it for tasks; the server is none
        with suppress(OSError):  # a Ray that others have started has set it back, and may not let it go
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        if not local:
            settings = replace(settings, listen=f"{load_ray().util.get_node_ip_address()}:0")
        self._member = Member(settings)
        self._thread = threading.Thread(target=self._member.run, name="vecdb-member", daemon=True)
        self._thread.start()

    def facts(self) -> dict[str, Any]:
        """What the server is; "left": its shard is no more."""
        return {**self._member.facts(), "left": self._member.left and not self._thread.is_alive()}

    def stop(self) -> None:
        """End the server, and return when it has ended."""
        self._member.stop()
        self._thread.join()


class Supervisor:
    """Has an actor for each server that the placement asks for. Threads: one at a time."""

    def __init__(self, settings: UpSettings) -> None:
        self.settings = settings
        self._ray = load_ray()
        self._actors: dict[tuple[int, int], Any] = {}
        self._groups: dict[int, Any] = {}
        self._class = self._ray.remote(ServerActor)

    @property
    def _bucket(self) -> Bucket:
        return cluster_bucket(self.settings.url)

    @property
    def _copies(self) -> int:
        assert self.settings.copies is not None, "as `prepare` has returned them"
        return self.settings.copies

    def step(self) -> None:
        """Begin what is missing, end what is left over. Raises what reading the placement does."""
        shards = Placement.read(self._bucket).shards
        for shard in shards:
            for number in range(1 + self._copies):
                if (shard, number) not in self._actors:
                    self._actors[shard, number] = self._begin(shard, number)
        for key in [key for key in self._actors if key[0] not in shards]:
            if self._facts(self._actors[key]).get("left", False):
                self._ray.kill(self._actors.pop(key))

    def facts(self) -> list[dict[str, Any]]:
        """Of each server; of one that does not say, its shard and its number there."""
        return [
            {"shard": shard, "number": number, **self._facts(actor)}
            for (shard, number), actor in sorted(self._actors.items())
        ]

    def whole(self) -> bool:
        """Whether every shard has its writer and its copies, and all answer."""
        wanted = len(Placement.read(self._bucket).shards) * (1 + self._copies)
        found = self.facts()
        return len(found) == wanted and all(one.get("serves", False) for one in found)

    def stop(self) -> None:
        stopping = [actor.stop.remote() for actor in self._actors.values()]
        self._ray.wait(stopping, num_returns=len(stopping), timeout=_STOP_S) if stopping else None
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()

    def _facts(self, actor: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._ray.get(actor.facts.remote(), timeout=5.0)
            return found
        except (self._ray.exceptions.RayError, TimeoutError):
            return {}

    def _begin(self, shard: int, number: int) -> Any:
        settings = self.settings
        path = os.path.join(settings.folder, "servers", f"shard-{shard}", str(number))
        first = settings.first
        member = replace(first, shard=shard, path=path, claim_s=0.0 if number == 0 else first.claim_s)
        options: dict[str, Any] = {"num_cpus": settings.cpus, "max_restarts": -1}
        if not settings.local:
            options |= self._placed(shard, number)
        return self._class.options(**options).remote(member, settings.local)

    def _placed(self, shard: int, number: int) -> dict[str, Any]:
        """On a cluster: servers of one shard on different machines, where there are so many."""
        name = f"{name_of(self.settings.url)}-{shard}-{number}"
        made: dict[str, Any] = {
            "name": name, "namespace": NAMESPACE, "lifetime": "detached", "get_if_exists": True,
            "scheduling_strategy": "SPREAD",
        }  # fmt: skip
        if self.settings.cpus > 0:
            from ray.util.placement_group import placement_group
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            if shard not in self._groups:
                bundles = [{"CPU": self.settings.cpus}] * (1 + self._copies)
                self._groups[shard] = placement_group(bundles, strategy="SPREAD", lifetime="detached")
            made["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                self._groups[shard], placement_group_bundle_index=number
            )
        return made


class SupervisorActor:
    """The supervisor on a Ray cluster, where no process of a user's stays."""

    def __init__(self, settings: UpSettings, run: str) -> None:
        self._supervisor = Supervisor(settings)
        self._thread = threading.Thread(target=self._supervise, args=(run,), daemon=True)
        self._thread.start()

    def _supervise(self, run: str) -> None:
        supervise(self._supervisor, run, threading.Event())

    def facts(self) -> list[dict[str, Any]]:
        return self._supervisor.facts()

    def whole(self) -> bool:
        return self._supervisor.whole()

    def ended(self) -> bool:
        return not self._thread.is_alive()


def name_of(url: str) -> str:
    """The name of a cluster among Ray's actors."""
    return f"cluster-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def prepare(settings: UpSettings) -> tuple[str, UpSettings]:
    """Make the cluster's placement where there is none, and say that its servers are to run. Returns the run's name,
    and the settings with the number of copies.

    Raises AlreadyExists where the servers of this cluster run already, InvalidArgument where it has another number of
    shards.
    """
    bucket = cluster_bucket(settings.url, conditional=True)
    if not 0 <= (settings.copies or 0) <= 16:
        raise InvalidArgument(f"copies must be from 0 to 16, beside the writer of each shard, got {settings.copies}")
    with suppress(AlreadyExists):
        if settings.shards is not None:
            Placement.even(settings.shards).create(bucket)
    try:
        there = Placement.read(bucket)
    except NotFound:
        raise NotFound(f"{settings.url} has no cluster yet: say how many shards it is to have") from None
    if settings.shards is not None and len(there.serving) != settings.shards:
        raise InvalidArgument(
            f"{settings.url} has {len(there.serving)} shards, not {settings.shards}: leave the number out, or "
            "reshape it with `vecdb cluster reshape`"
        )
    known, run = notes.wanted(bucket), uuid.uuid4().hex
    if settings.copies is None:
        had = None if known is None else known.copies
        settings = replace(settings, copies=1 if had is None else had)
    if known is not None and known.up and answering(settings, there):
        raise AlreadyExists(f"the servers of {settings.url} run already; `vecdb cluster down` ends them")
    if not notes.want(bucket, notes.ServersWanted(run, True, settings.copies), known):
        raise Unavailable(f"another has begun to start the servers of {settings.url} at this moment")
    return run, settings


def answering(settings: UpSettings, placement: Placement) -> bool:
    first = settings.first
    addresses = {one for shard in placement.shards.values() for one in shard.servers}
    return any(directories.reachable(one, first.tls, 1.0) for one in addresses)


def supervise(supervisor: Supervisor, run: str, stop: threading.Event) -> None:
    """Until `stop`, or until the cluster's servers are not wanted any more; then they end."""
    bucket = cluster_bucket(supervisor.settings.url)
    try:
        while not stop.wait(_TICK_S):
            with suppress(VecdbError, OSError):  # the bucket is away: the servers go on
                there = notes.wanted(bucket)
                if there is None or (there.run, there.up) != (run, True):
                    return
                supervisor.step()
    finally:
        supervisor.stop()


def wait_whole(supervisor: Any, timeout_s: float, report: Any, watch: Callable[[Any], None]) -> None:
    """Until all servers answer. report(answering, all), watch(facts) : called now and then. Raises Unavailable."""
    ends = time.monotonic() + timeout_s
    while not supervisor.whole():
        found = supervisor.facts()
        report(sum(bool(one.get("serves")) for one in found), len(found))
        watch(found)
        if time.monotonic() > ends:
            late = [
                f"shard {one['shard']}: {one.get('trouble') or one.get('role')}"
                for one in found
                if not one.get("serves")
            ]
            raise Unavailable(f"not all servers answer after {timeout_s:.0f} s: {'; '.join(late)}")
        time.sleep(0.1)
    found = supervisor.facts()
    report(len(found), len(found))


def end(url: str, timeout_s: float = _STOP_S) -> list[str]:
    """Say that the servers of a cluster are not to run, and wait until those that are noted have ended. Returns the
    addresses of servers that have not.
    """
    bucket = cluster_bucket(url, conditional=True)
    Placement.read(bucket)
    known = notes.wanted(bucket)
    if known is not None and known.up:
        notes.want(bucket, structs.replace(known, up=False), known)
    ends, gone_at = time.monotonic() + timeout_s, None
    while there := notes.servers(bucket):
        answer = [one.address for one in there if directories.reachable(one.address, None, 1.0)]
        gone_at = None if answer else gone_at or time.monotonic()
        if time.monotonic() > ends or (gone_at is not None and time.monotonic() - gone_at > _GONE_S):
            return answer  # who does not answer for so long was killed, and has left its note
        time.sleep(0.2)
    return []
