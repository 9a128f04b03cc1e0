"""The commands `vecdb cluster ...`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vecdb.cli.cluster import jobs, planning, servers

HELP = "Several servers as one database: start them, look at them, build, search, reshape, plan."
COMMANDS: dict[str, Callable[..., Any]] = {
    "up": servers.up,
    "down": servers.down,
    "status": servers.status,
    "join": servers.join,
    "promote": servers.promote,
    "build": jobs.build,
    "search": jobs.search,
    "evaluate": jobs.evaluate,
    "reshape": jobs.reshape,
    "plan": planning.plan,
}
