"""The output of a command: tables for people, one JSON document for programs, progress on a terminal only.

Results go to standard output; progress, notes and errors to standard error. With --json an error is
{"error": {"code": ..., "message": ...}} on standard output, so that a program reads one stream. Text is printed as it
is, brackets included, but for control characters, which are shown (visible.py). Where the output is no terminal lines
are as long as they are, so that ids are whole.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from vecdb.cli.visible import visible, visible_json
from vecdb.cli.wording import for_the_command_line
from vecdb.errors import VecdbError
from vecdb.filters.lexer import FILTER_ERROR

Report = Callable[[int, int], None]
Command = TypeVar("Command", bound=Callable[..., Any])


unbroken_width = 1_000_000  # characters of a line where nobody's window ends it


class PlainConsole(Console):
    """A console that prints strings as they are: no markup, controls shown, no line broken but by a window."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        if not self.is_terminal:
            self.width = unbroken_width

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(visible(one, lines=True) if isinstance(one, str) else one for one in objects), **options)


class Output:
    """The output of one command. With `as_json` only the document is printed."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = PlainConsole()
        self.notes = PlainConsole(stderr=True, quiet=as_json)

    def document(self, value: Any) -> None:
        """Print the one JSON document of a --json run."""
        sys.stdout.write(as_document(value, indent=2 if sys.stdout.isatty() else None) + "\n")

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
    """A table; columns of numbers are set flush right. A cell that is too wide for the window goes on below."""
    made = Table(title=None if title is None else Text(visible(title)), title_justify="left", header_style="bold")
    for at, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[at], int | float) or row[at] is None for row in rows)
        made.add_column(Text(visible(name)), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell(value)) for value in row))
    return made


def facts(values: Mapping[str, Any], title: str | None = None) -> Table:
    """A table of names and values."""
    made = Table(title=None if title is None else Text(visible(title)), title_justify="left", show_header=False)
    made.add_column(overflow="fold")
    made.add_column(overflow="fold")
    for name, value in values.items():
        text = size(value) if name.startswith("bytes_") and isinstance(value, int) else cell(value)
        made.add_row(Text(visible(name)), Text(text))
    return made


def cell(value: Any) -> str:
    """A value for a table, without controls."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "0" if value == 0 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return visible(", ".join(f"{key} {cell(inner)}" for key, inner in value.items()))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(cell, value))}]"
    return visible(str(value))


def as_document(value: Any, indent: int | None = None) -> str:
    """A value as a JSON document without controls."""
    return visible_json(json.dumps(value, default=plain, ensure_ascii=False, indent=indent))


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
    message = for_the_command_line(message)
    if as_json:
        sys.stdout.write(as_document({"error": {"code": code, "message": message}}) + "\n")
    else:
        shown = visible(message, lines=message.startswith(FILTER_ERROR))  # which shows the filter and a caret under it
        PlainConsole(stderr=True).print(Text.assemble(("error", "red"), " ", shown), soft_wrap=True)


def reports_errors(command: Command) -> Command:
    """Turn vecdb's errors and the system's into a message and exit code 1, an interruption into 130.

    Anything else is a defect of ours: one line or one document too, exit code 70, and where it was if VECDB_TRACEBACK
    is set.
    """

    @functools.wraps(command)
    def wrapped(*args: Any, **options: Any) -> Any:
        as_json = bool(options.get("json", False))
        try:
            found = command(*args, **options)
            sys.stdout.flush()
            return found
        except VecdbError as error:
            print_error(error.code, str(error), as_json=as_json)
        except BrokenPipeError:
            _leave_broken_pipe()
        except OSError as error:
            _report_system_error(error, as_json)
        except KeyboardInterrupt as error:
            by_signal = error.signal if isinstance(error, Terminated) else 0
            word, code = ("ended by a signal", 128 + by_signal) if by_signal else ("interrupted", 130)
            print_error("INTERRUPTED", f"{word}; what was acknowledged is kept", as_json=as_json)
            raise typer.Exit(code) from None
        except Exception as error:
            if isinstance(error, typer.Exit | typer.Abort) or hasattr(error, "format_message"):  # of typer itself
                raise
            if os.environ.get("VECDB_TRACEBACK"):
                traceback.print_exc()
            what = f"a defect of vecdb, {type(error).__name__}: {error}; set VECDB_TRACEBACK=1 to see where"
            print_error("INTERNAL", what.replace("\n", " "), as_json=as_json)
            raise typer.Exit(70) from None
        raise typer.Exit(1)

    return cast(Command, wrapped)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the command ends as if it were interrupted, and cleans up."""

    def __init__(self, signal: int) -> None:
        super().__init__()
        self.signal = signal


def _report_system_error(error: OSError, as_json: bool) -> None:
    """An error of the system; where standard output is what failed, on standard error."""
    name = re.sub(r"\.(part-[0-9]+(-[0-9]+)?|tmp)$", "", str(error.filename or ""))  # what the user named
    text = f"{name}: {error.strerror}" if name else error.strerror or str(error)
    try:
        print_error("SYSTEM", text, as_json=as_json)
        sys.stdout.flush()
    except OSError:
        _drop_stdout()
        sys.stderr.write(f"error standard output: {text}\n")


def _leave_broken_pipe() -> None:
    """Whoever read the output has enough of it: end without a word."""
    _drop_stdout()
    raise typer.Exit(1)


def _drop_stdout() -> None:
    """Let what waits for standard output go nowhere, so that the end of the process does not try it again."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
