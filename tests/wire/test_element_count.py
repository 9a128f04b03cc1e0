"""Elements are counted on the bytes of a message as a parser would meet them, whatever the bytes are."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from vecdb.v1 import common_pb2, records_pb2, search_pb2
from vecdb.wire.element_count import ElementCounter

SEED = int(os.environ.get("VECDB_SEED", "7"))


def elements(message: Any) -> int:
    """The elements of a parsed message: the fields that are set and the entries of lists; a packed list is one."""
    count = 0
    for field, value in message.ListFields():
        repeated = field.is_repeated
        packed = repeated and field.type not in (field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_MESSAGE)
        ones = [value] if packed or not repeated else list(value)
        count += len(ones)
        if field.message_type is not None:
            count += sum(map(elements, ones))
    return count


def made(rng: random.Random) -> list[Any]:
    def ids() -> Any:
        if rng.random() < 0.5:
            return common_pb2.Ids(ints=common_pb2.IntIds(values=range(rng.randrange(20))))
        return common_pb2.Ids(strings=common_pb2.StringIds(values=["x" * rng.randrange(200)] * rng.randrange(9)))

    names = ["t" * rng.randrange(300) for _ in range(rng.randrange(9))]
    mixture = search_pb2.MixtureQuery(histories=[ids() for _ in range(rng.randrange(9))], positives=ids())
    lists = common_pb2.TenantLists(lists=[common_pb2.TenantNames(names=names)] * rng.randrange(5))
    return [
        search_pb2.SearchRequest(collection="c", tenants=names, mixture=mixture, limit=3),
        search_pb2.SearchRequest(vectors=common_pb2.Vectors(data=b"1" * 5_000, dim=2), explain=True),
        records_pb2.WriteRequest(ids=ids(), tenants_each=lists, fields=common_pb2.FieldMaps(msgpack=[b""] * 7)),
        records_pb2.IngestRequest(batch=2, write=records_pb2.WriteRequest(ids=ids(), request_id="r")),
    ]


def test_elements_are_those_of_the_parsed_message() -> None:
    rng = random.Random(SEED)
    for message in (one for _ in range(40) for one in made(rng)):
        data, count, counter = message.SerializeToString(), elements(message), ElementCounter(message.DESCRIPTOR)
        if len(data) > count:
            assert not counter.exceeds(data, count), message
        assert count == 0 or counter.exceeds(data, count - 1), message


def test_fields_that_nobody_declared_count_too() -> None:
    counter = ElementCounter(records_pb2.CountRequest.DESCRIPTOR)
    data = b"\xf2\x07\x00" * 1_000  # field 126, empty bytes
    assert counter.exceeds(data, 999) and not counter.exceeds(data, 1_000)


@pytest.mark.parametrize("message", [search_pb2.SearchRequest, records_pb2.WriteRequest])
def test_any_bytes_are_counted_to_an_end(message: Any) -> None:
    rng, counter = random.Random(SEED), ElementCounter(message.DESCRIPTOR)
    for _ in range(2_000):
        data = rng.randbytes(rng.randrange(1, 60))
        if rng.random() < 0.5:
            data = bytes(byte & 0x3F for byte in data)  # tags of few fields, short lengths
        try:
            parsed = message.FromString(data)
        except Exception:
            counter.exceeds(data, 0)
            continue
        assert not counter.exceeds(data, len(data))
        most = elements(parsed)  # a field that comes twice is one in the message, two in its bytes
        assert most == 0 or counter.exceeds(data, 0)
