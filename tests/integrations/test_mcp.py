"""`vecdb mcp` through the SDK's own client: every tool, over stdio and HTTP; and a server that is bound to a tenant is
asked for another's records in every way there is.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.answers.command_line import CommandRunner
from tests.support.server.driver import token
from tests.support.server.process import ENVIRONMENT, Process

pytest.importorskip("mcp")

from mcp import StdioServerParameters
from mcp.client.client import Client

from vecdb.integrations.mcp_server import http_address, server_of
from vecdb.integrations.shared import bound_collection

DIM = 16
MODEL = """
import zlib
import numpy as np
import vecdb

def words(texts):
    out = np.full((len(texts), 16), 0.01)
    for row, text in enumerate(texts):
        for word in text.split():
            out[row, zlib.crc32(word.encode()) % 16] += 1
    return out

embedder = vecdb.Embedder(words, name="words")
"""


def words(texts: list[str]) -> Any:
    out = np.full((len(texts), DIM), 0.01)
    for row, text in enumerate(texts):
        for word in text.split():
            out[row, zlib.crc32(word.encode()) % DIM] += 1
    return out


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """What a tool answers; where it fails the text of the error."""
    answer = await client.call_tool(tool, arguments)
    if answer.is_error:
        return "".join(part.text for part in answer.content)  # type: ignore[union-attr]
    [part] = answer.content
    return json.loads(part.text)  # type: ignore[union-attr]


def fill(db: vecdb.Database) -> vecdb.Collection:
    docs = db.create_collection("notes", embed=vecdb.Embedder(words, name="words"))
    texts = ["cats purr loudly", "dogs bark loudly", "granite is hard", "basalt is dark"]
    docs.upsert(
        range(4), texts=texts, fields={"kind": ["animal", "animal", "stone", "stone"], "year": range(2020, 2024)}
    )
    return docs


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    with Process(folder / "db", folder) as server:
        yield f"grpc://{server.address}"


async def every_tool(client: Client, *, write: bool) -> None:
    names = {tool.name for tool in (await client.list_tools()).tools}
    reading = {"list_collections", "search", "get", "browse", "count", "facets"}
    assert names == reading | ({"remember", "forget"} if write else set())
    [listed] = (await call(client, "list_collections"))["collections"]
    assert (listed["name"], listed["records"], listed["search_by_text"]) == ("notes", 4, True)
    assert listed["fields"]["year"] == {"types": ["int"], "count": 4}
    found = (await call(client, "search", text="purr cats", limit=2))["hits"]
    assert [one["id"] for one in found] == [0, 1] and found[0]["score"] > found[1]["score"]
    assert found[0]["fields"] == {"text": "cats purr loudly", "kind": "animal", "year": 2020}
    near = (await call(client, "search", id=2, limit=1, filter="kind = 'stone'"))["hits"]
    assert [one["id"] for one in near] == [3]
    vector = words(["bark"])[0].tolist()
    assert (await call(client, "search", vector=vector, limit=1))["hits"][0]["id"] == 1
    got = await call(client, "get", ids=[3, 9, "x"])
    assert [one["id"] for one in got["records"]] == [3] and got["missing"] == [9, "x"]
    first = await call(client, "browse", filter={"year": {"$gte": 2021}}, limit=2, order_by="year", descending=True)
    assert [one["id"] for one in first["records"]] == [3, 2]
    rest = await call(
        client,
        "browse",
        filter={"year": {"$gte": 2021}},
        limit=2,
        order_by="year",
        descending=True,
        after=first["next"],
    )
    assert [one["id"] for one in rest["records"]] == [1] and rest["next"] is None
    assert await call(client, "count", filter="year < 2022") == {"count": 2}
    assert (await call(client, "facets", field="kind"))["facets"] == [
        {"value": "animal", "count": 2},
        {"value": "stone", "count": 2},
    ]


async def every_error(client: Client) -> None:
    wrong = [
        ("search", {}, "INVALID_ARGUMENT: give one of text, id and vector"),
        ("search", {"text": "x", "id": 1}, "give one of"),
        ("search", {"vector": [1.0]}, "dim"),
        ("search", {"text": "x", "filter": "year >"}, "INVALID_ARGUMENT"),
        ("search", {"text": "x", "filter": {"year": {"$about": 1}}}, "unknown"),
        ("search", {"id": 99}, "NOT_FOUND: there is no record 99"),
        ("search", {"text": "x", "limit": 1000}, "less than or equal to 100"),
        ("browse", {"after": "nonsense"}, "INVALID_ARGUMENT"),
        ("browse", {"descending": True}, "needs order_by"),
        ("facets", {"field": "year", "filter": "kind ="}, "INVALID_ARGUMENT"),
        ("facets", {}, "Field required"),
    ]
    for tool, arguments, said in wrong:
        assert said in str(await call(client, tool, **arguments)), (tool, arguments)


async def remembered(client: Client) -> None:
    made = (await call(client, "remember", text="owls hoot", fields={"kind": "animal"}))["id"]
    assert (await call(client, "search", text="hoot owls", limit=1))["hits"][0]["id"] == made
    assert await call(client, "remember", text="owls hunt", id=made) == {"id": made}
    [again] = (await call(client, "get", ids=[made]))["records"]
    assert again["fields"] == {"text": "owls hunt"}
    assert await call(client, "remember", vector=words(["x"])[0].tolist(), id=77) == {"id": 77}
    assert "one of text and vector" in await call(client, "remember")
    assert await call(client, "forget", ids=[made, 77, 12345]) == {"deleted": 2}
    assert await call(client, "count") == {"count": 4}


WHERE = ["memory", pytest.param("grpc", marks=pytest.mark.slow)]


@pytest.mark.parametrize("where", WHERE)
def test_every_tool_answers_and_every_error_is_told(where: str, request: pytest.FixtureRequest) -> None:
    async def use() -> None:
        with vecdb.open(":memory:" if where == "memory" else request.getfixturevalue("served")) as db:
            docs = fill(db)
            async with Client(server_of(docs)) as client:
                await every_tool(client, write=False)
                await every_error(client)
                assert "Unknown tool" in await call(client, "remember", text="x")
            async with Client(server_of(docs, write=True)) as client:
                await every_tool(client, write=True)
                await remembered(client)
            db.drop_collection("notes")

    asyncio.run(use())


def test_without_a_model_there_is_no_search_by_text() -> None:
    def broken(texts: list[str]) -> Any:
        raise ConnectionError("the model is away")

    async def use() -> None:
        with vecdb.open(":memory:") as db:
            docs = db.create_collection("docs", DIM)
            docs.upsert(["a"], words(["a"]), [{"at": dt.date(2026, 1, 2), "raw": b"xx", "x": float("nan")}])
            async with Client(server_of(docs, write=True)) as client:
                assert "no model" in await call(client, "search", text="a")
                assert "no model" in await call(client, "remember", text="a")
                [shown] = (await call(client, "browse"))["records"]
                assert shown == {"id": "a", "fields": {"at": "2026-01-02", "raw": "2 bytes", "x": "nan"}}
            away = bound_collection(db, "docs", embed=vecdb.Embedder(broken, dim=DIM))
            async with Client(server_of(away)) as client:
                assert "cannot embed this text: the model is away" in await call(client, "search", text="a")
            with pytest.raises(vecdb.InvalidArgument):
                server_of(docs, tenant="")
            with pytest.raises(vecdb.NotFound):
                bound_collection(db, "other", make=False)

    asyncio.run(use())


def test_a_text_is_embedded_once_and_the_models_error_is_told_by_a_write_too() -> None:
    asked: list[str] = []

    def noting(texts: list[str]) -> Any:
        asked.extend(texts)
        if "away" in texts[0]:
            raise ConnectionError("the model is away")
        return words(texts)

    async def use() -> None:
        with vecdb.open(":memory:") as db:
            model = vecdb.Embedder(noting, name="noting", dim=DIM, document_prefix="d: ", query_prefix="q: ")
            docs = db.create_collection("docs", embed=model)
            async with Client(server_of(docs, write=True)) as client:
                assert await call(client, "remember", text="owls hoot", id=1) == {"id": 1}
                assert asked == ["d: owls hoot"]
                assert "cannot embed this text: the model is away" in await call(client, "remember", text="away")
                assert [one["id"] for one in (await call(client, "search", text="owls"))["hits"]] == [1]
            with pytest.raises(ConnectionError):
                docs.add(texts="away")

    asyncio.run(use())


def test_ids_of_one_owner_are_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Any] = []
    real = vecdb.Collection.get

    def noting(self: vecdb.Collection, ids: Any = None, **options: Any) -> Any:
        reads.append((ids, options["owner"]))
        return real(self, ids, **options)

    async def use() -> None:
        with vecdb.open(":memory:") as db:
            docs = shared(db)
            monkeypatch.setattr(vecdb.Collection, "get", noting)
            async with Client(server_of(docs, tenant="beta")) as client:
                got = await call(client, "get", ids=["3", 1, 2, 9, 3, "x"])
                assert [one["id"] for one in got["records"]] == [3, 1, 2, 3] and got["missing"] == [9, "x"]
        assert reads == [([3, 1, 2, 9, 3], "beta"), ([3, 9, 3], "")]

    asyncio.run(use())


def test_addresses_of_http_have_brackets_where_they_need_them() -> None:
    assert http_address("127.0.0.1", 80) == "http://127.0.0.1:80/mcp" and http_address("::1", 8) == "http://[::1]:8/mcp"


# -- tenants ---------------------------------------------------------------------------------------

SECRET = "the code is tulip"


def shared(db: vecdb.Database) -> vecdb.Collection:
    """acme has one record, beta two, one of them under an id that acme has too; one more is beta's by a grant, and one
    is shared by beta with acme.
    """
    docs = db.create_collection("notes", embed=vecdb.Embedder(words, name="words"), exist_ok=True)
    docs.upsert([1], texts=["acme sells roses"], fields=[{"of": "acme"}], owner="acme", tenants={"acme"})
    fields = [{"of": "beta", "secret": SECRET}] * 2
    docs.upsert([1, 2], texts=[SECRET, f"{SECRET} again"], fields=fields, owner="beta", tenants={"beta"})
    docs.upsert([3], texts=[f"{SECRET} for all of us"], fields=[{"of": "beta"}], tenants={"beta"})
    docs.upsert([5], texts=["open to both"], fields=[{"of": "both"}], owner="beta", tenants={"acme", "beta"})
    return docs


@pytest.mark.parametrize("where", WHERE)
def test_a_server_of_one_tenant_has_nothing_of_another(where: str, request: pytest.FixtureRequest) -> None:
    async def use() -> None:
        with vecdb.open(":memory:" if where == "memory" else request.getfixturevalue("served")) as db:
            docs = shared(db)
            async with Client(server_of(docs, tenant="beta")) as client:
                cursor = (await call(client, "browse", limit=1))["next"]
                assert (await call(client, "count"))["count"] == 4
            async with Client(server_of(docs, tenant="acme", write=True)) as client:
                await asked_in_every_way(client, cursor)
            left = docs.get(filter="of = 'beta'")
            assert len(left) == 3 and all(SECRET in one.fields["text"] for one in left)
            async with Client(server_of(docs, tenant="nobody", write=True)) as client:
                assert await call(client, "count") == {"count": 0}
                assert (await call(client, "search", text=SECRET))["hits"] == []
                assert (await call(client, "browse"))["records"] == []
                assert (await call(client, "list_collections"))["collections"][0]["records"] == 0
                await call(client, "remember", text="first of nobody", id=1)
                assert (await call(client, "get", ids=[1]))["records"][0]["fields"]["text"] == "first of nobody"
            db.drop_collection("notes")

    asyncio.run(use())


@pytest.mark.slow
@pytest.mark.parametrize("named", [None, "acme"])
def test_with_a_tenants_token_it_has_nothing_of_another(named: str | None, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    admin, acme = token(tokens, "root", "admin"), token(tokens, "acme", "write", tenant="acme")
    with Process(tmp_path / "db", tmp_path, "--tokens", str(tokens)) as server:
        with vecdb.open(f"grpc://{server.address}", token=admin) as db:
            shared(db)

        async def use() -> None:
            with vecdb.open(f"grpc://{server.address}", token=acme) as db:
                docs = bound_collection(db, "notes", embed=vecdb.Embedder(words, name="words"))
                async with Client(server_of(docs, tenant=named, write=True)) as client:
                    await asked_in_every_way(client, None)

        asyncio.run(use())


async def asked_in_every_way(client: Client, cursor: str | None) -> None:
    answers = [
        await call(client, "search", text=SECRET, limit=100),
        await call(client, "search", vector=words([SECRET])[0].tolist(), limit=100),
        await call(client, "search", id=2),
        await call(client, "search", id=1, owner="beta"),
        await call(client, "search", text=SECRET, filter="of = 'beta' or true"),
        await call(client, "search", text=SECRET, tenant="beta"),
        await call(client, "get", ids=[1, 2, 3]),
        await call(client, "get", ids=[1, 2, 3], owner="beta"),
        await call(client, "get", ids=[1, 2, 3], owner=""),
        await call(client, "browse", limit=100),
        await call(client, "browse", filter="secret like '%tulip%'"),
        await call(client, "browse", filter={"of": "beta"}, tenant="beta"),
        await call(client, "browse", after=cursor, limit=100),
        await call(client, "browse", order_by="secret", descending=True),
        await call(client, "facets", field="secret"),
        await call(client, "facets", field="of"),
        await call(client, "list_collections"),
    ]
    for at, answer in enumerate(answers):
        text = json.dumps(answer)
        assert "tulip" not in text and "beta" not in text and "secret" not in text, (at, answer)
    for wanted in ("of = 'beta'", "secret is not null", "true"):
        assert (await call(client, "count", filter=wanted))["count"] == (2 if wanted == "true" else 0)
    assert {one["id"] for one in answers[0]["hits"]} == {1, 5}  # and who shares the second is not told
    # what it writes and forgets is its own, under whichever id
    assert await call(client, "remember", text="mine now", id=2) == {"id": 2}
    assert (await call(client, "forget", ids=[2, 3]))["deleted"] == 1


# -- over wires ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mcp")
    (made / "models.py").write_text(MODEL, encoding="utf-8")
    with vecdb.open(made / "db") as db:
        fill(db)
    return made


COMMAND = ["-c", "from vecdb.cli import main; main()", "mcp", "--db", "db", "-c", "notes", "--embed", "models:embedder"]


@asynccontextmanager
async def over_stdio(folder: Path, *options: str) -> AsyncIterator[Client]:
    server = StdioServerParameters(command=sys.executable, args=[*COMMAND, *options], cwd=folder, env=dict(ENVIRONMENT))
    async with Client(server) as client:
        yield client


@pytest.mark.slow
def test_over_stdio_every_tool_answers(folder: Path) -> None:
    async def use() -> None:
        async with over_stdio(folder) as client:
            await every_tool(client, write=False)
            await every_error(client)

    asyncio.run(use())


def test_over_stdio_with_write_it_remembers(folder: Path) -> None:
    async def use() -> None:
        async with over_stdio(folder, "--write") as client:
            await every_tool(client, write=True)
            await remembered(client)

    asyncio.run(use())


@pytest.mark.slow
def test_over_http_every_tool_answers(folder: Path) -> None:
    words = [sys.executable, *COMMAND, "--http", "127.0.0.1:0"]
    process = subprocess.Popen(words, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        address = process.stderr.readline().strip()
        assert address.startswith("http://127.0.0.1:") and address.endswith("/mcp"), address + process.stderr.read()

        async def use() -> None:
            async with Client(address) as client:
                await every_tool(client, write=False)
                await every_error(client)

        asyncio.run(use())
    finally:
        process.terminate()
        process.wait(60)


def test_what_is_wrong_at_the_start_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = list(sys.path)
    wrong = [
        (["--http", "0.0.0.0:80"], "--insecure"),
        (["--http", "here"], "wants host:port"),
        (["--embed", "models"], "module:name"),
        (["--embed", "nowhere:embedder"], "cannot be loaded"),
        (["--embed", "models:nothing"], "cannot be loaded"),
        (["-c", "others"], "others"),
    ]
    for options, said in wrong:
        words = ["mcp", "--db", "db", *([] if "-c" in options else ["-c", "notes"]), *options]
        result = CommandRunner().run(words)
        assert result.exit_code == 1 and said in result.output, (words, result.output)
    sys.path[:] = before
    assert os.getcwd() == str(folder)
