"""The output of a command: tables for people, one JSON document for programs, progress on a terminal only.

Results go to standard output; progress, notes and errors to standard error. With --json an error is
{"error": {"code": ..., "message": ...}} on standard output, so that a program reads one stream.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from vecdb.errors import VecdbError

Report = Callable[[int, int], None]
Command = TypeVar("Command", bound=Callable[..., Any])


class Output:
    """The output of one command. With `as_json` only the document is printed."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False)
        self.notes = Console(stderr=True, highlight=False, quiet=as_json)

    def document(self, value: Any) -> None:
        """Print the one JSON document of a --json run."""
        json.dump(value, sys.stdout, default=plain, ensure_ascii=False, indent=None if not sys.stdout.isatty() else 2)
        sys.stdout.write("\n")

    def emit(self, value: Any, show: Callable[[Console], None]) -> None:
        """The result of a command: `value` as JSON, or whatever `show` prints for people."""
        if self.as_json:
            self.document(value)
        else:
            show(self.console)

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.as_json:
            self.console.print(text)

    def note(self, text: str) -> None:
        """A line on standard error, beside the result."""
        self.notes.print(text)

    @contextmanager
    def progress(self, label: str, unit: str = "") -> Iterator[Report]:
        """A progress bar on a terminal, nothing elsewhere. Yields report(done, total)."""
        if self.as_json or not self.notes.is_terminal:
            yield lambda done, total: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.notes) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """A spinner on a terminal, for work that reports no progress."""
        if self.as_json or not self.notes.is_terminal:
            yield
            return
        with self.notes.status(label):
            yield


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> Table:
    """A table; columns of numbers are set flush right."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for at, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[at], int | float) or row[at] is None for row in rows)
        made.add_column(name, justify="right" if numeric else "left")
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def facts(values: Mapping[str, Any], title: str | None = None) -> Table:
    """A table of names and values."""
    made = Table(title=title, title_justify="left", show_header=False)
    for name, value in values.items():
        made.add_row(name, size(value) if name.startswith("bytes_") and isinstance(value, int) else cell(value))
    return made


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return escape(", ".join(f"{key} {cell(inner)}" for key, inner in value.items()))
    return escape(str(value))


def size(bytes_count: int) -> str:
    """A number of bytes in words, such as 1.5 MiB."""
    value = float(bytes_count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.2f} GiB"


def plain(value: Any) -> Any:
    """A JSON value for what json cannot write itself: arrays, numpy scalars, dataclasses, paths, times."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def print_error(code: str, message: str, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False) + "\n")
    else:
        Console(stderr=True, highlight=False).print(f"[red]error[/red] {escape(message)}", soft_wrap=True)


def reports_errors(command: Command) -> Command:
    """Turn vecdb's errors and the system's into a message and exit code 1, an interruption into 130."""

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        as_json = bool(options.get("json", False))
        try:
            return command(*args, **options)
        except VecdbError as error:
            print_error(error.code, str(error), as_json=as_json)
        except OSError as error:
            print_error(
                "SYSTEM", f"{error.filename}: {error.strerror}" if error.filename else str(error), as_json=as_json
            )
        except KeyboardInterrupt:
            print_error("INTERRUPTED", "interrupted; what was acknowledged is kept", as_json=as_json)
            raise typer.Exit(130) from None
        raise typer.Exit(1)

    return cast(Command, wrapped)
