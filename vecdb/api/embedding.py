"""Texts become vectors in the client: what `embed=` may be, what a collection notes about it, and how it is asked.

    model       := callable(list[str]) -> array      also Chroma's embedding functions
                 | .encode(list[str])                sentence-transformers; its encode_query and encode_document if any
                 | .embed_documents, .embed_query    LangChain
    metadata    := {"embedding": {"name", "dim", "document_prefix", "query_prefix", "text_field"}, ...}

A collection that notes a model is opened with that one, by name: vectors of another have nothing to do with those that
are there. Nothing is downloaded, no model is a default, and no server ever sees a model: it gets vectors.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb import limits
from vecdb.errors import InvalidArgument, LimitExceeded
from vecdb.schema import CollectionConfig
from vecdb.validate import short_repr
from vecdb.validate.common import integer

NOTE = "embedding"  # its key in the metadata
_BATCH, _BATCH_MAX = 256, 65_536
_NAME_CHARS_MAX = 256

Floats = NDArray[np.float32]
Progress = Callable[[int, int], None] | None


class Embedder:
    """A model that makes vectors of texts, and how it is used; `embed=` takes it, or the model alone.

    Threads: as the model. Nothing is kept but the model itself.
    """

    __slots__ = (
        "_embed",
        "_embed_query",
        "batch",
        "dim",
        "document_prefix",
        "name",
        "noted",
        "query_prefix",
        "text_field",
    )

    def __init__(
        self,
        model: Any,
        *,
        name: str | None = None,
        dim: int | None = None,
        document_prefix: str | None = None,
        query_prefix: str | None = None,
        text_field: str | None = None,
        batch: int = _BATCH,
    ) -> None:
        """
        model : a callable from a list of texts to as many vectors, float[n, dim]; or an object of
            sentence-transformers, LangChain or Chroma.
        name : by which the model is known; None: what the model says of itself. A lambda says nothing.
        dim : of its vectors; None: what the model says, else that of the first ones.
        document_prefix, query_prefix : stand before each text that is stored or searched, where a model wants such.
        text_field : the field in which texts are kept. None of these three: as the collection notes it, else no prefix
            and "text".
        batch : texts that the model is given at once, from 1 to 65,536.
        """
        self._embed, self._embed_query = _ways(model)
        self.name = _checked(_name_of(model) if name is None else name, "name")
        if not self.name or len(self.name) > _NAME_CHARS_MAX:
            raise InvalidArgument(f"the name of a model has 1 to {_NAME_CHARS_MAX} characters, got {short_repr(name)}")
        self.dim = _dim_of(model) if dim is None else integer(dim, "dim", 1, limits.dim_max)
        self.document_prefix = None if document_prefix is None else _checked(document_prefix, "document_prefix")
        self.query_prefix = None if query_prefix is None else _checked(query_prefix, "query_prefix")
        self.text_field = None if text_field is None else _checked(text_field, "text_field")
        self.batch = integer(batch, "batch", 1, _BATCH_MAX)
        self.noted = False

    @classmethod
    def of(cls, embed: Any) -> Embedder | None:
        """What was given as `embed=`."""
        return embed if embed is None or isinstance(embed, Embedder) else cls(embed)

    def measured(self) -> Embedder:
        """The same, whose dim is known: where the model does not say it, it is given one text."""
        if self.dim is not None:
            return self
        found = copy.copy(self)
        found.dim = self._asked(self._embed, ["text"]).shape[1]
        return found

    # -- what is noted -----------------------------------------------------------------------------

    def note(self) -> dict[str, Any]:
        """What a collection's metadata say of it."""
        return {
            "name": self.name,
            "dim": self.dim,
            "document_prefix": self.document_prefix or "",
            "query_prefix": self.query_prefix or "",
            "text_field": self.text_field or "text",
        }

    def noted_in(self, metadata: dict[str, Any] | None) -> dict[str, Any]:
        """Metadata with the note. Raises InvalidArgument where they have another one."""
        given = metadata or {}
        if given.get(NOTE, self.note()) != self.note():
            raise InvalidArgument(f"metadata have the key {NOTE!r}, in which the model is noted: name it otherwise")
        return {**given, NOTE: self.note()}

    def fitted(self, config: CollectionConfig) -> Embedder:
        """A copy for one collection. Raises InvalidArgument where that was embedded by another model, or otherwise."""
        found = copy.copy(self)
        noted = config.metadata.get(NOTE)
        found.noted = isinstance(noted, dict)
        if isinstance(noted, dict):
            if noted.get("name") != self.name:
                raise InvalidArgument(
                    f"collection {config.name!r} was embedded by the model {noted.get('name')!r}, got {self.name!r}: "
                    "open it with that model, or embed the texts anew into another collection"
                )
            for what in ("document_prefix", "query_prefix", "text_field"):
                if getattr(self, what) not in (None, noted.get(what)):
                    raise InvalidArgument(
                        f"collection {config.name!r} was made with {what} {noted.get(what)!r}, got "
                        f"{getattr(self, what)!r}: leave it out"
                    )
                setattr(found, what, noted.get(what))
        dim = config.dim or (noted.get("dim") if isinstance(noted, dict) else None)
        if dim and self.dim not in (None, dim):
            raise InvalidArgument(
                f"collection {config.name!r} has dim {dim}, the model {self.name!r} makes vectors of dim {self.dim}"
            )
        found.dim = dim or self.dim
        return found

    # -- asking the model --------------------------------------------------------------------------

    def documents(self, texts: Sequence[str], progress: Progress = None) -> Floats:
        """Vectors of texts that are stored, float32[n, dim], a batch at a time.

        progress : called with (texts done, texts) after each batch.
        """
        return self._all(self._embed, self.document_prefix or "", texts, progress)

    def queries(self, texts: Sequence[str]) -> Floats:
        """Vectors of texts that are searched for, float32[n, dim]."""
        return self._all(self._embed_query, self.query_prefix or "", texts, None)

    def _all(self, ask: Callable[[list[str]], Any], prefix: str, texts: Sequence[str], progress: Progress) -> Floats:
        n = len(texts)
        if not n:
            return np.empty((0, self.dim or 1), np.float32)
        found: Floats | None = None
        for start in range(0, n, self.batch):
            part = [prefix + text for text in texts[start : start + self.batch]]
            vectors = self._asked(ask, part)
            if found is None:
                found = np.empty((n, vectors.shape[1]), np.float32)
            found[start : start + len(part)] = vectors
            if progress is not None:
                progress(start + len(part), n)
        assert found is not None
        return found

    def _asked(self, ask: Callable[[list[str]], Any], texts: list[str]) -> Floats:
        answer = ask(texts)
        try:
            vectors = np.asarray(answer, np.float32)
        except (TypeError, ValueError):
            raise InvalidArgument(
                f"the model {self.name!r} must give an array of numbers, got {short_repr(answer)}"
            ) from None
        if vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1]:
            raise InvalidArgument(
                f"the model {self.name!r} must give one vector for each text, [{len(texts)}, dim], got the shape "
                f"{list(vectors.shape)}"
            )
        if self.dim not in (None, vectors.shape[1]):
            raise InvalidArgument(
                f"the model {self.name!r} gave vectors of dim {vectors.shape[1]}, the collection's are of dim "
                f"{self.dim}"
            )
        return vectors

    def __repr__(self) -> str:
        return f"<Embedder {self.name!r}, dim {self.dim}>"


