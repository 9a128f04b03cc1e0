"""The server's settings: defaults, then a TOML file, then the environment (VECDB_*), then flags; the last one wins."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from vecdb import InvalidArgument, NotFound
from vecdb.wire.addresses import UNIX, is_local, socket_path

_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "float": (float, int), "bool": (bool,)}
_MESSAGE_BYTES_MAX = (2 << 30) - 1  # gRPC counts them in an int
WORKERS_MAX = 128
_WORKERS_BY_CORES_MAX = 16  # each takes memory; who wants more says so
_POSITIVE = (
    "write_threads", "long_operations", "requests_max", "token_requests_max", "tenant_requests_max",
    "request_bytes_max", "tenant_request_bytes_max", "streams_max", "tenant_streams_max", "slow_messages_max",
    "tenant_slow_messages_max", "connections_max", "watches_max", "open_message_bytes_max", "small_message_bytes_max",
    "names_message_bytes_max", "message_bytes_max", "open_elements_max", "small_elements_max", "names_elements_max",
    "read_elements_max", "write_elements_max",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting. Units are the last word of each name."""

    path: str = "data"  # of the database; created where there is none
    listen: str = "127.0.0.1:7711"  # host:port, port 0 takes a free one; or unix:/path/of/socket
    tokens: str | None = None  # tokens file; without one everybody who reaches the port is an administrator
    tls_cert: str | None = None  # PEM; both are read again when they change
    tls_key: str | None = None
    tls_client_ca: str | None = None  # PEM of the authority that must have signed clients' certificates
    insecure: bool = False  # allow other addresses than loopback without TLS or tokens
    reflection: bool = False
    metrics: str | None = None  # host:port of the Prometheus page; beyond loopback it is served as `listen` is
    console: str | None = None  # host:port of a console beside the server, in a browser; see `vecdb console`
    console_write: bool = False  # with actions that change something, as far as a token may
    backups: str | None = None  # the folder that Backup writes into
    durability: str = "full"
    memory_budget_bytes: int | None = None  # memory of one collection's index
    workers: int = 0  # processes that answer reads, beside one that writes; 1: one process for all; 0: by the cores
    read_only: bool = False  # serve a directory that another process writes
    log: str | None = None  # the URL of a bucket into which every commit goes, for copies
    follow: str | None = None  # the URL of such a log: serve a copy, which `path` is made and kept
    staleness_s: float = 1.0  # of a copy: it answers only while it knew the end of the log so lately; 0: always
    lease: bool = False  # with a log: reads are refused while it is not known for staleness_s that nobody took over
    kernel_threads: int = 0  # threads for long searches, of each process; 0: one for each core; of a worker see README
    write_threads: int = 32  # how many writes may wait for one commit together
    long_operations: int = 2  # how many builds, backups and the like may run at once
    call_s_max: float = 600.0  # how long a search or a read may take under a token that is not admin
    requests_max: int = 1_024  # requests that the server holds at once
    admin_requests_kept: int = 64  # of these, for administrators alone; of the bytes and the streams the same share
    token_requests_max: int = 512  # of these, requests of one token
    tenant_requests_max: int = 256  # of these, requests of all tokens of one tenant
    request_bytes_max: int = 1 << 30  # of the messages of all held requests
    tenant_request_bytes_max: int = 256 << 20  # of these, those of one tenant, or of one token that has no tenant
    streams_max: int = 1_024  # streams, idle ones included; lists and long operations count too
    tenant_streams_max: int = 64  # of these, those of one tenant, or of one token that has no tenant
    stream_idle_s: float = 60.0  # a stream on which nothing was asked for so long is ended
    slow_reader_s: float = 60.0  # an answer of which nothing was read for so long is given up
    message_s: float = 60.0  # how long the one message of a call may take to come
    slow_messages_max: int = 16  # calls that wait longer than a moment for their message
    tenant_slow_messages_max: int = 8  # of these, those of one tenant, or of one token that has no tenant
    connections_max: int = 1_000  # at once; fewer where the limit of open files is low
    connection_idle_s: float = 600.0  # a connection without a call is closed after this
    watches_max: int = 1_000  # of health, at once; of the address that has the most the oldest gives way
    open_message_bytes_max: int = 1_024  # of rpcs that are open to all
    small_message_bytes_max: int = 1 << 16  # of rpcs whose requests are a few names and numbers
    names_message_bytes_max: int = 2 << 20  # of rpcs whose requests are names of tenants
    message_bytes_max: int = 64 << 20  # of all other rpcs; gRPC takes no longer message
    open_elements_max: int = 16  # elements: fields and entries of lists, of a message as it came, at any depth
    small_elements_max: int = 1_024
    names_elements_max: int = 16_384
    read_elements_max: int = 1 << 17  # of searches and of reads by id
    write_elements_max: int = 1 << 23
    grace_s: float = 30.0  # after SIGTERM, time for running calls to end
    log_level: str = "info"

    def shown(self) -> dict[str, Any]:
        """The settings, for the log; paths of secrets are hidden."""
        hidden = ("tokens", "tls_key")
        return {name: "(set)" if value and name in hidden else value for name, value in asdict(self).items()}

    @property
    def socket(self) -> str | None:
        """The path of the socket that it listens on; None where that is a port. Raises InvalidArgument."""
        return socket_path(self.listen) if self.listen.startswith(UNIX) else None

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.socket is not None or is_local(host_and_port(self.listen, "listen")[0])

    @property
    def metrics_local(self) -> bool:
        return self.metrics is None or is_local(host_and_port(self.metrics, "metrics")[0])


