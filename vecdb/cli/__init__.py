"""The `vecdb` command.

    main ---- build ---- app.py       the typer application, which registers every command
                         options.py   options that commands share
                         token_file.py  --token-file, beside every --token
                         output.py    tables, progress and errors, or one JSON document with --json
                         visible.py   control characters of records, shown and not sent
                         wording.py   options in place of the arguments that messages of Python functions name
                         cluster/     cluster up, down, status, join, promote, build, search, evaluate, reshape, plan
                         imports/     what `import` is made of
                         commands/
                             query.py          info, ls, search, fields, facets, check, tune
                             import_export.py  import, export
                             maintenance.py    warmup, backup, backups, restore, vacuum, upgrade
                             names.py          rename, and alias list, set, drop
                             tenant.py         tenant list, info, create, drop, grant, revoke
                             dataset.py        dataset list, info, get, export
                             bench.py          bench run, ingest, interference, threads, disk, tenants, filters,
                                               serve, cluster, mixture, coldstart, compare, plot
                             demo.py           demo
                             serve.py          serve
                             services.py       mcp, console
                             token.py          token create, list, revoke
                         disk_speed.py  random reads a second of a disk, for `bench disk`

Exit codes: 0 done; 1 an error, or problems found by `check`; 2 wrong usage; 70 a defect; 130 interrupted; 143 and 129
ended by SIGTERM and SIGHUP.
Threads: one; what a command calls may use others.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer


def build() -> typer.Typer:
    """The application, with every command."""
    from vecdb.cli.app import application

    return application()


def main() -> None:
    """Entry point of the `vecdb` command."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # otherwise gRPC writes lines for each handshake that fails
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        sys.exit(f"the vecdb command needs {error.name}: pip install 'vecdb-engine[cli]'")
    _prepare_process()
    if "--json" in sys.argv[1:]:
        sys.exit(_run_for_machines(build()))
    build()(prog_name="vecdb")


def _prepare_process() -> None:
    """Let text be written that the terminal's encoding lacks, and let a command that is told to end clean up."""
    from vecdb.cli.output import Terminated

    if sys.stdout is None:  # closed by whoever started this
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def end(number: int, frame: Any) -> None:
        raise Terminated(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # not ignored, as nohup does
            signal.signal(number, end)


def _run_for_machines(application: Any) -> int:
    """Runs the application; wrong usage is reported as JSON, too."""
    import typer.main

    from vecdb.cli.output import print_error

    try:
        result = typer.main.get_command(application).main(prog_name="vecdb", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except Exception as error:
        if not hasattr(error, "format_message"):  # not a usage error but a defect: show its traceback
            raise
        print_error("USAGE", error.format_message(), as_json=True)
        return int(getattr(error, "exit_code", 2))