# -- models of all kinds ---------------------------------------------------------------------------


def _ways(model: Any) -> tuple[Callable[[list[str]], Any], Callable[[list[str]], Any]]:
    """How texts that are stored and texts that are searched for become vectors."""
    if callable(getattr(model, "embed_documents", None)) and callable(getattr(model, "embed_query", None)):
        return model.embed_documents, lambda texts: [model.embed_query(text) for text in texts]
    if callable(getattr(model, "encode", None)):
        documents = getattr(model, "encode_document", model.encode)
        return documents, getattr(model, "encode_query", model.encode)
    if callable(model) and not inspect.isclass(model):
        query = getattr(model, "embed_query", None)  # Chroma's, of a list too
        return model, query if callable(query) else model
    raise InvalidArgument(
        "embed must be a function from texts to vectors, or a model of sentence-transformers, LangChain or Chroma, "
        f"got {short_repr(model)}"
    )


def _name_of(model: Any) -> str:
    card = getattr(model, "model_card_data", None)  # sentence-transformers
    for owner, attribute in ((card, "base_model"), (card, "model_id"), (model, "model_name"), (model, "model")):
        value = getattr(owner, attribute, None)
        if isinstance(value, str) and value:
            return value
    said = getattr(model, "name", None)
    if callable(said):  # Chroma
        said = said()
    if isinstance(said, str) and said:
        return said
    name = getattr(model, "__qualname__", None) or type(model).__qualname__
    if name.endswith("<lambda>") or name == "partial":
        raise InvalidArgument(
            f"embed is {short_repr(model)}, which has no name by which its vectors are known again: pass "
            "vecdb.Embedder(model, name=...)"
        )
    return str(name)


