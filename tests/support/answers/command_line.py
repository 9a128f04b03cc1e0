"""Commands of `vecdb` run in the process of the test, as typer.testing does it."""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest import mock

import typer.main
from typer import testing

from vecdb.cli import build


@cache
def vecdb_command() -> Any:
    """`vecdb` with every command, made of their signatures: 85 ms, longer than most of them run."""
    return typer.main.get_command(build())


class CommandRunner(testing.CliRunner):
    """Has its commands made once a process."""

    def run(self, words: Any, **options: Any) -> testing.Result:
        """Run `vecdb` with these words. options : of typer's `invoke`."""
        made = {"_get_command": lambda app: vecdb_command()}  # where typer has it no longer, it only takes longer
        with mock.patch.multiple(testing, create=True, **made):
            return self.invoke(build(), words, **options)
