"""cluster up, down, status, join, promote: the servers of a cluster."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

import vecdb
from vecdb.cli.options import Json, Tls, Token
from vecdb.cli.output import Output, table
from vecdb.cluster.placement import Placement, bucket_url, cluster_bucket
from vecdb.errors import InvalidArgument, Unavailable, VecdbError
from vecdb.replication.bucket import is_url
from vecdb.shards import notes
from vecdb.wire.addresses import is_cluster

Cluster = Annotated[
    str, typer.Argument(help="cluster:///folder, cluster://s3/bucket/prefix and the like.", metavar="CLUSTER")
]
Ray = Annotated[
    str | None, typer.Option("--ray", help="Address of a Ray cluster, or auto; without it one of this process.")
]
Takeover = Annotated[
    float, typer.Option("--takeover-s", min=0.0, help="A writer gone so long is replaced by a copy; 0: never.")
]
Config = Annotated[Path | None, typer.Option(help="TOML file with settings of `vecdb serve`, for every server.")]
Durability = Annotated[
    str, typer.Option(help="Of the writers: full, or remote: what is acknowledged is in the bucket.")
]
_WATCH_S = 1.0  # between two looks at servers that run


def up(
    shards: Annotated[int | None, typer.Option(min=1, help="Of a new cluster.")] = None,
    copies: Annotated[
        int | None,
        typer.Option(min=0, help="Of each shard, beside its writer. Default: as it had, 1 of a new cluster."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="s3://bucket/prefix, gs://, az:// or file:///folder. Default: in --folder")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where each machine keeps its servers' directories.")] = Path("cluster"),
    ray: Ray = None,
    cpus: Annotated[float, typer.Option(min=0.0, help="That Ray sets aside for each server.")] = 0.0,
    durability: Durability = "full",
    workers: Annotated[int, typer.Option(min=0, help="Processes of each writer that read; 0: by the cores.")] = 1,
    takeover_s: Takeover = 5.0,
    config: Config = None,
    secure: Annotated[
        bool, typer.Option("--secure", help="Addresses are grpcs://: --config names a certificate.")
    ] = False,
    wait_s: Annotated[float, typer.Option(min=1.0, help="For all servers to answer.")] = 600.0,
    tls: Tls = None,
) -> None:
    """Start a cluster's servers over Ray, and see to it that they run; without --ray until Ctrl-C or `cluster down`."""
    from vecdb.ray import servers
    from vecdb.ray.session import RayOptions, check_room, session
    from vecdb.shards.servers.member import MemberSettings

    url = cluster_of(store, folder)
    first = MemberSettings(
        url, 0, "", takeover_s=takeover_s or None, options=_options(config),
        writer_options=("--workers", str(workers), "--durability", durability), tls=tls,
        secure=secure,
    )  # fmt: skip
    settings = servers.UpSettings(url, shards, copies, str(folder.absolute()), first, ray is None, cpus)
    out = Output(False)
    with session(RayOptions(ray, niceness=0)) as found:  # servers are not to wait for all else
        run, settings = servers.prepare(settings)
        _note_reshaping(url, out)
        check_room(found, len(Placement.read(cluster_bucket(url)).shards) * (1 + (settings.copies or 0)), cpus)
        if ray is None:
            _stay_up(servers.Supervisor(settings), run, url, wait_s, out)
            return
        name = f"{servers.name_of(url)}-supervisor"
        actor = found.remote(servers.SupervisorActor).options(
            name=name, lifetime="detached", max_restarts=-1, num_cpus=0
        )
        _wait_up(_RemoteSupervisor(found, actor.remote(settings, run)), url, wait_s, out, _watch(out))


def _note_reshaping(url: str, out: Output) -> None:
    job = reshaping_of(url)
    if job is not None:
        out.note(
            f"reshaping to {len(job['to'])} shards was begun and is not done ({job['step']}): `vecdb cluster reshape` "
            "with that number goes on, --abandon gives it up"
        )


