"""Goal: what haystack asks of a document store holds over a thin store whose filters, values and counts are all vecdb's.

The tests are haystack's own (`haystack.testing.document_store`). Documents without an embedding are records without a
vector. Embeddings come back as float32, so that is how they are compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
pytest.importorskip("haystack", reason="haystack-ai, of the extra [test], is not installed")

from haystack.dataclasses import Document
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing import document_store as suite

import vecdb
from vecdb.embedded.open import open_database
from vecdb.errors import AlreadyExists, InvalidArgument

_FIELDS = ("content", "meta")


def _refusing(call: Any, *args: Any, **options: Any) -> Any:
    """A call of vecdb, whose refusal of a filter is haystack's."""
    try:
        return call(*args, **options)
    except InvalidArgument as error:
        raise FilterError(str(error)) from error


def _path(name: str) -> str:
    return name if name.startswith("meta.") else f"meta.{name}"


class Store:
    """docs : ids are texts, embeddings of any dim."""

    def __init__(self, docs: vecdb.Collection) -> None:
        self.docs = docs

    def write_documents(self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE) -> int:
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise ValueError("documents must be a list of Document")
        ids, vectors = [one.id for one in documents], [one.embedding for one in documents]
        fields = [{name: getattr(one, name) for name in _FIELDS} for one in documents]
        if policy == DuplicatePolicy.OVERWRITE:
            return self.docs.upsert(ids, vectors, fields)
        try:
            skip = policy == DuplicatePolicy.SKIP
            return self.docs.insert(ids, vectors, fields, on_conflict="skip" if skip else "error")
        except AlreadyExists as error:
            raise DuplicateDocumentError(str(error)) from error

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        pages = _refusing(lambda: [*self.docs.iter(filter=filters or None, include_vectors=True)])
        return [
            Document(
                one.id, one.fields.get("content"), meta=one.fields.get("meta", {}),
                embedding=None if one.vector is None else one.vector.tolist(),
            )
            for page in pages for one in page
        ]  # fmt: skip

    def count_documents(self) -> int:
        return self.docs.count()

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        return int(_refusing(self.docs.count, filter=filters or None))

    def delete_documents(self, document_ids: list[str]) -> None:
        self.docs.delete(document_ids)

    def delete_all_documents(self, recreate_index: bool = False) -> None:
        self.docs.clear()

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        return int(_refusing(self.docs.delete, filter=filters))

    def update_by_filter(self, filters: dict[str, Any], meta: dict[str, Any]) -> int:
        found = _refusing(self.docs.get, filter=filters)
        return self.docs.update(
            [one.id for one in found], fields=[{"meta": one.fields["meta"] | meta} for one in found]
        )

    def count_unique_metadata_by_filter(self, filters: dict[str, Any], metadata_fields: list[str]) -> dict[str, int]:
        return {name: len(_refusing(self.docs.distinct, _path(name), filters or None)) for name in metadata_fields}

    def get_metadata_fields_info(self) -> dict[str, dict[str, str]]:
        found = {name.removeprefix("meta."): facts for name, facts in self.docs.fields().items() if "meta." in name}
        return {name: {"type": " or ".join(facts["types"])} for name, facts in found.items()}

    def get_metadata_field_min_max(self, metadata_field: str) -> dict[str, Any]:
        return {"min": self.docs.min(_path(metadata_field)), "max": self.docs.max(_path(metadata_field))}

    def get_metadata_field_unique_values(
        self,
        metadata_field: str,
        search_term: str | None = None,
        from_: int = 0,
        size: int = 10,
        filters: dict[str, Any] | None = None,
    ) -> tuple[list[Any], int]:
        values = _refusing(self.docs.distinct, _path(metadata_field), filters or None)
        if search_term:
            values = [one for one in values if search_term.lower() in str(one).lower()]
        return values[from_ : from_ + size], len(values)


def _as_stored(documents: list[Document]) -> list[dict[str, Any]]:
    found = [one.to_dict(flatten=False) for one in documents]
    for one in found:
        if one["embedding"] is not None:
            one["embedding"] = np.array(one["embedding"], np.float32).tolist()
    return found


class TestVecdbAsADocumentStore(
    suite.DocumentStoreBaseExtendedTests,
    suite.CountDocumentsByFilterTest,
    suite.CountUniqueMetadataByFilterTest,
    suite.GetMetadataFieldsInfoTest,
    suite.GetMetadataFieldMinMaxTest,
    suite.GetMetadataFieldUniqueValuesTest,
):
    @pytest.fixture
    def document_store(self, tmp_path: Path) -> Iterator[Any]:
        with open_database(tmp_path / "db", durability="relaxed", maintenance=False) as db:
            yield Store(db.create_collection("documents"))  # the dim comes with the first embedding
            assert db.check() == []

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        assert _as_stored(received) == _as_stored(expected)

    def test_write_documents(self, document_store: Any) -> None:
        document = Document(content="once")
        assert document_store.write_documents([document]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document])


def test_every_test_of_the_suite_is_run() -> None:
    """None that a newer haystack adds is left out unnoticed."""
    there = {name for one in vars(suite).values() if isinstance(one, type) for name in vars(one)}
    tests = {name for name in there if name.startswith("test_")}
    assert tests == {name for name in dir(TestVecdbAsADocumentStore) if name.startswith("test_")}
    assert len(tests) >= 81