def _dim_of(model: Any) -> int | None:
    said = getattr(model, "get_sentence_embedding_dimension", None)
    found = said() if callable(said) else None
    return found if isinstance(found, int) and 1 <= found <= limits.dim_max else None


def _checked(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} of an embedder must be a text, got {short_repr(value)}")
    return value


# -- collections -----------------------------------------------------------------------------------


def attached(found: Any, embedder: Embedder) -> Any:
    """A collection that was opened, with its embedder; where it is still to be awaited, what is awaited."""
    if inspect.isawaitable(found):
        return _attached_later(found, embedder)
    near = getattr(found, "_near", found)  # vecdb.aio
    near._embedder = embedder.fitted(near._config)
    return found


async def _attached_later(found: Awaitable[Any], embedder: Embedder) -> Any:
    return attached(await found, embedder)


class TextVectors:
    """Vectors of texts, made when they are read: all of them, or a slice."""

    __slots__ = ("_embedder", "_progress", "_texts")

    def __init__(self, embedder: Embedder, texts: Sequence[str], progress: Progress) -> None:
        self._embedder = embedder
        self._texts = texts
        self._progress = progress

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, part: slice) -> Floats:
        total, start, progress = len(self), part.indices(len(self))[0], self._progress
        told = None if progress is None else (lambda done, _: progress(start + done, total))
        return self._embedder.documents(self._texts[part], told)


def embedder_of(embedder: Embedder | None, name: str) -> Embedder:
    """The one that a collection of that name was opened with."""
    if embedder is None:
        raise InvalidArgument(
            f"collection {name!r} was opened without a model that reads texts: pass it to collection or "
            "create_collection as embed="
        )
    return embedder


def embedded(
    embedder: Embedder, ids: Any, texts: Any, vectors: Any, fields: Any, whole: bool, progress: Progress
) -> tuple[Any, Any]:
    """Vectors and fields of records whose texts are given.

    ids : None where ids are to be made. whole : make all vectors now; else TextVectors.
    """
    if vectors is not None:
        raise InvalidArgument("a write takes vectors or texts, not both: texts are embedded")
    single = isinstance(texts, str)
    each = [texts] if single else texts if isinstance(texts, list) else list(texts)
    for at, text in enumerate(each):
        if not isinstance(text, str):
            raise InvalidArgument(f"texts[{at}] is {short_repr(text)}, not a text")
    if isinstance(ids, (list, tuple, range)) and len(ids) != len(each):
        raise InvalidArgument(f"got {len(ids):,} ids and {len(each):,} texts: pass one text per id")
    size_bytes = len(each) * (embedder.dim or 1) * 4
    if whole and size_bytes > limits.batch_bytes_max:
        raise LimitExceeded(
            f"one atomic call takes at most {limits.batch_bytes_max:,} bytes, the vectors of {len(each):,} texts have "
            f"{size_bytes:,}: write them in several calls, or with atomic=False"
        )
    kept = _with_texts(fields, each, single, embedder.text_field or "text")
    if single:
        return embedder.documents(each, progress)[0], kept
    return (embedder.documents(each, progress) if whole else TextVectors(embedder, each, progress)), kept


def _with_texts(fields: Any, texts: list[str], single: bool, name: str) -> Any:
    """Fields, and the texts beside them. A record that has a field of that name keeps it."""
    if single:
        return {name: texts[0], **(fields or {})}
    if fields is None:
        return {name: texts}
    if isinstance(fields, dict):
        return {name: texts, **fields}
    if isinstance(fields, (list, tuple)):
        if len(fields) != len(texts):
            raise InvalidArgument(f"got {len(texts):,} texts and {len(fields):,} fields: pass one for each")
        if all(one is None or isinstance(one, dict) for one in fields):
            return [{name: text, **(one or {})} for text, one in zip(texts, fields)]
        return fields  # which is refused with its place
    columns = getattr(fields, "column_names", None) or getattr(fields, "columns", None)
    if columns is None:
        raise InvalidArgument(f"fields must be a list of dicts, a dict of columns or a table, got {short_repr(fields)}")
    return {name: texts, **{str(column): fields[column] for column in columns}}