def reshaping_of(url: str) -> dict[str, Any] | None:
    """What is under way: {"from", "to", "step"}."""
    from vecdb.shards.reshaping.job import ReshapeState, Step

    state = ReshapeState.read(cluster_bucket(url))
    if state is None:
        return None
    return {"from": list(state.job.old), "to": list(state.job.new), "step": Step(state.job.step).name.lower()}


class _RemoteSupervisor:
    """A supervisor that is an actor, asked as if it were here."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def facts(self) -> Any:
        return self._ray.get(self._actor.facts.remote())

    def whole(self) -> Any:
        return self._ray.get(self._actor.whole.remote())


def _stay_up(supervisor: Any, run: str, url: str, wait_s: float, out: Output) -> None:
    from vecdb.ray import servers

    stop, watch = threading.Event(), _watch(out)
    thread = threading.Thread(target=servers.supervise, args=(supervisor, run, stop), name="vecdb-supervisor")
    try:
        supervisor.step()
        thread.start()
        _wait_up(supervisor, url, wait_s, out, watch)
        while thread.is_alive():
            thread.join(_WATCH_S)
            if thread.is_alive():
                watch(supervisor.facts())
        out.note("the servers have ended")
    finally:
        stop.set()
        if thread.ident is None:
            supervisor.stop()
        else:
            thread.join()
        servers.end(url)


def _watch(out: Output) -> Callable[[Any], None]:
    """A function of servers' facts that says what is new of them."""
    from vecdb.shards.servers.news import ServerNews

    news = ServerNews()

    def watch(facts: Any) -> None:
        for sentence in news.of(facts):
            out.note(sentence)

    return watch


def _wait_up(supervisor: Any, url: str, wait_s: float, out: Output, watch: Callable[[Any], None]) -> None:
    from vecdb.ray import servers

    began = time.monotonic()
    with out.progress("starting servers") as report:
        servers.wait_whole(supervisor, wait_s, report, watch)
    out.note(f"{len(supervisor.facts())} servers answer after {time.monotonic() - began:.1f} s")
    print(url, flush=True)  # for whoever waits for it


def down(cluster: Cluster, json: Json = False) -> None:
    """End the servers that `cluster up` has started; what they hold stays."""
    from vecdb.ray import servers

    out = Output(json)
    with out.waiting("ending servers"):
        left = servers.end(cluster)
    if left:
        raise Unavailable(
            f"nobody ends these servers, they were not started by `vecdb cluster up` or it has died: {', '.join(left)}"
        )
    out.emit({"cluster": cluster, "ended": True}, lambda console: console.print(f"the servers of {cluster} have ended"))


def status(cluster: Cluster, token: Token = None, tls: Tls = None, json: Json = False) -> None:
    """Shards, their servers, who answers, and the newest commit of each."""
    bucket = cluster_bucket(cluster)
    placement = Placement.read(bucket)
    where = {one.address: one for one in notes.servers(bucket)}
    columns = ["shard", "slots", "role", "address", "answers", "sequence", "records", "host", "path"]
    rows: list[list[Any]] = []
    for number, shard in placement.shards.items():
        slots = int((placement.table == number).sum())
        for address in shard.servers or ("-",):
            noted = where.get(address)
            role = "writer" if address == shard.writer else "copy" if address != "-" else "-"
            told = _asked(address, token, tls) if address != "-" else [False, None, None]
            rows.append([number, slots, role, address, *told, *((noted.host, noted.path) if noted else ("-", "-"))])
    document = {
        "cluster": cluster, "epoch": placement.epoch, "servers": [dict(zip(columns, row, strict=True)) for row in rows],
        "reshaping": reshaping_of(cluster),
    }  # fmt: skip
    out = Output(json)
    out.emit(document, lambda console: console.print(table(columns, rows)))
    if not json:
        _note_reshaping(cluster, out)


