"""Commands of `vecdb` run in the process of the test, as typer.testing does it."""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest import mock

import typer.main
from typer import testing

from vecdb.cli import build


@cache
def _command() -> Any:
    return typer.main.get_command(build())


class CommandRunner(testing.CliRunner):
    """Makes its commands of their signatures once a process: that takes longer than most of them run."""

    def run(self, words: Any, **options: Any) -> testing.Result:
        """Run `vecdb` with these words. options : of typer's `invoke`."""
        with mock.patch.object(testing, "_get_command", lambda app: _command()):
            return self.invoke(build(), words, **options)
