"""The server as a process: it starts, serves and drains.

    lock the database -> bind -> answer (health: NOT_SERVING) -> open collections, warm kernels -> SERVING
    SIGTERM: NOT_SERVING -> no new calls, streams and long operations come to an end -> wait for what runs, at most
    `grace_s` -> close the database

Threads: one event loop; the threads of executors.py, gRPC's own, and the one of the metrics page.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_reflection.v1alpha import reflection

import vecdb
from vecdb import Collection, Unavailable, VecdbError
from vecdb.wire.addresses import UNIX
from vecdb_server import logs, unix_socket
from vecdb_server.config import Config, host_and_port
from vecdb_server.logs import log
from vecdb_server.place import LogState, Place
from vecdb_server.security.admission import Admission, AdmissionLimits
from vecdb_server.security.connections import connections_max, connections_of
from vecdb_server.security.interceptor import CallInterceptor
from vecdb_server.security.tls import Certificates
from vecdb_server.security.tokens import Tokens
from vecdb_server.services import health, services
from vecdb_server.services.context import ServerContext

_HEADER_BYTES_MAX = 16 << 10
_TOKENS_POLL_S = 1.0
_CONNECTIONS_POLL_S = 2.0
_LOG_POLL_S = 1.0
_LOG_POLLS = 6  # within `staleness_s`, where that is more often: workers rely on it
_DRAIN_POLL_S, _QUIET_POLLS = 0.2, 5
_SWITCH_S = 2e-4  # Python's switch interval: how long a search on the event loop waits for another thread

# Short searches keep the event loop busy, and calls wait inside gRPC before the interceptor sees them. A client with
# this many calls under way on a connection queues the others itself. The server's queue stays short, and calls that are
# let in, and health checks, are answered soon. With fewer there would be no room to refuse calls beside those that wait
# for a kernel. A call that gRPC itself refuses would look like one that was cancelled.
_STREAMS_A_CONNECTION = 256

_OPTIONS = (
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: what expands a thousandfold is not bounded by its bytes
    # What comes before a message is asked for waits in gRPC's memory, a window of it for each call. gRPC would widen it
    # to megabytes by what the line carries; a message that is being read has a window of 1 MiB all the same.
    ("grpc.http2.lookahead_bytes", 32 << 10),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.http2.settings_timeout", 10_000),  # of a connection that says nothing
    ("grpc.max_metadata_size", _HEADER_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", _HEADER_BYTES_MAX),
    ("grpc.http.overload_protection", 0),  # it would refuse calls of clients that keep to that limit
    ("grpc.server.max_pending_requests", 4_000),
    ("grpc.server.max_pending_requests_hard_limit", 8_000),
    ("grpc.keepalive_time_ms", 60_000),  # so that a client that is gone is noticed
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),  # a client that pings more often is disconnected
    ("grpc.http2.max_ping_strikes", 3),
    ("grpc.keepalive_permit_without_calls", 1),
)


class Server:
    """One server. `await start()`, then `await drain()`, both on one event loop."""

    def __init__(self, config: Config, place: Place | None = None) -> None:
        """place : what this process is; None: the only one of its server."""
        self.config = config
        self.place = Place(read_only=config.read_only or config.follow is not None) if place is None else place
        self.port = 0
        self.metrics_port = 0
        self.metrics = self.place.metrics()
        self.warm = False
        self._tasks: list[asyncio.Task[Any]] = []
        self._drained: asyncio.Event = asyncio.Event()
        self._draining = False

    # -- start ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """When this returns the server answers calls; health turns to SERVING when searches are warm. Raises Locked,
        Unavailable where the port is taken, and whatever opening the database raises.
        """
        config = self.config
        self._tokens = None if config.tokens is None else Tokens(Path(config.tokens))
        self._certificates = (
            None
            if config.tls_cert is None
            else Certificates(config.tls_cert, config.tls_key or "", config.tls_client_ca)
        )
        db = await asyncio.to_thread(self._open)
        try:
            self._build(db)
            self.port = self._bind()
            self._register_metrics()
            await self._grpc_server.start()
        except BaseException:
            await asyncio.to_thread(self._close, db)
            raise
        self._tasks.append(asyncio.ensure_future(self._warm()))
        self._tasks.append(asyncio.ensure_future(self._interceptor.slow_messages.watch()))
        if self.config.socket is None:
            self._tasks.append(asyncio.ensure_future(self._watch_connections()))
        if config.log is not None or config.follow is not None:
            self._tasks.append(asyncio.ensure_future(self._watch_log(db)))
        self.place.listens(self)
        if self._tokens is not None:
            self._tasks.append(asyncio.ensure_future(self._watch_tokens(self._tokens)))

    def _open(self) -> vecdb.Database:
        config = self.config
        return vecdb.open(
            config.path, read_only=config.read_only, durability=config.durability,  # type: ignore[arg-type]
            memory_budget_bytes=config.memory_budget_bytes, log=config.log, follow=config.follow,
            staleness_s=config.staleness_s or None, lease=config.lease and config.log is not None,
        )  # fmt: skip

    def _build(self, db: vecdb.Database) -> None:
        config, place = self.config, self.place
        admission = Admission(_of(AdmissionLimits, config), place.counters)
        place.opened(Path(db.path))
        hidden_path = "" if config.path == ":memory:" else str(db.path)
        self._interceptor = CallInterceptor(config, self._tokens, admission, self.metrics, hidden_path, place.secret)
        self.context = ServerContext(db, config, admission, place)
        self.context.check_message = self._interceptor.check_message
        self.context.check_caller = self._interceptor.check_caller
        self.connections_max = connections_max(config.connections_max)
        if self.connections_max < config.connections_max and config.socket is None:
            log.warning(
                "fewer connections than wanted are taken: the limit of open files (ulimit -n) allows no more",
                connections_max=self.connections_max, wanted=config.connections_max,
            )  # fmt: skip
        options = [
            *_OPTIONS,
            ("grpc.so_reuseport", int(place.sharers > 1)),  # a second server on the port must fail, not share it
            ("grpc.max_concurrent_streams", _STREAMS_A_CONNECTION if place.secret is None else config.requests_max),
            ("grpc.max_receive_message_length", config.message_bytes_max),
            ("grpc.max_send_message_length", config.message_bytes_max),
            ("grpc.max_allowed_incoming_connections", self.connections_max),
            ("grpc.max_connection_idle_ms", int(config.connection_idle_s * 1e3)),
        ]
        self._grpc_server = grpc.aio.server(interceptors=[self._interceptor], options=options)
        served = services(self.context)
        names = [health.SERVICE.full_name, *(descriptor.full_name for descriptor, _ in served)]
        self.health = health.Health(["", *names], config.watches_max)
        for descriptor, behaviours in [(health.SERVICE, self.health), *served]:
            self._interceptor.add(descriptor, place.served(descriptor, behaviours))
        if config.reflection:
            reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], self._grpc_server)

    def _bind(self) -> int:
        address, path = self.config.listen, self.config.socket
        every = self._tokens is not None
        try:
            with contextlib.nullcontext() if path is None else unix_socket.claimed(path, for_all=every):
                if self._certificates is None or path is not None:
                    return int(self._grpc_server.add_insecure_port(address))
                return int(self._grpc_server.add_secure_port(address, self._certificates.credentials()))
        except RuntimeError:
            raise Unavailable(
                f"cannot listen on {address}: the port is taken, or the address is not this host's"
            ) from None

    def _register_metrics(self) -> None:
        config, context, admission, place = self.config, self.context, self.context.admission, self.place
        self.metrics.gauge("vecdb_requests_held", "Requests that the server holds.", lambda: admission.calls)
        self.metrics.gauge("vecdb_request_bytes_held", "Bytes of their messages.", lambda: admission.bytes)
        self.metrics.gauge("vecdb_streams_held", "Streams and lists, idle ones too.", lambda: admission.streams)
        self.metrics.gauge("vecdb_messages_slow", "Calls that wait for their message.", lambda: admission.slow_messages)
        self.metrics.gauge("vecdb_requests_refused", "Requests refused so far.", lambda: admission.refused)
        self.metrics.gauge(
            "vecdb_long_operations", "Builds, backups and the like.",
            place.figure("long_operations", lambda: len(context.long_operations)),
        )  # fmt: skip
        pools = {"kernels": context.kernels, "writers": context.writers}
        self.metrics.gauges(
            {(name,): place.figure(f"{name}_queued", lambda pool=pool: pool.queued) for name, pool in pools.items()},  # type: ignore[misc]
            "vecdb_jobs_queued", "Jobs that wait for a thread.", ("pool",),
        )  # fmt: skip
        self.metrics.gauges(
            {(name,): place.figure(f"{name}_running", lambda pool=pool: pool.busy) for name, pool in pools.items()},  # type: ignore[misc]
            "vecdb_jobs_running", "Jobs on a thread.", ("pool",),
        )  # fmt: skip
        backups = None if config.backups is None else Path(config.backups)
        self.metrics.database(lambda: context.db.stats(disk=False), Path(context.db.path), backups)
        if config.metrics is not None:
            host, port = host_and_port(config.metrics, "metrics")
            tls = None if config.metrics_local or config.tls_cert is None else config
            try:
                self.metrics_port = self.metrics.listen(host, port, tls)
            except OSError as error:
                raise Unavailable(f"cannot listen on {config.metrics} for metrics: {error.strerror}") from None

    async def _warm(self) -> None:
        """Search every collection once, so that no caller waits for a file or for the compiler."""
        await asyncio.to_thread(warm, self.context.db)
        self.warm = True
        self.place.serves()
        self.tell_health()
        log.info("serving", port=self.port)

    def tell_health(self) -> None:
        """Health is of the whole server: this process is warm, those that it needs are there, and what the log says."""
        known, there = self.place.log_state, self.warm and self.place.is_whole()
        self.health.set_serving(
            serving=there and known.answers,
            writes=self.warm and self.place.takes_writes and known.writes,
            log=self.warm and known.reached,
        )

    async def _watch_connections(self) -> None:
        """gRPC closes a connection beyond the most without a word: the log has one."""
        full = False
        while True:
            await asyncio.sleep(_CONNECTIONS_POLL_S)
            count = await asyncio.to_thread(connections_of, self.port)
            if count >= self.connections_max and not full:
                log.warning("no more connections are taken", connections=count, connections_max=self.connections_max)
            full = count >= self.connections_max

    async def _watch_log(self, db: vecdb.Database) -> None:
        """Health says what the log keeps this server from, and who reads the directory beside this process is told."""
        staleness_s = self.config.staleness_s
        pause_s = min(_LOG_POLL_S, staleness_s / _LOG_POLLS) if staleness_s else _LOG_POLL_S
        while True:
            with contextlib.suppress(VecdbError):
                asked = time.monotonic()
                facts = (await asyncio.to_thread(db.stats, disk=False))["log"]
                state = LogState(facts["answers"], facts["writes"], facts["trouble"] is None)
                if state[:2] != self.place.log_state[:2]:
                    log.warning("state of the log", reads=state.answers, writes=state.writes, reason=facts["trouble"])
                self.place.note_log(state)
                if facts.get("lease") is not None:
                    self.place.leased(asked - facts["lease"]["confirmed_s"] + facts["lease"]["staleness_s"])
                if facts.get("replaced") and staleness_s:
                    log.error("another writer has taken over", reason=facts["trouble"])
                    self.place.replaced()
                self.tell_health()
                if facts.get("replaced"):
                    return
            await asyncio.sleep(pause_s)

    async def _watch_tokens(self, tokens: Tokens) -> None:
        while True:
            await asyncio.sleep(_TOKENS_POLL_S)
            tokens.refresh()

    # -- end -----------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Refuse new calls, let running calls end within `grace_s`, close the database."""
        if self._draining:
            await self._drained.wait()
            return
        self._draining = True
        log.info("draining", grace_s=self.config.grace_s, held=self.context.admission.calls)
        self.health.end()
        self.place.drains()
        for task in self._tasks:
            task.cancel()
        self.context.drain()
        self._interceptor.end_watches()
        await self._end_calls()
        if self.config.socket is not None:
            unix_socket.remove(self.config.socket)
        await asyncio.to_thread(self._close, self.context.db)
        log.info("closed")
        self._drained.set()

    async def _end_calls(self) -> None:
        """gRPC waits for connections, too, whose clients may be silent: once no call is left it need not."""
        admission = self.context.admission
        stopping = asyncio.ensure_future(self._grpc_server.stop(self.config.grace_s))
        quiet = 0
        while not stopping.done() and quiet < _QUIET_POLLS:
            await asyncio.wait([stopping], timeout=_DRAIN_POLL_S)
            quiet = 0 if admission.held_here else quiet + 1
        if not stopping.done():
            await self._grpc_server.stop(None)
        await stopping

    def _close(self, db: vecdb.Database) -> None:
        self.metrics.close()
        context = getattr(self, "context", None)
        if context is None:
            db.close()
        else:
            context.close()
        self.place.closed()


