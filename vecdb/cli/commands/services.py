"""mcp and console: a collection as tools of a model, a database in a browser."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

import vecdb
from vecdb.cli.options import CollectionName, Database, Tls, Token, default_db, opened
from vecdb.errors import InvalidArgument, VecdbError
from vecdb.wire.addresses import is_server

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def mcp(
    collection: CollectionName,
    db: Database = default_db,
    tenant: Annotated[str | None, typer.Option(help="All that the tools see and write is this tenant's.")] = None,
    write: Annotated[bool, typer.Option("--write", help="With the tools remember and forget.")] = False,
    embed: Annotated[
        str | None, typer.Option(help="A model that reads texts, module:name, looked for in this folder first.")
    ] = None,
    http: Annotated[
        str | None, typer.Option(help="host:port of streamable HTTP, port 0: a free one. Default: stdio")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="HTTP beyond this machine: everybody may ask.")] = False,
    token: Token = None,
    tls: Tls = None,
) -> None:
    """Serve a collection to models by the Model Context Protocol: search, get, browse, count, facets."""
    try:
        from vecdb.integrations.mcp_server import serve_http, server_of
        from vecdb.integrations.shared import bound_collection, embedder_named
    except ImportError as error:
        raise VecdbError(f"mcp needs {error.name}: pip install 'vecdb-engine[mcp]'") from None
    host, port = _address(http, insecure)
    model = None if embed is None else embedder_named(embed)
    with opened(db, token, tls, read_only=not write, make=write) as database:
        docs = bound_collection(database, collection, embed=model, make=write)
        server = server_of(docs, tenant=tenant, write=write)
        if http is None:
            server.run("stdio")
        else:
            serve_http(server, host, port, lambda address: print(address, file=sys.stderr, flush=True))


def _address(http: str | None, insecure: bool) -> tuple[str, int]:
    if http is None:
        return "", 0
    host, colon, port = http.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidArgument(f"--http wants host:port, such as 127.0.0.1:8000, got {http!r}")
    if host not in _LOOPBACK and not insecure:
        raise InvalidArgument(
            f"{host} is reached from other machines, and HTTP here knows no tokens: listen on 127.0.0.1 behind a proxy "
            "that does, or say --insecure"
        )
    return host, int(port)


def console(
    path: Annotated[
        str,
        typer.Argument(
            envvar="VECDB_DB",
            metavar="PATH_OR_URL",
            help="Directory of the database, or a server's grpc://host:port.",
        ),
    ] = default_db,
    db: Annotated[str | None, typer.Option("--db", help="The same, as other commands take it.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: a free one.")] = 7713,
    write: Annotated[
        bool, typer.Option("--write", help="With actions: optimize, tune, vacuum, delete, tenants and grants.")
    ] = False,
    tenant: Annotated[str | None, typer.Option(help="All that is shown is what this tenant may see.")] = None,
    embed: Annotated[
        str | None,
        typer.Option(help="A model for search by text, module:name, looked for in this folder first."),
    ] = None,
    sign_in: Annotated[
        bool, typer.Option("--sign-in", help="Of a server: everybody enters a token of it, and sees what that reaches.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine: token and records go in plain text.")
    ] = False,
    until_stdin_ends: Annotated[
        bool, typer.Option("--until-stdin-ends", help="End with standard input, as beside `vecdb serve --console`.")
    ] = False,
    token: Token = None,
    tls: Tls = None,
) -> None:
    """Show a database in a browser: collections, records, searches, tenants, recall, a map. Reads only, unless told."""
    try:
        from vecdb.integrations.console.entries import SignIn
        from vecdb.integrations.console.serving import end_with_stdin, serve_console, serve_sign_in
        from vecdb.integrations.console.view import View
        from vecdb.integrations.shared import embedder_named
    except ImportError as error:
        raise VecdbError(f"console needs {error.name}: pip install 'vecdb-engine[console]'") from None
    if host.strip("[]") not in _LOOPBACK and not insecure:
        raise InvalidArgument(
            f"{host} is reached from other machines, and the console speaks plain HTTP: listen on 127.0.0.1 behind a "
            "proxy with TLS or a tunnel of ssh, or say --insecure"
        )
    if until_stdin_ends:
        end_with_stdin()
    model = None if embed is None else embedder_named(embed)
    say = partial(print, flush=True)
    where, host = db or path, host.strip("[]")
    if sign_in:
        if not is_server(where) or tenant is not None:
            raise InvalidArgument("--sign-in is of a server's grpc:// address, without --tenant: tokens say whose")
        entry = SignIn(lambda given: vecdb.open(where, token=given, tls=tls), write=write, embed=model)
        return serve_sign_in(entry, host, port, say)
    with opened(where, token, tls, read_only=not write) as database:
        view = View.of(database, tenant=tenant, write=write, embed=model)
        serve_console(view, host, port, say)
