"""The typer application: which commands there are, and in which order help shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

import vecdb
from vecdb.cli import (
    bench_commands,
    dataset_commands,
    demo_command,
    import_export,
    maintenance_commands,
    query_commands,
    serve_command,
    tenant_commands,
    token_commands,
)

from .output import reports_errors


def application() -> typer.Typer:
    """A fresh application with every command."""
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
        ("demo", demo_command.demo),
        ("serve", serve_command.serve),
        ("info", query_commands.info),
        ("ls", query_commands.ls),
        ("search", query_commands.search),
        ("import", import_export.import_),
        ("export", import_export.export),
        ("check", query_commands.check),
        ("tune", query_commands.tune),
        ("warmup", maintenance_commands.warmup),
        ("backup", maintenance_commands.backup),
        ("restore", maintenance_commands.restore),
        ("vacuum", maintenance_commands.vacuum),
        ("upgrade", maintenance_commands.upgrade),
    ]
    for name, command in commands:
        app.command(name)(reports_errors(command))
    families: list[tuple[str, str, dict[str, Callable[..., Any]]]] = [
        ("tenant", tenant_commands.HELP, tenant_commands.COMMANDS),
        ("dataset", dataset_commands.HELP, dataset_commands.COMMANDS),
        ("token", token_commands.HELP, token_commands.COMMANDS),
        ("bench", bench_commands.HELP, bench_commands.COMMANDS),
    ]
    for name, text, family in families:
        group = typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)
        for inner, command in family.items():
            group.command(inner)(reports_errors(command))
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
