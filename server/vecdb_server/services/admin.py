"""The database as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import vecdb
from vecdb import InvalidArgument
from vecdb.v1 import admin_pb2, common_pb2
from vecdb.wire.search_response import report
from vecdb_server.auth import Caller
from vecdb_server.logs import log
from vecdb_server.services.context import House

_NAME_BYTES_MAX = 128


class Admin:
    def __init__(self, house: House) -> None:
        self._house = house

    async def GetServerInfo(self, request: Any, caller: Caller, context: Any) -> Any:
        return admin_pb2.GetServerInfoResponse(
            version=vecdb.__version__, principal=caller.name, scope=caller.scope()
        )  # fmt: skip

    async def GetDatabaseStats(self, request: Any, caller: Caller, context: Any) -> Any:
        house = self._house
        facts = await house.kernels.run(caller.name, lambda stop: house.db.stats())
        facts["path"] = Path(facts["path"]).name  # where it lies is nobody's business
        return admin_pb2.GetDatabaseStatsResponse(stats_json=report(facts))

    async def CheckDatabase(self, request: Any, caller: Caller, context: Any) -> None:
        async def tell(done: int, total: int) -> None:
            await context.write(admin_pb2.CheckDatabaseResponse())

        problems = await self._house.long(lambda progress: self._house.db.check(), tell)
        await context.write(admin_pb2.CheckDatabaseResponse(done=True, problems=problems))

    async def Backup(self, request: Any, caller: Caller, context: Any) -> None:
        folder = self._folder(request.name)
        log.info("backup", caller=caller.name, name=request.name)
        await progressed(
            self._house,
            context,
            admin_pb2.BackupResponse,
            lambda progress: self._house.db.backup(folder, progress=progress),
        )

    def _folder(self, name: str) -> Path:
        if self._house.config.backups is None:
            raise InvalidArgument("this server was given no folder for backups (--backups)")
        if not name or len(name.encode()) > _NAME_BYTES_MAX or "/" in name or "\0" in name or name.startswith("."):
            raise InvalidArgument(
                f"the name of a backup has 1 to {_NAME_BYTES_MAX} bytes, no slash, and does not begin with a dot"
            )
        return Path(self._house.config.backups) / name

    async def Vacuum(self, request: Any, caller: Caller, context: Any) -> None:
        await progressed(
            self._house, context, admin_pb2.VacuumResponse, lambda progress: self._house.db.vacuum(progress=progress)
        )


async def progressed(house: House, context: Any, answer: Any, operation: Any) -> None:
    """A long operation whose messages say how far it is; the last one, that it is done."""

    async def tell(done: int, total: int) -> None:
        await context.write(answer(progress=common_pb2.Progress(done=done, total=total)))

    last = [0, 0]

    def watched(progress: Any) -> None:
        def both(done: int, total: int) -> None:
            last[:] = done, total
            progress(done, total)

        operation(both)

    await house.long(watched, tell)
    await tell(last[1], last[1])