def load(flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ, file: Path | None = None) -> Config:
    """The settings, checked. flags : None means not given. Raises InvalidArgument; NotFound where there is no file."""
    return checked(read(flags, environment, file))


def read(flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ, file: Path | None = None) -> Config:
    """The settings as they are given: `load` without a look at whether they fit together."""
    known = {field.name: str(field.type) for field in fields(Config)}
    values = _from_file(file, known) if file is not None else {}
    for name, kind in known.items():
        text = environment.get(f"VECDB_{name.upper()}")
        if text is not None:
            values[name] = _parsed(text, kind, f"VECDB_{name.upper()}")
    values |= {name: value for name, value in flags.items() if value is not None}
    return replace(Config(), **values)


def _from_file(path: Path, known: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"no configuration at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path}: {error}") from None
    for name, value in found.items():
        if name not in known:
            raise InvalidArgument(f"{path}: there is no setting {name!r}; there are {', '.join(known)}")
        kind = known[name].removesuffix(" | None")
        if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool"):
            raise InvalidArgument(f"{path}: {name} must be a {kind}, got {value!r}")
    return found


def _parsed(text: str, kind: str, what: str) -> Any:
    if kind.endswith(" | None") and not text:
        return None
    kind = kind.removesuffix(" | None")
    try:
        if kind == "bool":
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}[
                text.lower()
            ]
        return {"str": str, "int": int, "float": float}[kind](text)
    except (ValueError, KeyError):
        raise InvalidArgument(f"{what} must be a {kind}, got {text!r}") from None


