"""`vecdb serve`: one process, or several that share the port."""

from __future__ import annotations

from vecdb_server.config import Config, workers_of


def serve(config: Config) -> None:
    """Run until SIGTERM or SIGINT. Raises what `Server.start` raises."""
    workers = workers_of(config)
    if workers == 1:
        from vecdb_server.app import serve_alone

        serve_alone(config)
    else:
        from vecdb_server.workers.supervisor import Supervisor

        Supervisor(config, workers).serve()