def warm(db: vecdb.Database) -> None:
    """Open and search every collection once. One that cannot be opened is logged, and its callers get the reason."""
    for name in db.collections():
        try:
            search_once(db.collection(name))
        except VecdbError as error:
            log.error("collection cannot be opened", collection=name, code=error.code, reason=str(error))


def search_once(docs: Collection) -> None:
    rng = np.random.default_rng(0)
    config = docs.config
    whole = config.element_type in ("int8", "uint8")
    query = rng.integers(1, 100, config.elements) if whole else rng.normal(size=config.elements)
    docs.search(query.astype(config.element_type), limit=10)
    docs.search(query.astype(config.element_type), limit=10, params=vecdb.SearchParams(exact=True))


def prepare(config: Config, **facts: Any) -> None:
    """Set up this process for a server. facts : what each line of its log says beside what it is about."""
    sys.setswitchinterval(_SWITCH_S)
    logs.configure(config.log_level, **facts)
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)  # our own log has failures, with a request id


def serve_alone(config: Config, listens: Callable[[str], None] = lambda _: None) -> None:
    """Serve in this process until SIGTERM, SIGINT or SIGHUP. listens : is told where. Raises what
    `Server.start` raises.
    """
    ends = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup does
        ends.append(signal.SIGHUP)
    prepare(config)
    announce(config)
    server = Server(config)

    def say() -> None:
        listen = config.listen if config.socket else f"{config.listen.rpartition(':')[0]}:{server.port}"
        say_where(listen, server.metrics_port)
        listens(listen)

    run(server, ends, say)


