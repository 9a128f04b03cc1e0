"""The `vecdb` command.

    main ---- build ---- app.py       the typer application: every command registered, none imported twice
                         options.py    options that commands share
                         output.py     tables, progress and errors, or one JSON document with --json
                         query_commands.py       info ls search tune check     what is there, and what is near this?
                         import_export.py       import export                 files in and out
                         maintenance_commands.py       warmup backup restore vacuum upgrade  keeping it well
                         dataset_commands.py       dataset list|info|export
                         bench_commands.py      bench run|ingest|interference|disk|tenants|serve|coldstart
                         demo_command.py       demo
                         serve_command.py      serve                       token_commands.py  token create|list|revoke

Exit codes: 0 done; 1 an error, or problems found by `check`; 2 wrong usage; 130 interrupted.
Threads: one; what a command calls uses its own.
"""

from __future__ import annotations

import os
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
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # of every handshake that fails it would write lines of its own
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        sys.exit(f"the vecdb command needs {error.name}: pip install 'vecdb-engine[cli]'")
    if "--json" in sys.argv[1:]:
        sys.exit(_run_for_machines(build()))
    build()(prog_name="vecdb")


def _run_for_machines(application: Any) -> int:
    """Like running the application, but wrong usage is reported as JSON too."""
    import typer.main

    from .output import print_error

    try:
        result = typer.main.get_command(application).main(prog_name="vecdb", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except Exception as error:
        if not hasattr(error, "format_message"):  # not a usage error: a defect, whose traceback is wanted
            raise
        print_error("USAGE", error.format_message(), as_json=True)
        return int(getattr(error, "exit_code", 2))
