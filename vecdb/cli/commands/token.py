"""token create, list, revoke: the tokens that a server accepts."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from vecdb.cli.options import Json
from vecdb.cli.output import Output, table
from vecdb.errors import InvalidArgument

HELP = "Tokens of a server: create, list, revoke. A running server notices within a second."

TokensFile = Annotated[Path, typer.Option("--tokens", envvar="VECDB_TOKENS", help="The tokens file.")]
_default = Path("tokens.json")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def create(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    permission: Annotated[str, typer.Option(help="read, write or admin; each includes those before it.")] = "read",
    collection: Annotated[str, typer.Option("--collection", "-c", help="One collection, or * for all.")] = "*",
    tenant: Annotated[str | None, typer.Option(help="Only what this tenant may see; it owns what it writes.")] = None,
    share: Annotated[bool, typer.Option(help="The tenant may let others see its records.")] = False,
    rate: Annotated[float | None, typer.Option(help="Requests a second at most.")] = None,
    expires: Annotated[str | None, typer.Option(help="After how long it is void: 90s, 15m, 12h, 30d.")] = None,
    tokens: TokensFile = _default,
    json: Json = False,
) -> None:
    """Make a token, and print its secret, once."""
    from vecdb_server.security import tokens as file
    from vecdb_server.security.auth import Caller

    ends = None if expires is None else time.time() + _seconds(expires)
    begun = not tokens.exists()
    secret = file.create(tokens, Caller(name, permission, collection, tenant, share, rate, ends))

    def show(console: Any) -> None:
        console.print(secret, soft_wrap=True)

    out = Output(json)
    if begun and os.geteuid() == 0:
        out.note(
            f"{tokens} is new, and root alone may read it: for a server of another user, chown it, or chgrp it and "
            "chmod 640; later commands keep that"
        )
    out.note(f"{tokens} has the hash of this token only: keep what follows")
    out.emit({"name": name, "token": secret}, show)


def list_(tokens: TokensFile = _default, json: Json = False) -> None:
    """What tokens there are, and what they may do."""
    from vecdb_server.security.tokens import entries_of

    entries = [{name: value for name, value in one.items() if name != "sha256"} for one in entries_of(tokens)]
    columns = ("name", "permission", "collection", "tenant", "share", "rate", "expires")
    rows = [[_cell(name, one.get(name)) for name in columns] for one in entries]
    Output(json).emit(entries, lambda console: console.print(table(columns, rows)))


def revoke(
    name: Annotated[str, typer.Argument(help="The name it was made with.")],
    tokens: TokensFile = _default,
    json: Json = False,
) -> None:
    """Make a token void."""
    from vecdb_server.security import tokens as file

    file.revoke(tokens, name)
    Output(json).emit({"revoked": name}, lambda console: console.print(f"{name} is void"))


COMMANDS: dict[str, Any] = {"create": create, "list": list_, "revoke": revoke}


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise InvalidArgument(f"expires must be a number and s, m, h or d, like 30d, got {text!r}")
    return int(found[1]) * _SECONDS[found[2]]


def _cell(name: str, value: Any) -> Any:
    if name == "expires" and value is not None:
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="seconds")
    return value
