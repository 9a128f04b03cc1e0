"""`vecdb serve`: one process, or several that share the port; and a console beside it, where one is asked for."""

from __future__ import annotations

from vecdb_server.config import Config, workers_of


def serve(config: Config) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP. Raises what `Server.start` raises; Unavailable where a console lacks a
    library.
    """
    from vecdb_server.workers.console import ConsoleProcess

    workers, console = workers_of(config), ConsoleProcess(config)
    try:
        if workers == 1:
            from vecdb_server.app import serve_alone

            serve_alone(config, console.start)
        else:
            from vecdb_server.workers.supervisor import Supervisor

            Supervisor(config, workers, console.start).serve()
    finally:
        console.end()
