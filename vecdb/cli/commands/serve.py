"""serve: a database for other processes and machines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vecdb.cli.options import has_database, refuse_foreign
from vecdb.errors import VecdbError


def _flag(text: str) -> Any:
    return typer.Option(help=text, show_default=False)


def serve(
    path: Annotated[str | None, _flag("Directory of the database; made where there is none. Default: data")] = None,
    listen: Annotated[
        str | None, _flag("host:port, port 0: a free one; or unix:/path. Default: 127.0.0.1:7711")
    ] = None,
    tokens: Annotated[str | None, _flag("Tokens file, see `vecdb token`; without one everybody may do all.")] = None,
    tls_cert: Annotated[str | None, _flag("Certificate, PEM. Read anew when it changes.")] = None,
    tls_key: Annotated[str | None, _flag("Its key, PEM.")] = None,
    tls_client_ca: Annotated[str | None, _flag("Clients must have a certificate of this authority, PEM.")] = None,
    insecure: Annotated[bool | None, _flag("Listen beyond loopback without TLS or tokens.")] = None,
    reflection: Annotated[bool | None, _flag("Let tools such as grpcurl ask what there is.")] = None,
    metrics: Annotated[str | None, _flag("host:port of Prometheus metrics; elsewhere with TLS or --insecure.")] = None,
    console: Annotated[
        str | None, _flag("host:port of a console beside it, for a browser; see `vecdb console`.")
    ] = None,
    console_write: Annotated[bool | None, _flag("The console with actions that change something.")] = None,
    backups: Annotated[str | None, _flag("Folder below which the Backup rpc writes.")] = None,
    durability: Annotated[str | None, _flag("full, relaxed, or with --log remote. Default: full")] = None,
    memory_budget_bytes: Annotated[int | None, _flag("Of what one collection's index keeps in memory.")] = None,
    workers: Annotated[
        int | None, _flag("Processes that read, beside one that writes; 1: one for all. Default: by cores")
    ] = None,
    read_only: Annotated[bool | None, _flag("Serve a directory that another process writes.")] = None,
    log: Annotated[str | None, _flag("Put every commit into this bucket, s3://bucket/prefix, for copies.")] = None,
    follow: Annotated[
        str | None, _flag("Make and keep --path a copy of the database of that log, and serve it.")
    ] = None,
    staleness_s: Annotated[
        float | None, _flag("How old a copy's knowledge of the log may be; 0: any age. Default: 1")
    ] = None,
    lease: Annotated[
        bool | None,
        _flag("With --log: refuse reads once it was not known for --staleness-s that no other server took over."),
    ] = None,
    kernel_threads: Annotated[
        int | None, _flag("For long searches. Default: one a core; of each worker 2 x cores / workers, at least 2")
    ] = None,
    requests_max: Annotated[int | None, _flag("Requests held at once. Default: 1024")] = None,
    grace_s: Annotated[float | None, _flag("Seconds that running requests get after SIGTERM. Default: 30")] = None,
    log_level: Annotated[str | None, _flag("debug, info, warning or error. Default: info")] = None,
    config: Annotated[Path | None, typer.Option(envvar="VECDB_CONFIG", help="TOML file with these settings.")] = None,
) -> None:
    """Serve a database over gRPC until SIGTERM.

    Every setting may come from the file, from the environment (VECDB_LISTEN, ...) or from its flag: the last one wins.
    """
    flags = {name: value for name, value in locals().items() if name != "config"}
    try:
        from vecdb_server.config import load
        from vecdb_server.logs import configure
        from vecdb_server.logs import log as served
        from vecdb_server.start import serve as run
    except ImportError as error:
        raise VecdbError(f"the server needs {error.name}: pip install 'vecdb-engine[server]'") from None
    try:
        settings = load(flags, file=config)
        if not has_database(str(settings.path)):  # a server that is started again is wanted at once
            refuse_foreign(str(settings.path))
        run(settings)
    except (VecdbError, OSError) as error:  # in the format of the log, for whoever collects it
        configure("info")
        served.error("not served", code=getattr(error, "code", "SYSTEM"), reason=str(error))
        raise typer.Exit(1) from None
