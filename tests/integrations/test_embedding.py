"""Texts in, texts out: `embed=` of a collection, embedded, at a server and awaited; models of every shape, one of them
real.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vecdb
from tests.support.server.process import Process
from vecdb.api import embedding

DIM = 32
TEXTS = ["the cat sat", "a dog ran", "rust and python", "python and snakes", "bread and butter"]


def hashed(texts: list[str]) -> Any:
    """A model without a model: words fall into places by their checksum."""
    assert isinstance(texts, list) and all(isinstance(text, str) for text in texts)
    out = np.full((len(texts), DIM), 0.01)
    for row, text in enumerate(texts):
        for word in text.split():
            out[row, zlib.crc32(word.encode()) % DIM] += 1
    return out


def other(texts: list[str]) -> Any:
    return hashed(texts)


class LangChainShaped:
    model = "lc"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(("documents", texts))
        found: list[list[float]] = hashed(texts).tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        self.asked.append(("query", text))
        found: list[float] = hashed([text])[0].tolist()
        return found


class SentenceTransformersShaped:
    class model_card_data:
        base_model = "all-hash-v2"

    def get_sentence_embedding_dimension(self) -> int:
        return DIM

    def encode(self, sentences: list[str]) -> Any:
        return hashed(sentences).astype(np.float32)


class ChromaShaped:
    def __call__(self, input: list[str]) -> Any:
        return list(hashed(input))

    @staticmethod
    def name() -> str:
        return "chroma-hash"


MODELS = [hashed, LangChainShaped(), SentenceTransformersShaped(), ChromaShaped()]
NAMES = ["hashed", "lc", "all-hash-v2", "chroma-hash"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    with Process(folder / "db", folder) as server:
        yield f"grpc://{server.address}"


@pytest.fixture(params=["memory", "grpc"])
def base(request: pytest.FixtureRequest) -> Iterator[vecdb.Database]:
    with vecdb.open(":memory:" if request.param == "memory" else request.getfixturevalue("served")) as db:
        yield db
        for name in db.collections():
            db.drop_collection(name)


@pytest.mark.parametrize(("model", "name"), list(zip(MODELS, NAMES)))
def test_a_model_of_any_shape_reads_texts(base: vecdb.Database, model: Any, name: str) -> None:
    docs = base.create_collection("docs", embed=model, metadata={"owner": "me"})
    assert docs.dim == DIM and docs.embedder is not None
    noted = {"name": name, "dim": DIM, "document_prefix": "", "query_prefix": "", "text_field": "text"}
    assert docs.metadata == {"owner": "me", "embedding": noted}
    told: list[tuple[int, int]] = []
    progress = lambda done, total: told.append((done, total))  # noqa: E731
    assert docs.upsert(range(5), texts=TEXTS, fields=[{"n": at} for at in range(5)], progress=progress) == 5
    assert told == [(5, 5)]
    hits = docs.search(text="python and snakes", limit=2)
    assert hits.ids.tolist() == [3, 2] and hits[0].fields == {"n": 3, "text": TEXTS[3]}
    assert np.allclose(docs.get(3, include_vectors=True).vector, hashed([TEXTS[3]])[0])
    assert docs.search(text=["a dog ran", "the cat sat"], limit=1, filter="n < 2").ids.tolist() == [[1], [0]]
    assert docs.search(hashed(["a dog ran"])[0], limit=1).ids.tolist() == [1]


def test_writes_of_every_kind_take_texts(base: vecdb.Database) -> None:
    docs = base.create_collection("docs", embed=hashed)
    assert docs.upsert("one", texts="a text", fields={"n": 1}) == 1
    assert docs.insert(["two", "one"], texts=["b", "c"], on_conflict="skip") == 1
    made = docs.add(texts=["x", "y"], fields={"n": [5, 6]})
    single = docs.add(texts="z")
    assert len(made) == 2 and isinstance(single, str)
    assert [one.fields for one in docs.get(["one", "two", *made, single])] == [
        {"text": "a text", "n": 1}, {"text": "b"}, {"text": "x", "n": 5}, {"text": "y", "n": 6}, {"text": "z"}
    ]  # fmt: skip
    docs.upsert(["own"], texts=["for the model"], fields=[{"text": "for people"}])
    assert docs.get("own").fields == {"text": "for people"}


def test_a_table_of_fields_stands_beside_texts(base: vecdb.Database) -> None:
    pandas, polars, arrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    docs = base.create_collection("docs", embed=hashed)
    columns = {"n": [1, 2], "lang": ["en", "de"]}
    for at, table in enumerate((pandas.DataFrame(columns), polars.DataFrame(columns), arrow.table(columns))):
        docs.upsert([2 * at, 2 * at + 1], texts=TEXTS[:2], fields=table)
        assert docs.get(2 * at + 1).fields == {"n": 2, "lang": "de", "text": TEXTS[1]}


def test_the_model_is_asked_in_batches_and_a_large_call_is_split(
    base: vecdb.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(texts: list[str]) -> Any:
        sizes.append(len(texts))
        return hashed(texts)

    docs = base.create_collection("docs", embed=vecdb.Embedder(counted, batch=4, dim=DIM))
    assert not sizes, "the dim was said"
    told: list[tuple[int, int]] = []
    texts = [f"word{at}" for at in range(10)]
    docs.upsert(range(10), texts=texts, progress=lambda done, total: told.append((done, total)))
    assert sizes == [4, 4, 2] and told == [(4, 10), (8, 10), (10, 10)]
    sizes.clear()
    monkeypatch.setattr(type(docs._backend), "rows_per_call", 3)
    told.clear()
    docs.clear()
    docs.upsert(list(range(10)), texts=texts, atomic=False, progress=lambda done, total: told.append((done, total)))
    assert docs.count() == 10 and max(sizes) == 3 and told[-1] == (10, 10) and told == sorted(told)
    assert docs.search(text="word7", limit=1).ids.tolist() == [7]
    assert docs.upsert([10, 11], texts=["few", "more"], atomic=False) == 2, "so few that one call takes them"
    sizes.clear()
    monkeypatch.setattr(embedding.limits, "batch_bytes_max", 5 * DIM * 4)
    with pytest.raises(vecdb.LimitExceeded, match="atomic=False"):
        docs.upsert(range(10), texts=texts)
    assert not sizes, "nothing is embedded that could not be written"


def test_prefixes_are_noted_and_taken_up(base: vecdb.Database) -> None:
    asked: list[str] = []

    def model(texts: list[str]) -> Any:
        asked.extend(texts)
        return hashed(texts)

    name = model.__qualname__
    made = vecdb.Embedder(model, document_prefix="passage: ", query_prefix="query: ", text_field="body", dim=DIM)
    docs = base.create_collection("docs", embed=made)
    docs.upsert([1], texts=["x"])
    again = base.collection("docs", embed=model)
    again.search(text="y")
    assert asked == ["passage: x", "query: y"] and docs.get(1).fields == {"body": "x"}
    assert again.metadata["embedding"]["name"] == name
    with pytest.raises(vecdb.InvalidArgument, match="query_prefix 'query: ', got 'ask: '"):
        base.collection("docs", embed=vecdb.Embedder(model, query_prefix="ask: "))


def test_another_model_is_refused_by_name(base: vecdb.Database) -> None:
    base.create_collection("docs", embed=hashed).upsert([1], texts=["x"])
    with pytest.raises(vecdb.InvalidArgument, match="by the model 'hashed', got 'other'"):
        base.collection("docs", embed=other)
    with pytest.raises(vecdb.InvalidArgument, match="by the model 'hashed', got 'other'"):
        base.create_collection("docs", embed=other, exist_ok=True)
    assert base.create_collection("docs", embed=hashed, exist_ok=True).count() == 1
    with pytest.raises(vecdb.InvalidArgument, match=r"has dim 32, the model 'hashed' makes vectors of dim 7"):
        base.collection("docs", embed=vecdb.Embedder(other, name="hashed", dim=7))
    docs = base.collection("docs", embed=hashed)
    docs.set_metadata({"mine": 1})
    assert set(docs.metadata) == {"mine", "embedding"}
    with pytest.raises(vecdb.InvalidArgument, match="'embedding'"):
        docs.set_metadata({"embedding": {"name": "other"}})


def test_a_collection_without_a_note_has_its_dim_compared_and_notes_the_first_writer(base: vecdb.Database) -> None:
    base.create_collection("docs", DIM, metadata={"a": 1}).upsert([1], hashed(["x"]), [{"text": "x"}])
    with pytest.raises(vecdb.InvalidArgument, match=r"gave vectors of dim 3, the collection's are of dim 32"):
        base.collection("docs", embed=vecdb.Embedder(lambda texts: np.ones((len(texts), 3)), name="three")).search(
            text="x"
        )
    docs = base.collection("docs", embed=hashed)
    assert docs.search(text="x").ids.tolist() == [1] and docs.metadata == {"a": 1}
    docs.upsert([2], texts=["y"])
    assert docs.metadata["a"] == 1 and docs.metadata["embedding"]["name"] == "hashed"


def test_metadata_of_ones_own_under_that_name_are_no_note(base: vecdb.Database) -> None:
    base.create_collection("docs", metadata={"embedding": "some text"})
    docs = base.collection("docs", embed=hashed)
    assert docs.embedder is not None and docs.embedder.dim is None and not docs.embedder.noted
    assert base.collection("docs").metadata == {"embedding": "some text"}


def test_what_is_wrong_is_said_and_nothing_is_written(base: vecdb.Database) -> None:
    plain = base.create_collection("plain", DIM)
    for call in (lambda: plain.upsert([1], texts=["x"]), lambda: plain.search(text="x")):
        with pytest.raises(vecdb.InvalidArgument, match="opened without a model"):
            call()
    docs = base.create_collection("docs", embed=hashed)
    wrong = [
        ("vectors or texts, not both", lambda: docs.upsert([1], hashed(["x"]), texts=["x"])),
        (r"texts\[1\] is 3", lambda: docs.upsert([1, 2], texts=["x", 3])),
        ("got 2 ids and 1 texts", lambda: docs.upsert([1, 2], texts=["x"])),
        ("a vector, or a text", lambda: docs.search(hashed(["x"])[0], text="x")),
        ("a vector, or a text", lambda: docs.search()),
        ("a text or a list of texts", lambda: docs.search(text=7)),
        ("1 texts and 2 fields", lambda: docs.upsert([1], texts=["x"], fields=[{}, {}])),
        (r"fields\[0\] is 5", lambda: docs.upsert([1], texts=["x"], fields=[5])),
    ]
    for said, call in wrong:
        with pytest.raises(vecdb.InvalidArgument, match=said):
            call()
    assert docs.count() == 0 and docs.search(text=["x"]).counts.tolist() == [0]
    models: list[tuple[str, Any]] = [
        ("has no name", lambda texts: hashed(texts)),
        ("has no name", functools.partial(hashed)),
        ("must be a function", 5),
        ("must be a function", ChromaShaped),
        (r"one vector for each text, \[1, dim\]", vecdb.Embedder(lambda texts: np.ones(3), name="flat")),
        ("an array of numbers", vecdb.Embedder(lambda texts: ["no"], name="words")),
    ]
    for said, model in models:
        with pytest.raises(vecdb.InvalidArgument, match=said):
            base.create_collection("never", embed=model)
    with pytest.raises(vecdb.InvalidArgument, match="batch"):
        vecdb.Embedder(hashed, batch=0)
    assert base.collections() == ["docs", "plain"]


def test_an_error_of_the_model_comes_through(base: vecdb.Database) -> None:
    def broken(texts: list[str]) -> Any:
        raise ZeroDivisionError("no model today")

    docs = base.create_collection("docs", embed=vecdb.Embedder(broken, dim=DIM))
    with pytest.raises(ZeroDivisionError, match="no model today"):
        docs.upsert([1], texts=["x"])
    assert docs.count() == 0


@pytest.mark.parametrize("where", ["memory", "grpc"])
def test_awaited_calls_embed_in_threads(where: str, request: pytest.FixtureRequest) -> None:
    path = ":memory:" if where == "memory" else request.getfixturevalue("served")
    threads: set[int] = set()

    def threaded(texts: list[str]) -> Any:
        threads.add(threading.get_ident())
        return hashed(texts)

    async def use() -> None:
        async with vecdb.aio.open(path) as db:
            docs = await db.create_collection("awaited", embed=threaded)
            told: list[Any] = []
            await docs.upsert(range(5), texts=TEXTS, fields={"n": range(5)}, progress=lambda *now: told.append(now))
            assert told == [(5, 5)] and docs.embedder is not None and docs.embedder.dim == DIM
            hits = await docs.search(None, text="python and snakes", limit=2)
            assert hits.ids.tolist() == [3, 2] and hits[0].fields["text"] == TEXTS[3]
            assert await docs.add(texts=["more"]) == [5] and await docs.insert(6, texts="six") == 1
            with pytest.raises(vecdb.InvalidArgument, match="not both"):
                await docs.upsert([1], hashed(["x"]), texts=["x"])
            again = await db.collection("awaited", embed=threaded)
            assert (await again.search(text=["six", "more"], limit=1)).ids.tolist() == [[6], [5]]
            with pytest.raises(vecdb.InvalidArgument, match="got 'other'"):
                await db.collection("awaited", embed=other)
            bare = await db.create_collection("bare", DIM)
            await bare.upsert([1], hashed(["x"]))
            noting = await db.collection("bare", embed=threaded)
            await noting.upsert([2], texts=["y"])
            assert (await bare.metadata())["embedding"]["name"] == threaded.__qualname__
            await db.drop_collection("awaited")
            await db.drop_collection("bare")

    asyncio.run(use())
    assert threads and threading.get_ident() not in threads


def test_a_timeout_keeps_the_model(served: str) -> None:
    with vecdb.open(served) as db:
        docs = db.create_collection("patient", embed=hashed)
        docs.with_timeout(20).upsert([1], texts=["x"])
        assert docs.with_timeout(20).search(text="x").ids.tolist() == [1]


def test_a_real_model_that_a_wheel_carries_finds_what_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wordllama = pytest.importorskip("wordllama")
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("nothing is downloaded"))
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    with vecdb.open(tmp_path / "db") as db:
        docs = db.create_collection("docs", embed=vecdb.Embedder(model.embed, name="wordllama-l2-256"))
        docs.upsert(range(4), texts=["the cat chased a mouse", "stocks fell sharply on monday", "how to bake sourdough",
                                     "the parliament passed a law"])  # fmt: skip
        found = [docs.search(text=one, limit=1)[0].id for one in ("kitten", "market crash", "bread recipe", "politics")]
        assert docs.dim == 256 and found == [0, 1, 2, 3]
