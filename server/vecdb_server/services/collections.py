"""CollectionService: collections, and the long operations on their indexes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vecdb import Collection
from vecdb.v1 import collections_pb2 as pb
from vecdb.wire.error_codes import collection_not_found
from vecdb.wire.messages import collection_message, dtype_of, index_of, metadata_of, metric_of, zero_vectors_of
from vecdb.wire.search_response import report
from vecdb_server.logs import log
from vecdb_server.security.auth import Caller
from vecdb_server.services.admin import run_reporting
from vecdb_server.services.context import ServerContext, request_key


class Collections:
    def __init__(self, server: ServerContext) -> None:
        self._server = server

    async def CreateCollection(self, request: Any, caller: Caller, context: Any) -> Any:
        if not caller.reaches(request.name):
            raise collection_not_found(request.name)
        metric, dtype, index = metric_of(request.metric), dtype_of(request.dtype), index_of(request.index)
        zero_vectors = zero_vectors_of(request.zero_vectors)
        made: Collection = await self._server.write(
            caller,
            context,
            lambda: self._server.db.create_collection(
                request.name,
                request.dim or None,
                metric,
                index,
                dtype,
                exist_ok=request.exist_ok,
                metadata=metadata_of(request.metadata_json),
                zero_vectors=zero_vectors,
            ),
        )
        log.info("collection created", caller=caller.name, collection=request.name)
        return pb.CreateCollectionResponse(collection=_message(made, caller))

    async def GetCollection(self, request: Any, caller: Caller, context: Any) -> Any:
        return pb.GetCollectionResponse(
            collection=_message(await self._server.collection(caller, request.name), caller)
        )

    async def ListCollections(self, request: Any, caller: Caller, context: Any) -> Any:
        return pb.ListCollectionsResponse(names=await self._server.kernels.run(caller.name, self._server.names(caller)))

    async def DropCollection(self, request: Any, caller: Caller, context: Any) -> Any:
        if not caller.reaches(request.name):
            raise collection_not_found(request.name)
        await self._name(caller, context, lambda: self._server.db.drop_collection(request.name))  # its aliases go, too
        log.info("collection dropped", caller=caller.name, collection=request.name)
        return pb.DropCollectionResponse()

    async def RenameCollection(self, request: Any, caller: Caller, context: Any) -> Any:
        await self._name(caller, context, lambda: self._server.db.rename_collection(request.name, request.new_name))
        log.info("collection renamed", caller=caller.name, collection=request.name, name=request.new_name)
        return pb.RenameCollectionResponse()

    async def SetAlias(self, request: Any, caller: Caller, context: Any) -> Any:
        await self._name(caller, context, lambda: self._server.db.set_alias(request.alias, request.collection))
        log.info("alias set", caller=caller.name, collection=request.collection, alias=request.alias)
        return pb.SetAliasResponse()

    async def DropAlias(self, request: Any, caller: Caller, context: Any) -> Any:
        await self._name(caller, context, lambda: self._server.db.drop_alias(request.alias))
        log.info("alias dropped", caller=caller.name, alias=request.alias)
        return pb.DropAliasResponse()

    async def ListAliases(self, request: Any, caller: Caller, context: Any) -> Any:
        self._server.check_answers()
        known = {alias: name for alias, name in self._server.db.aliases().items() if caller.reaches(alias)}
        if caller.must_be_known:
            seen = await self._server.kernels.run(caller.name, self._server.names(caller))
            known = {alias: name for alias, name in known.items() if name in seen}
        return pb.ListAliasesResponse(collections=known)

    async def _name(self, caller: Caller, context: Any, change: Callable[[], None]) -> None:
        """Make a change of names, which may stand for other collections from then on."""
        await self._server.change_names(caller, context, change, self._server.forget_names)

    async def GetCollectionStats(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        facts = await self._server.kernels.run(caller.group, lambda stop: docs.stats(tenant=caller.tenant))
        return pb.GetCollectionStatsResponse(stats_json=report(caller.shown(facts)))

    async def CheckCollection(self, request: Any, caller: Caller, context: Any) -> None:
        docs = await self._server.collection(caller, request.collection)

        async def report_progress(done: int, total: int) -> None:
            await context.write(pb.CheckCollectionResponse())

        problems = await self._server.run_long(caller, lambda progress: docs.check(), report_progress)
        await context.write(pb.CheckCollectionResponse(done=True, problems=problems))

    async def OptimizeCollection(self, request: Any, caller: Caller, context: Any) -> None:
        docs = await self._server.collection(caller, request.collection)
        threads = min(request.threads or self._server.threads_max, self._server.threads_max)
        await self._run_reporting(caller, context, pb.OptimizeCollectionResponse, docs.optimize, threads=threads)

    async def ReindexCollection(self, request: Any, caller: Caller, context: Any) -> None:
        docs = await self._server.collection(caller, request.collection)
        log.info("reindex", caller=caller.name, collection=request.collection)
        await self._run_reporting(
            caller, context, pb.ReindexCollectionResponse, docs.reindex, index=index_of(request.index)
        )

    async def ClearCollection(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        key = request_key(caller, request.request_id)
        count = await self._server.write(caller, context, lambda: docs.clear(request_id=key))
        log.info("collection cleared", caller=caller.name, collection=request.collection, records=count)
        return pb.ClearCollectionResponse(count=count, sequence=self._server.sequence_for(caller))

    async def SetMetadata(self, request: Any, caller: Caller, context: Any) -> Any:
        docs = await self._server.collection(caller, request.collection)
        await self._server.write(caller, context, lambda: docs.set_metadata(metadata_of(request.metadata_json)))
        return pb.SetMetadataResponse()

    async def VacuumCollection(self, request: Any, caller: Caller, context: Any) -> None:
        docs = await self._server.collection(caller, request.collection)
        await self._run_reporting(caller, context, pb.VacuumCollectionResponse, docs.vacuum)

    async def _run_reporting(
        self, caller: Caller, context: Any, message: Any, operation: Callable[..., None], **options: Any
    ) -> None:
        await run_reporting(
            self._server, caller, context, message, lambda progress: operation(progress=progress, **options)
        )


def _message(docs: Collection, caller: Caller) -> Any:
    config = docs.config
    return collection_message(config if caller.tenant is None else replace(config, metadata={}))
