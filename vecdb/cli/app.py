"""The typer application: which commands there are, and in which order help shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

import vecdb
from vecdb.cli import cluster
from vecdb.cli.commands import (
    bench,
    dataset,
    demo,
    import_export,
    maintenance,
    names,
    query,
    serve,
    services,
    tenant,
    token,
)
from vecdb.cli.output import reports_errors
from vecdb.cli.token_file import Command


def application() -> typer.Typer:
    """A new application with every command."""
    app = typer.Typer(
        name="vecdb",
        help="An embedded vector database: durable, exact when asked, fast by default.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(options)
    commands: list[tuple[str, Callable[..., Any]]] = [
        ("demo", demo.demo),
        ("serve", serve.serve),
        ("console", services.console),
        ("mcp", services.mcp),
        ("info", query.info),
        ("ls", query.ls),
        ("search", query.search),
        ("fields", query.fields),
        ("facets", query.facets),
        ("import", import_export.import_),
        ("export", import_export.export),
        ("check", query.check),
        ("tune", query.tune),
        ("warmup", maintenance.warmup),
        ("backup", maintenance.backup),
        ("backups", maintenance.backups),
        ("restore", maintenance.restore),
        ("vacuum", maintenance.vacuum),
        ("promote", maintenance.promote),
        ("upgrade", maintenance.upgrade),
        ("rename", names.rename),
    ]
    for name, command in commands:
        app.command(name, cls=Command)(reports_errors(command))
    families: list[tuple[str, str, dict[str, Callable[..., Any]]]] = [
        ("alias", names.HELP, names.COMMANDS),
        ("tenant", tenant.HELP, tenant.COMMANDS),
        ("dataset", dataset.HELP, dataset.COMMANDS),
        ("token", token.HELP, token.COMMANDS),
        ("cluster", cluster.HELP, cluster.COMMANDS),
        ("bench", bench.HELP, bench.COMMANDS),
    ]
    for name, text, family in families:
        group = typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)
        for inner, command in family.items():
            group.command(inner, cls=Command)(reports_errors(command))
        app.add_typer(group, name=name)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vecdb {vecdb.__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""
