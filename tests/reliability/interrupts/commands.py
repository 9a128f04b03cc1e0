"""The commands that can take long, one row each, as calls.py has those of Python. A row is named by its command, and
behind a comma by what is special about it. `SHORT_COMMANDS` has all others, each with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.reliability.harness import NAME
from tests.reliability.interrupts.calls import Row, Stage
from tests.support.answers.command_line import CommandRunner, vecdb_command
from vecdb import cli

INTERRUPTED = {130: "interrupted", 143: "ended by a signal"}  # exit code: how the message begins


def _run(words: str) -> Callable[[Stage], Any]:
    def call(stage: Stage) -> Any:
        places = {"db": stage.path, "place": stage.place, "made": stage.made, "c": NAME}
        cli._prepare_process()
        found = CommandRunner().run([*(word.format_map(places) for word in words.split()), "--json"])
        if found.exit_code in INTERRUPTED:
            said = json.loads(found.stdout)["error"]
            assert said["code"] == "INTERRUPTED" and said["message"].startswith(INTERRUPTED[found.exit_code])
            raise KeyboardInterrupt
        assert found.exit_code == 0, (found.exit_code, found.output, found.exception)

    return call


def _row(words: str, *, again: bool = True, partly: bool = False) -> Row:
    return Row(_run(words), opened=False, again=again, partly=partly)


COMMANDS: dict[str, Row] = {
    "import": _row("import {made}/x.jsonl --db {db} -c fresh", partly=True),
    "import, of an array": _row("import {made}/x.npy --db {db} -c fresh", partly=True),
    "import, over what is there": _row("import {made}/x.jsonl --db {db} -c {c}", partly=True),
    "export": _row("export -c {c} --db {db} {place}/x.jsonl"),
    "export, as an array": _row("export -c {c} --db {db} {place}/x.npy"),
    "search": _row("search -c {c} --db {db} --id 7"),
    "fields": _row("fields -c {c} --db {db}"),
    "facets": _row("facets kind -c {c} --db {db}"),
    "info": _row("info --db {db}"),
    "check": _row("check --db {db}"),
    "tune": _row("tune -c {c} --db {db}"),
    "warmup": _row("warmup --db {db}"),
    "backup": _row("backup {place}/backup --db {db}", again=False),
    "backup, to a bucket": _row("backup file://{place}/bucket --db {db}"),
    "backups": _row("backups file://{made}/bucket"),
    "restore": _row("restore {made}/backup {place}/restored", again=False),
    "restore, of a bucket": _row("restore file://{made}/bucket {place}/restored", again=False),
    "vacuum": _row("vacuum --db {db}"),
    "upgrade": _row("upgrade --db {db}"),
    "tenant drop": _row("tenant drop -c {c} --db {db} mine --records", partly=True, again=False),
    "tenant create": _row("tenant create -c {c} --db {db} new1 new2", again=False),
    "tenant list": _row("tenant list -c {c} --db {db}"),
    "dataset export": _row("dataset export clustered-300x8 --format fbin --out {place}/x.fbin"),
    "dataset export, for another program": _row("dataset export clustered-300x8 --out {place}/x.hdf5"),
}  # fmt: skip

_MEASURES = "measures in a folder of its own, which nothing is kept in"
_OF_CLUSTERS = "on Ray, or servers of a cluster: tests/ray, tests/cluster"
SHORT_COMMANDS: dict[str, str] = {
    "demo": "an import of rows that are fetched",
    "serve": "ends by signals alone: tests/server/test_process.py, tests/server/workers/test_ends.py",
    "console": "ends by signals alone: tests/console/test_command.py",
    "mcp": "ends by signals alone: tests/integrations/test_mcp.py",
    "promote": "tests/replication/test_failover.py",
    "ls": "a list of names",
    "rename": "one small commit",
    **dict.fromkeys(("alias list", "alias set", "alias drop"), "one small commit"),
    **dict.fromkeys(("tenant info", "tenant grant", "tenant revoke"), "of the records that are named"),
    **dict.fromkeys(("dataset list", "dataset info"), "of names"),
    "dataset get": "fetches, and keeps whole files alone: tests/datasets/test_download.py",
    **dict.fromkeys(("token create", "token list", "token revoke"), "a small file"),
    **dict.fromkeys((f"cluster {one}" for one in (
        "up", "down", "status", "join", "promote", "build", "search", "evaluate", "reshape", "plan",
    )), _OF_CLUSTERS),
    **dict.fromkeys((f"bench {one}" for one in (
        "run", "ingest", "interference", "threads", "disk", "tenants", "filters", "serve", "cluster", "mixture",
        "coldstart", "keep", "figures", "compare", "plot",
    )), _MEASURES),
}  # fmt: skip


def names_of_commands() -> set[str]:
    """Every command, with its family."""
    found = set()
    for name, command in vecdb_command().commands.items():
        inner = getattr(command, "commands", None)
        found |= {name} if inner is None else {f"{name} {one}" for one in inner}
    return found
