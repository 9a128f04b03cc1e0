"""What a cluster consists of at this moment: its placement, read again and again, and a channel to each server.

    a second old         the next call has it read again in a thread, and goes on with what it has
    a server failed      it is read before anybody else is given up (`refresh`)
    the store is away    what was read last is used

Who writes through this cluster finds it again: `needed` has the newest commit of its own writes for each shard, and a
copy that is not known to have it is asked after the writer, and made to wait for it.

Threads: any. The child of a fork must open its own.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any

import grpc

from vecdb import limits
from vecdb.cluster.asking.servers import Access, Server
from vecdb.cluster.placement import Placement
from vecdb.errors import Unavailable, VecdbError
from vecdb.replication.bucket import Bucket
from vecdb.v1 import admin_pb2

_REFRESH_S = 1.0
_AT_ONCE_S = 0.05  # a placement that was read so lately is not read again, whatever failed
_PING_S = 1.0
_SAMPLES = 64  # of how long answers took
_SAMPLES_MIN = 16


class Members:
    """url : for messages.   tenant : attribute: of the token, UTF-8; b"" where it is bound to none."""

    def __init__(self, url: str, bucket: Bucket, access: Access) -> None:
        self.url = url
        self._bucket = bucket
        self._access = access
        self._lock = threading.Lock()  # of what follows
        self._reading = threading.Lock()  # held by the one that reads the placement
        self._turns = itertools.count()
        self._pid = os.getpid()
        self._servers: dict[str, Server] = {}
        self._needed: dict[int, int] = {}
        self._writer_until: dict[int, float] = {}
        self._took: dict[Any, deque[float]] = {}
        self._late_s: dict[Any, float] = {}
        self.closed = False
        self.tenant = b""
        self.placement = Placement.read(bucket)
        self._read_at = time.monotonic()
        for address, error in self._connect().items():
            self.close()
            raise type(error)(f"{address}: {error}")

    # -- the placement -------------------------------------------------------------------------------

    def current(self) -> Placement:
        """The placement, at most about a second old while calls are made. Raises Unavailable where none can be."""
        if self.closed:
            raise Unavailable(f"database {self.url} is closed; open it again")
        if os.getpid() != self._pid:
            raise Unavailable(
                f"database {self.url} was opened by process {self._pid} and inherited by a fork; open it anew in "
                f"process {os.getpid()}"
            )
        if time.monotonic() - self._read_at > _REFRESH_S and self._reading.acquire(blocking=False):
            try:
                threading.Thread(target=self._refresh_behind, name="vecdb-placement", daemon=True).start()
            except BaseException:
                self._reading.release()
                raise
        return self.placement

    def refresh(self) -> Placement:
        """Read the placement now, unless that was done a moment ago."""
        asked_at = time.monotonic()
        with self._reading:
            if self._read_at < asked_at - _AT_ONCE_S:
                self._refresh()
        return self.placement

    def _refresh_behind(self) -> None:
        try:
            self._refresh()
            self._ping_copies()
        finally:
            self._reading.release()

    def _refresh(self) -> None:
        with suppress(VecdbError):  # the store is away, or what lies there is no placement: the last one holds
            found = Placement.read(self._bucket)
            with self._lock:
                for number, shard in found.shards.items():
                    before = self.placement.shards.get(number)
                    if before is not None and before.writer != shard.writer:
                        # numbers of commits go on from what the new writer has: what it lacks nobody will have
                        self._needed.pop(number, None)
                self.placement = found
            self._connect()
        self._read_at = time.monotonic()

    def _connect(self) -> dict[str, VecdbError]:
        """A channel to each server, and none to others. Returns why there is none to some, which are not asked."""
        refused: dict[str, VecdbError] = {}
        wanted = {address for shard in self.placement.shards.values() for address in shard.servers}
        with self._lock:
            gone = [self._servers.pop(address) for address in self._servers.keys() - wanted]
            for address in wanted - self._servers.keys():
                if not self.closed:
                    try:
                        self._servers[address] = Server(address, self._access)
                    except VecdbError as error:  # such as a token that would go there in plain text
                        refused[address] = error
        for server in gone:
            server.close()
        return refused

    def _ping_copies(self) -> None:
        """Ask copies that are not known to have this cluster's own writes which commit they have."""
        asked = []
        for number, shard in self.placement.shards.items():
            for address in shard.copies:
                server = self._servers.get(address)
                if server is not None and server.known < self._needed.get(number, 0):
                    with suppress(VecdbError):
                        request = admin_pb2.GetServerInfoRequest()
                        asked.append((server, server.start("GetServerInfo", request, _PING_S)))
        for server, call in asked:
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                server.note_answer(call.result())

    # -- servers -------------------------------------------------------------------------------------

    def writer(self, number: int) -> Server | None:
        """The server that writes a shard; None where there is none."""
        shard = self.placement.shards.get(number)
        return None if shard is None or shard.writer is None else self._servers.get(shard.writer)

    def copies(self, number: int) -> list[Server]:
        shard = self.placement.shards.get(number)
        found = [self._servers.get(address) for address in (() if shard is None else shard.copies)]
        return [server for server in found if server is not None]

    def readers(self, number: int) -> list[Server]:
        """The servers of a shard in the order in which a read asks them: first those that have this cluster's own
        writes, in turns, then those that may not; in each case what failed lately comes last.
        """
        writer, copies = self.writer(number), self.copies(number)
        ready = [server for server in copies if not self.must_wait(number, server)]
        if writer is not None:
            ready.append(writer)
        if len(ready) > 1:
            first = next(self._turns) % len(ready)
            ready = ready[first:] + ready[:first]
        ready += [server for server in copies if server not in ready]
        return ready if len(ready) < 2 else sorted(ready, key=lambda server: server.failed_lately)

    def must_wait(self, number: int, server: Server) -> bool:
        """Whether a server is a copy that is not known to have this cluster's own writes."""
        if not self._needed and not self._writer_until:
            return False
        if server is self.writer(number):
            return False
        unknown = self._writer_until.get(number, 0.0) > time.monotonic()
        return unknown or server.known < self._needed.get(number, 0)

    def needed(self, number: int) -> int:
        """The newest commit of this cluster's own writes to a shard; 0 where that is unknown."""
        return self._needed.get(number, 0)

    def note_write(self, number: int, sequence: int) -> None:
        """A write was acknowledged. sequence : a commit that has it; 0 where the server does not say."""
        with self._lock:
            if sequence:
                self._needed[number] = max(sequence, self._needed.get(number, 0))
            else:
                self._writer_until[number] = time.monotonic() + limits.cluster_own_writes_s

    # -- how long answers take ---------------------------------------------------------------------------

    def note_took(self, kind: Any, took_s: float) -> None:
        """kind : of calls that take about as long as each other."""
        took = self._took.setdefault(kind, deque(maxlen=_SAMPLES))
        took.append(took_s)
        if len(took) >= _SAMPLES_MIN and (kind not in self._late_s or next(self._turns) % 16 == 0):
            known = sorted(took)
            self._late_s[kind] = known[int(0.95 * len(known))]
            if len(self._took) > limits.cluster_call_kinds_max:
                self._took.clear()
                self._late_s.clear()

    def late_s(self, kind: Any) -> float:
        """After how long a call is late, so that another server is asked, too: the 95th percentile."""
        return max(limits.cluster_hedge_min_s, self._late_s.get(kind, limits.cluster_hedge_s))

    def close(self) -> None:
        with self._lock:
            self.closed = True
            servers = list(self._servers.values())
        if os.getpid() == self._pid:
            for server in servers:
                server.close()