def _asked(address: str, token: str | None, tls: str | None) -> list[Any]:
    """[whether a server answers, its newest commit, how many records it has]; None for what it does not tell."""
    from vecdb.shards.servers.directories import reachable

    try:
        with vecdb.open(address, token=token, tls=tls, timeout=2.0) as db:
            records = sum(len(db.collection(name)) for name in db.collections())
            return [True, db.sequence(), records]
    except VecdbError:
        return [reachable(address, tls, 2.0), None, None]


def join(
    cluster: Cluster,
    shard: Annotated[int, typer.Option(min=0, help="Of which shard it is to be a server.")],
    path: Annotated[Path, typer.Option(help="The server's directory; made where there is none.")],
    listen: Annotated[str, typer.Option(help="host:port; port 0: a free one, which it keeps.")] = "127.0.0.1:0",
    address: Annotated[
        str | None, typer.Option(help="grpc://host:port under which others reach it. Default: as it listens")
    ] = None,
    shards: Annotated[
        int | None, typer.Option(min=1, help="Make the cluster with so many where there is none.")
    ] = None,
    durability: Durability = "full",
    workers: Annotated[int, typer.Option(min=0, help="Processes of a writer that read; 0: by the cores.")] = 0,
    takeover_s: Takeover = 5.0,
    config: Config = None,
    grace_s: Annotated[float, typer.Option(min=0.0, help="For the server to end.")] = 30.0,
    tls: Tls = None,
) -> None:
    """Run one server of a cluster until SIGTERM: the writer or a copy of its shard, as the placement says. For systemd
    and Kubernetes; settings of `vecdb serve` come from --config and VECDB_*.
    """
    from vecdb.shards.servers.member import Member, MemberSettings

    settings = MemberSettings(
        cluster, shard, str(path), listen, address, takeover_s or None, options=_options(config),
        writer_options=("--workers", str(workers), "--durability", durability), tls=tls, grace_s=grace_s,
    )  # fmt: skip
    if shards is not None:
        with suppress(vecdb.AlreadyExists):
            Placement.even(shards).create(cluster_bucket(cluster, conditional=True))
    member = Member(settings)
    _stop_at_signals(member.stop)
    member.run()


def promote(
    cluster: Cluster,
    shard: Annotated[int, typer.Option(min=0)],
    to: Annotated[str, typer.Option(help="Address of the copy that is to write, as `cluster status` shows it.")],
    json: Json = False,
) -> None:
    """Let a copy write its shard; the writer before is refused from then on, and becomes a copy if it runs."""
    bucket = cluster_bucket(cluster, conditional=True)

    def change(placement: Placement) -> Placement:
        known = placement.shards.get(shard)
        if known is None or to not in known.servers:
            raise InvalidArgument(f"{to} is no server of shard {shard}: {known and ', '.join(known.servers)}")
        return placement.with_writer(shard, to)

    made = Placement.change(bucket, change)
    Output(json).emit(
        {"shard": shard, "writer": to, "epoch": made.epoch}, lambda console: console.print(f"{to} writes shard {shard}")
    )


def cluster_of(store: str | None, folder: Path) -> str:
    """The cluster's address. store : of a bucket, or the cluster's own; None: a folder in `folder`."""
    if store is None:
        return f"cluster://{folder.absolute() / 'bucket'}"
    if is_cluster(store):
        bucket_url(store)
        return store
    if not is_url(store):
        raise InvalidArgument(f"--store must be s3://bucket/prefix, gs://, az:// or file:///folder, got {store!r}")
    scheme, _, rest = store.partition("://")
    made = f"cluster://{'' if scheme == 'file' else scheme + '/'}{rest}"
    bucket_url(made)
    return made


def _options(config: Path | None) -> tuple[str, ...]:
    return () if config is None else ("--config", os.fspath(config.absolute()))


def _stop_at_signals(stop: Callable[[], None]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop())
