"""--token-file: a server's token from a file. Every command that has --token has it, and so needs no word about it.

A token on the command line can be read by every user of the machine, in the list of processes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand

_KEY = "vecdb.token_file"
_BYTES_MAX = 4_096


class Command(TyperCommand):
    """A command whose option --token, if it has one, has --token-file beside it."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = super().get_params(ctx)
        at = next((i for i, one in enumerate(params) if one.name == "token" and "--token" in one.opts), None)
        return params if at is None else [*params[: at + 1], _option(), *params[at + 1 :]]


@functools.cache
def _option() -> Any:
    """The option, as typer makes it of a function's parameter."""
    made = typer.Typer(add_completion=False)
    made.command()(_with_token_file)
    return next(one for one in typer.main.get_command(made).params if one.name == "token_file")


def _read(ctx: typer.Context, path: str | None) -> None:
    if path is None:
        return
    try:
        raw = _first_line(path)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}") from None
    try:
        token = raw.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        raise typer.BadParameter(f"the first line of {path} is no token")
    ctx.meta[_KEY] = token


def _with_token_file(
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file",
            envvar="VECDB_TOKEN_FILE",
            show_envvar=True,
            metavar="PATH",
            expose_value=False,
            is_eager=True,  # before --token
            callback=_read,
            help="A file whose first line is the token; - reads it from standard input.",
        ),
    ] = None,
) -> None:
    """What typer makes the option of."""


def _first_line(path: str) -> bytes:
    if path == "-":
        return typer.get_binary_stream("stdin").readline(_BYTES_MAX)
    with Path(path).open("rb") as file:
        return file.readline(_BYTES_MAX)


def token_or_file(ctx: typer.Context, token: str | None) -> str | None:
    """What --token says; where a file was given, the file's. Both are wrong usage; a file wins over VECDB_TOKEN."""
    from_file: str | None = ctx.meta.get(_KEY)
    if from_file is None:
        return token
    source = ctx.get_parameter_source("token")
    if token is not None and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("give one of --token and --token-file")
    return from_file