def checked(config: Config) -> Config:
    """The same settings. Raises InvalidArgument where they make no sense or are not safe."""
    for name in _POSITIVE:
        if getattr(config, name) < 1:
            raise InvalidArgument(f"{name} must be at least 1, got {getattr(config, name)}")
    for name in ("kernel_threads", "grace_s", "admin_requests_kept", "workers"):
        if getattr(config, name) < 0:
            raise InvalidArgument(f"{name} must not be negative, got {getattr(config, name)}")
    for name in ("call_s_max", "stream_idle_s", "slow_reader_s", "message_s", "connection_idle_s"):
        if not getattr(config, name) > 0:
            raise InvalidArgument(f"{name} must be above 0, got {getattr(config, name)}")
    if config.message_bytes_max > _MESSAGE_BYTES_MAX:
        raise InvalidArgument(f"message_bytes_max must be at most {_MESSAGE_BYTES_MAX:,}")
    if config.log_level not in ("debug", "info", "warning", "error"):
        raise InvalidArgument(f"log_level must be debug, info, warning or error, got {config.log_level!r}")
    if (config.tls_cert is None) != (config.tls_key is None):
        raise InvalidArgument("TLS needs both tls_cert and tls_key")
    if config.tls_client_ca is not None and config.tls_cert is None:
        raise InvalidArgument("tls_client_ca needs tls_cert and tls_key")
    if config.socket is not None and config.tls_client_ca is not None:
        raise InvalidArgument("a socket of this machine is without TLS: leave tls_client_ca out, or listen on a port")
    if config.read_only and config.path == ":memory:":
        raise InvalidArgument("':memory:' is always new, so read_only would serve nothing; leave it out")
    if config.follow is not None and (config.read_only or config.log is not None):
        raise InvalidArgument("follow is for a copy, which is only read and writes no log: leave read_only and log out")
    if config.log is not None and config.read_only:
        raise InvalidArgument("log is for the server that writes, read_only for one that does not: leave one out")
    if config.lease and config.log is None and config.follow is None:
        raise InvalidArgument("lease is for a server that writes a log, which another may take over: give log as well")
    if config.staleness_s < 0:
        raise InvalidArgument(f"staleness_s must not be negative, got {config.staleness_s}")
    if config.workers > 1:
        _check_workers(config)
    if not config.metrics_local and config.tls_cert is None and not config.insecure:
        raise InvalidArgument(
            f"metrics at {config.metrics} can be reached from elsewhere: give tls_cert and tls_key, or say --insecure"
        )
    _check_console(config)
    if not config.local and not config.insecure:
        if config.tls_cert is None:
            raise InvalidArgument(
                f"{config.listen} can be reached from elsewhere: give tls_cert and tls_key, or say --insecure"
            )
        if config.tokens is None:
            raise InvalidArgument(f"{config.listen} can be reached from elsewhere: give tokens, or say --insecure")
    return config


def _check_console(config: Config) -> None:
    if config.console is None:
        return
    host, _ = host_and_port(config.console, "console")
    if not is_local(host) and not config.insecure:
        raise InvalidArgument(
            f"console at {config.console} can be reached from elsewhere, and it is without TLS: use 127.0.0.1 behind a "
            "proxy with TLS or a tunnel of ssh, or say --insecure"
        )
    if config.tls_cert is not None and config.socket is None:
        raise InvalidArgument(
            "the console of a server with TLS is told whom to trust: leave console out, and start it with `vecdb "
            "console grpcs://HOST:PORT --sign-in --tls ca.pem`"
        )


def _check_workers(config: Config) -> None:
    if config.workers > WORKERS_MAX:
        raise InvalidArgument(f"workers must be from 0 to {WORKERS_MAX}, got {config.workers}")
    reason = _why_alone(config)
    if reason:
        raise InvalidArgument(f"workers must be 0 or 1 here, got {config.workers}: {reason}")


def _why_alone(config: Config) -> str:
    """Why this server can be one process only; empty where it may be several."""
    if config.path == ":memory:":
        return "a database in memory is of one process"
    if config.follow is not None:
        return "one process keeps a copy, and knows how old it is; start further copies for more readers"
    if config.socket is not None:
        return "workers share a port, and a socket cannot be shared; listen on host:port"
    if not sys.platform.startswith("linux"):
        return "only Linux spreads the connections of a port over processes"
    return ""


def workers_of(config: Config) -> int:
    """How many processes answer reads: as many as wanted, or by the cores, of which one is left for writing. 1: there
    is one process for all.
    """
    if config.workers or _why_alone(config):
        return config.workers or 1
    return max(1, min(_WORKERS_BY_CORES_MAX, cores() - 1))


def cores() -> int:
    """How many cores this process may use; where the system does not say, how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_and_port(address: str, what: str) -> tuple[str, int]:
    """("::1", 80) of "[::1]:80". Raises InvalidArgument."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not bare or not port.isdigit() or int(port) > 65_535:
        raise InvalidArgument(f"{what} must be host:port, an IPv6 host in brackets, got {address!r}")
    if ":" in bare and bare == host:
        raise InvalidArgument(f"{what}: an IPv6 host is written in brackets, [{bare}]:{port}, got {address!r}")
    return bare, int(port)
