"""What names mean is marked as changed when the change is true, whether its caller still waits or has left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.server.driver import PATIENCE_S, Client, Running, settled
from vecdb.v1 import collections_pb2, tenants_pb2

DIM = 8
CHANGES: dict[str, Callable[[Client], tuple[Any, Any]]] = {
    "set_alias": lambda client: (
        client.collections.SetAlias, collections_pb2.SetAliasRequest(alias="other", collection="docs"),
    ),
    "drop_alias": lambda client: (client.collections.DropAlias, collections_pb2.DropAliasRequest(alias="alias")),
    "rename_collection": lambda client: (
        client.collections.RenameCollection, collections_pb2.RenameCollectionRequest(name="docs", new_name="new"),
    ),
    "drop_collection": lambda client: (
        client.collections.DropCollection, collections_pb2.DropCollectionRequest(name="docs"),
    ),
    "drop_tenant": lambda client: (
        client.tenants.DropTenant, tenants_pb2.DropTenantRequest(collection="docs", name="acme", records=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_names_is_marked_after_its_commit_also_where_its_caller_has_left(
    running: Running, calling: Callable[..., Client], monkeypatch: pytest.MonkeyPatch, change: str, leaves: bool
) -> None:
    context = running.server.context
    docs = context.db.create_collection("docs", DIM)
    docs.create_tenant(["acme"])
    docs.upsert(range(3), np.eye(DIM, dtype=np.float32)[:3])
    context.db.set_alias("alias", "docs")
    begun, go, events = threading.Event(), threading.Event(), []
    whose = type(docs) if change == "drop_tenant" else type(context.db)
    made = getattr(whose, change)

    def slowly(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(PATIENCE_S)
        result = made(*arguments, **options)
        events.append("committed")
        return result

    monkeypatch.setattr(whose, change, slowly)
    monkeypatch.setattr(context.place, "names_changed", lambda: events.append("marked"))
    client = calling(running)
    rpc, request = CHANGES[change](client)
    call = rpc.future(request, timeout=PATIENCE_S)
    assert begun.wait(PATIENCE_S)
    if leaves:
        call.cancel()
        running.until(lambda: context.admission.calls == 0)  # its handler has ended, the work has not
        go.set()
    else:
        go.set()
        assert call.code() is grpc.StatusCode.OK and events == ["committed", "marked"], "before it is answered"
    settled(running)
    running.until(lambda: "marked" in events)
    assert events == ["committed", "marked"]
