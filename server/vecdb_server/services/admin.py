"""AdminService: what concerns the database as a whole."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import vecdb
from vecdb import InvalidArgument, PermissionDenied, Unavailable, VecdbError
from vecdb.v1 import admin_pb2, common_pb2
from vecdb.wire.search_response import report
from vecdb_server.logs import log
from vecdb_server.security.auth import Caller
from vecdb_server.services.context import ServerContext

_NAME_BYTES_MAX = 128
_REACH_S, _REACH_POLL_S = 30.0, 0.005  # for a commit that a caller waits for


class Admin:
    def __init__(self, server: ServerContext) -> None:
        self._server = server

    async def GetServerInfo(self, request: Any, caller: Caller, context: Any) -> Any:
        if request.min_sequence:
            await self._reach(request.min_sequence, caller, context)
        return admin_pb2.GetServerInfoResponse(
            version=vecdb.__version__,
            principal=caller.name,
            scope=caller.scope(),
            sequence=self._server.sequence_for(caller),
            tenant=caller.tenant or "",
        )

    async def _reach(self, sequence: int, caller: Caller, context: Any) -> None:
        """Wait until reads of this server find a commit. Raises Unavailable where it does not come in time,
        PermissionDenied for a tenant, whom it would tell when others write.
        """
        if caller.tenant is not None:
            raise PermissionDenied("the numbers of commits are not for the token of a tenant: leave min_sequence out")
        ends = min(self._server.deadline_of(caller, context), time.monotonic() + _REACH_S)
        while (newest := self._server.db.sequence()) < sequence:
            if time.monotonic() >= ends or self._server.draining:
                raise Unavailable(f"this server has commit {newest}, commit {sequence} did not come in time; try again")
            await asyncio.sleep(_REACH_POLL_S)

    async def GetDatabaseStats(self, request: Any, caller: Caller, context: Any) -> Any:
        server = self._server
        facts = await server.kernels.run(caller.group, lambda stop: server.db.stats(disk=not request.without_disk))
        facts["processes"] = server.place.processes()
        facts["path"] = Path(facts["path"]).name  # clients need not know the server's directories
        return admin_pb2.GetDatabaseStatsResponse(stats_json=report(facts))

    async def CheckDatabase(self, request: Any, caller: Caller, context: Any) -> None:
        async def report_progress(done: int, total: int) -> None:
            await context.write(admin_pb2.CheckDatabaseResponse())

        problems = await self._server.run_long(caller, lambda progress: self._server.db.check(), report_progress)
        await context.write(admin_pb2.CheckDatabaseResponse(done=True, problems=problems))

    async def Backup(self, request: Any, caller: Caller, context: Any) -> None:
        folder = self._folder(request.name)
        log.info("backup", caller=caller.name, name=request.name)
        await run_reporting(
            self._server,
            caller,
            context,
            admin_pb2.BackupResponse,
            lambda progress: self._backup(folder, request.keep or None, progress),
        )

    def _backup(self, folder: Path, keep: int | None, progress: Any) -> None:
        """Errors name the backup: clients need not know the server's directories."""
        try:
            self._server.db.backup(folder, keep=keep, progress=progress)
        except VecdbError as error:
            path = folder.absolute()
            text = str(error).replace(str(path), path.name).replace(str(path.parent), "the folder for backups")
            raise type(error)(text) from error

    def _folder(self, name: str) -> Path:
        if self._server.config.backups is None:
            raise InvalidArgument("this server was given no folder for backups (--backups)")
        if "://" in name:
            raise InvalidArgument(
                "a server writes backups under a name into its own folder (--backups), and into no bucket; on its "
                "machine `vecdb backup URL --db DIRECTORY` does that while it serves"
            )
        plain = name.isprintable() and "/" not in name and not name.startswith(".")
        if not name or not plain or len(name.encode()) > _NAME_BYTES_MAX:
            raise InvalidArgument(
                f"the name of a backup has 1 to {_NAME_BYTES_MAX} bytes, no slash and no control characters, and does "
                "not begin with a dot"
            )
        return Path(self._server.config.backups) / name

    async def Vacuum(self, request: Any, caller: Caller, context: Any) -> None:
        await run_reporting(
            self._server,
            caller,
            context,
            admin_pb2.VacuumResponse,
            lambda progress: self._server.db.vacuum(progress=progress),
        )


async def run_reporting(server: ServerContext, caller: Caller, context: Any, message: Any, operation: Any) -> None:
    """Run a long operation; messages report its progress, and the last one reports that it is done.

    message : the class of the messages.   operation : called with a progress callback.
    """

    async def report_progress(done: int, total: int) -> None:
        await context.write(message(progress=common_pb2.Progress(done=done, total=total)))

    last = [0, 0]

    def run(progress: Any) -> None:
        def remember(done: int, total: int) -> None:
            last[:] = done, total
            progress(done, total)

        operation(remember)

    await server.run_long(caller, run, report_progress)
    await report_progress(last[1], last[1])