def announce(config: Config) -> None:
    log.info("starting", version=vecdb.__version__, **config.shown())
    if config.tokens is None:
        log.warning("no tokens file: everybody who reaches the port is administrator")


def run(server: Server, signals: Iterable[signal.Signals], started: Callable[[], None] = lambda: None) -> None:
    """Run a server until one of these signals. started : called once it listens. Raises what `Server.start` raises."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(server, signals, started))


async def _run(server: Server, signals: Iterable[signal.Signals], started: Callable[[], None]) -> None:
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in signals:  # from now on: ended while it starts, it would leave threads of a database behind
        loop.add_signal_handler(number, told.set)
    await server.start()
    started()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)  # one that came before is heard now
    await told.wait()
    await server.drain()


def say_where(listen: str, metrics_port: int) -> None:
    """On standard output, for whoever has let the system choose a port. listen : host:port, or unix:/path."""
    place = listen if listen.startswith(UNIX) else f"port {listen.rpartition(':')[2]}"
    print(f"vecdb is listening on {place}", flush=True)
    if metrics_port:
        print(f"metrics on port {metrics_port}", flush=True)


def _of(limits: Any, config: Config) -> Any:
    """Limits of a class, each from the setting of its name."""
    return limits(**{field.name: getattr(config, field.name) for field in dataclasses.fields(limits)})


def _loop_factory() -> Any:
    with contextlib.suppress(ImportError):
        import uvloop

        return uvloop.new_event_loop
    return None
