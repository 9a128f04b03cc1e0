"""One server of a cluster, kept as the placement says: started, started again, made the writer, made a copy.

    each tick   placement --roles.py--> role --> a directory that fits --> `vecdb serve` --> the placement names it

It needs nobody above it: under systemd, Kubernetes or Ray it is the same loop (`vecdb cluster join`). What it wants of
others it changes in the placement, by compare-and-swap. While the bucket is away it goes on as it was.

Threads: `run` in one; `stop` and `facts` from any.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vecdb.cluster.placement import Placement, bucket_url, cluster_bucket
from vecdb.errors import NotFound, VecdbError
from vecdb.replication.objects import Bucket
from vecdb.shards import notes
from vecdb.shards.holding import is_held
from vecdb.shards.servers import directories
from vecdb.shards.servers.ports import free_port, is_free, joined, split_listen
from vecdb.shards.servers.roles import Role, Seen, claimed, moved, published, role_of
from vecdb.shards.servers.server_process import ServerProcess, last_words
from vecdb.storage.disk import filesystem

_TICK_S = 0.5
_WATCH_S = 1.0  # between two looks at the writer
_STARTING_TICK_S = 0.05  # while it is not known yet that the server answers
_HELD_TICK_S = 0.1  # while the shard is held: others may have its records at any moment
_HELD_S = 0.8  # a reader that has not been told for so long that the shard is still there is ended
_QUICK_S = 5.0  # a server that ended sooner is not started again at once
_DELAY_FIRST_S, _DELAY_LAST_S = 0.25, 8.0
_REACH_S = 1.5  # for a server to say that it is there
_START_S = 600.0  # for a server to answer: it may fetch a whole shard first
_LOOK_S = 10.0  # between two looks at copies that may be gone
_FIRST_S = 30.0  # for a writer that starts
_FORGET_S = 60.0  # a copy that could not be reached so long is named no more; it names itself again
_log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class MemberSettings:
    """url : of the cluster.   path : the server's directory.   listen : host:port, 0 for a free one, which stays.
    address : under which others reach it; None: grpc:// and `listen`.   takeover_s : a writer that was gone so long is
    replaced by this server; None: never.   claim_s : the same where there is no writer at all.   options : further ones
    of `vecdb serve`.   tls : with which this server, and the others, are asked.   grace_s : for a server to end.
    secure : addresses are grpcs://, since `options` lead to a certificate.
    """

    url: str
    shard: int
    path: str
    listen: str = "127.0.0.1:0"
    address: str | None = None
    takeover_s: float | None = 5.0
    claim_s: float = 5.0
    options: tuple[str, ...] = ()
    writer_options: tuple[str, ...] = ()
    tls: str | None = None
    grace_s: float = 30.0
    secure: bool = False


class Member:
    """Keeps one server. `run` until `stop` is called, or the shard is no more."""

    def __init__(self, settings: MemberSettings) -> None:
        """Raises InvalidArgument for what is no address, of the cluster or to listen on."""
        bucket_url(settings.url)
        split_listen(settings.listen)
        self.settings = settings
        self.path = Path(settings.path).absolute()
        self.address = ""  # not known before the first tick
        self._stop = threading.Event()
        self.left = False  # the shard is no more
        self._known_at = 0.0  # when the placement was asked for that was read last
        self.role = Role.WAIT
        self._served: Role | None = None  # as what the process runs
        self._process: ServerProcess | None = None
        self._answers = False
        self._next_start, self._delay = 0.0, 0.0
        self._watched = WatchedWriter(None)
        self._watch_at = 0.0
        self._looked_at = time.monotonic()
        self._gone_since: dict[str, float] = {}
        self._noted: tuple[Any, ...] = ()
        self._held = False
        self.trouble = ""  # why the last look came to nothing
        self._server_trouble = ""  # why the server does not answer

    # -- from any thread ---------------------------------------------------------------------------

    def stop(self) -> None:
        self._stop.set()

    def facts(self) -> dict[str, Any]:
        """What it is now, for people."""
        process = self._process
        return {
            "shard": self.settings.shard,
            "address": self.address,
            "path": str(self.path),
            "host": notes.host_name(),
            "role": self.role.value,
            "serves": self._answers,
            "pid": process.pid if process is not None and process.alive else None,
            "trouble": self.trouble or self._server_trouble or None,
        }

    @property
    def _name(self) -> str:
        """Of the note about this server: the same after a restart."""
        return hashlib.sha256(self.address.encode()).hexdigest()[:12]

    @cached_property
    def _bucket(self) -> Bucket:
        return cluster_bucket(self.settings.url, conditional=True)

    # -- the loop ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`, or until the placement has no such shard any more. The server ends with it."""
        try:
            while not self._stop.is_set() and not self.left:
                try:
                    self.tick()
                    self.trouble = ""
                except (VecdbError, OSError) as error:
                    self._note_trouble(str(error))
                self._stop.wait(self._tick_s())
        finally:
            self._end_all()

    def _tick_s(self) -> float:
        if self._process is not None and not self._answers:
            return _STARTING_TICK_S
        return _HELD_TICK_S if self._held else _TICK_S

    def tick(self) -> None:
        """Look once, and do what is to be done."""
        if not self.address:
            self.address = self._choose_address()
        asked = time.monotonic()
        placement = Placement.read(self._bucket)
        self._known_at = asked
        self._look_at_writer(placement)
        role = self._decide(placement)
        if role is Role.CLAIM:
            placement = self._claim(placement)
            role = self._decide(placement)
        if role in (Role.CLAIM, Role.WAIT):
            return
        self.role = role
        if role is Role.LEAVE:  # at once: whoever asks here would hear what is no more
            self._answers = False
            if self._process is not None:
                self._process.end(self.settings.grace_s)
            self.left = True
            return
        self._serve(role)
        if self._answers:
            self._publish(placement)
            if role is Role.WRITE:
                self._forget_copies(placement)

    def _decide(self, placement: Placement) -> Role:
        shard = placement.shards.get(self.settings.shard)
        if shard is None:
            return Role.LEAVE
        settings = self.settings
        log_there = self._served is not None or directories.has_log(self._log_url(placement))
        able = shard.writer is None or self._answers or not log_there
        patience = self._watched.patience_s(settings) if able else float("inf")
        self._held = shard.writer is None and is_held(self._bucket, settings.shard)
        seen = Seen(
            address=self.address,
            directory=directories.what_it_holds(self.path),
            held=self._held,
            log_there=log_there,
            alone_s=self._watched.alone_s,
            patience_s=patience,
        )
        return role_of(placement, settings.shard, seen)

    def _claim(self, placement: Placement) -> Placement:
        before = placement.shards[self.settings.shard].writer
        made = Placement.change(self._bucket, lambda now: claimed(now, self.settings.shard, self.address, before))
        if made.shards.get(self.settings.shard) is not None and made.shards[self.settings.shard].writer == self.address:
            _log.warning("shard %d is written by %s now, before by %s", self.settings.shard, self.address, before)
        return made

    def _look_at_writer(self, placement: Placement) -> None:
        """Know since when there is no writer that answers."""
        shard = placement.shards.get(self.settings.shard)
        writer = None if shard is None else shard.writer
        if writer != self._watched.address:
            self._watched = WatchedWriter(writer)
        if time.monotonic() < self._watch_at:
            return
        self._watch_at = time.monotonic() + _WATCH_S
        if writer is not None and writer != self.address and self.settings.takeover_s is not None:
            if self._reaches(writer):
                self._watched.answered()
            elif not self._watched.starts:
                self._watched.look_at(self._starting_since(writer))

    def _starting_since(self, address: str) -> float | None:
        """When a server was last started, where it is noted that it starts."""
        for one in notes.servers(self._bucket, self.settings.shard):
            if one.address == address and one.role == notes.STARTING:
                return one.time
        return None

    def _reaches(self, address: str) -> bool:
        return directories.reachable(address, self.settings.tls, _REACH_S)

    # -- the server --------------------------------------------------------------------------------

    def _serve(self, role: Role) -> None:
        """Have a server of this role, or begin to have it."""
        process = self._process
        if process is not None and self._served is not role:
            self._answers = False
            process.end(self.settings.grace_s)
            self._process = process = None
            self._delay = self._next_start = 0.0
        if process is not None and process.alive:
            if not self._answers:
                self._wait_for_answer(process)
            return
        if process is not None:
            self._ended(process, role)
        if time.monotonic() >= self._next_start:
            self._start(role)

    def _ended(self, process: ServerProcess, role: Role) -> None:
        """The server is gone, and nobody told it to."""
        process.kill()  # reaps it
        quick = process.lived_s() < _QUICK_S and not self._answers
        self._process, self._answers = None, False
        self._delay = min(2 * self._delay, _DELAY_LAST_S) if quick and self._delay else _DELAY_FIRST_S if quick else 0.0
        self._next_start = time.monotonic() + self._delay
        by = process.killed_by
        reason = f"was killed ({by})" if by else f"ended: {last_words(self._log_file())}"
        self._server_trouble = f"the server of {self.path} {reason}"
        _log.warning("shard %d, %s: %s", self.settings.shard, self.address, self._server_trouble)
        if quick and role is Role.WRITE and directories.is_refused(self.path, self._log_url()):
            _log.warning("%s was replaced: it is kept as %s", self.path, directories.put_aside(self.path))

    def _start(self, role: Role) -> None:
        log = self._log_url()
        filesystem.make_dir(self.path.parent)
        if role is Role.WRITE:
            directories.take_over(self.path, log)
        elif role is Role.FOLLOW and directories.what_it_holds(self.path) == "own":
            _log.warning("%s was replaced: it is kept as %s", self.path, directories.put_aside(self.path))
        words = ["--path", str(self.path), "--listen", self._listen_on(), *self.settings.options]
        words += {
            Role.WRITE: ["--log", log, "--lease", *self.settings.writer_options],  # a copy may take over
            Role.FOLLOW: ["--follow", log],
            Role.READ: ["--read-only"],
        }[role]
        self._note(notes.STARTING, 0)
        self._process = ServerProcess(words, self._log_file())
        self._served, self._answers = role, False
        if role is Role.READ:
            threading.Thread(target=self._watch_reader, args=(self._process,), name="vecdb-held", daemon=True).start()

    def _watch_reader(self, process: ServerProcess) -> None:
        """End a server that only reads where the placement has not been read for long, from a thread that waits for no
        bucket: the shard's records may have got other shards since, and a reader has no log that tells it. A copy stops
        by itself.
        """
        while process.alive and not self._stop.wait(_HELD_TICK_S):
            if time.monotonic() - self._known_at > _HELD_S:
                process.tell_to_end()
                return

    def _wait_for_answer(self, process: ServerProcess) -> None:
        if self._reaches(self.address):
            self._answers, self._delay, self._server_trouble = True, 0.0, ""
        elif process.lived_s() > _START_S:
            process.kill()

    def _log_file(self) -> Path:
        return self.path.with_name(f"{self.path.name}.log")

    def _log_url(self, placement: Placement | None = None) -> str:
        placement = Placement.read(self._bucket) if placement is None else placement
        return log_url(self.settings.url, placement, self.settings.shard)

    # -- where it is reached -----------------------------------------------------------------------

    def _choose_address(self) -> str:
        if self.settings.address is not None:
            return self.settings.address
        host, port = split_listen(self.settings.listen)
        known = directories.known_address(self.path) or ""
        if port == 0 and known.rpartition(":")[2].isdecimal() and is_free(host, int(known.rpartition(":")[2])):
            port = int(known.rpartition(":")[2])
        address = f"{'grpcs' if self.settings.secure else 'grpc'}://{joined(host, port or free_port(host))}"
        if known and known != address:
            Placement.change(self._bucket, lambda now: moved(now, self.settings.shard, known, address))
        directories.note_address(self.path, address)
        return address

    def _listen_on(self) -> str:
        host, port = split_listen(self.settings.listen)
        return joined(host, port or int(self.address.rpartition(":")[2]))

    def _publish(self, placement: Placement) -> None:
        shard, address = self.settings.shard, self.address
        copy = self.role in (Role.FOLLOW, Role.READ)
        if published(placement, shard, address, copy=copy) != placement:
            Placement.change(self._bucket, lambda now: published(now, shard, address, copy=copy))
        process = self._process
        assert process is not None
        self._note(self.role.value, process.pid)

    def _note(self, role: str, pid: int) -> None:
        if self._noted != (self.address, role, pid) or role == notes.STARTING:
            notes.note_server(self._bucket, self._name, self.settings.shard, self.address, str(self.path), role, pid)
            self._noted = (self.address, role, pid)

    def _forget_copies(self, placement: Placement) -> None:
        """Name copies no more that have not answered for long: readers would try them first."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_S:
            return
        self._looked_at = now
        shard = self.settings.shard
        gone = {one for one in placement.shards[shard].copies if not self._reaches(one)}
        self._gone_since = {one: self._gone_since.get(one, now) for one in gone}
        for one, since in self._gone_since.items():
            if now - since >= _FORGET_S:
                Placement.change(self._bucket, lambda there, one=one: published(there, shard, one, copy=False))  # type: ignore[misc]

    # -- the end -----------------------------------------------------------------------------------

    def _end_all(self) -> None:
        with suppress(VecdbError, OSError):
            Placement.change(self._bucket, lambda now: published(now, self.settings.shard, self.address, copy=False))
        self._answers = False
        if self._process is not None:
            self._process.end(self.settings.grace_s)
        with suppress(VecdbError, OSError):
            self._bucket.delete([notes.server_key(self.settings.shard, self._name)])

    def _note_trouble(self, reason: str) -> None:
        if reason != self.trouble:
            _log.warning("shard %d, %s: %s", self.settings.shard, self.address, reason)
        self.trouble = reason


class WatchedWriter:
    """Who is to write the shard, and since when that server has not answered; of nobody, since when there is none.

    One that has begun to start is waited for longer: its directory may have commits that no copy has.
    """

    def __init__(self, address: str | None) -> None:
        self.address = address
        self.starts = False  # since it does not answer
        self._alone_since = time.monotonic()
        self._answered = False
        self._known_start: float | None = None

    @property
    def alone_s(self) -> float:
        return time.monotonic() - self._alone_since

    def answered(self) -> None:
        self._alone_since, self._answered, self.starts = time.monotonic(), True, False

    def look_at(self, start: float | None) -> None:
        """start : when its supervisor noted that it starts; a note that was seen before says nothing."""
        if start is not None and start != self._known_start:
            self._known_start, self.starts = start, True

    def patience_s(self, settings: MemberSettings) -> float:
        """How long it may be away."""
        if self.address is None:
            return settings.claim_s
        if settings.takeover_s is None:
            return float("inf")
        return settings.takeover_s if self._answered and not self.starts else max(settings.takeover_s, _FIRST_S)


def log_url(url: str, placement: Placement, shard: int) -> str:
    """Where the log of a shard lies. url : of the cluster. Raises NotFound."""
    if shard not in placement.shards:
        raise NotFound(f"{url} has no shard {shard}: it has {sorted(placement.shards)}")
    return f"{bucket_url(url)}/{placement.shards[shard].log}"
