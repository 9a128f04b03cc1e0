"""The one gate: a caller's values become canonical arrays here, or a typed error that says what to change.

    collection_name, collection_config, index_config, owner, flag     names and configuration
    ids -> IdBatch, vectors -> [n, dim], some_vectors -> SomeVectors, fields -> msgpack bytes,
    access_lists -> AccessLists                                       what a write call carries
    queries -> [nq, dim], search_limit, search_params, threads,
    field_selection, search_tenants, mixture_query                    what a search call carries

Thread rule: pure functions, callable from any thread. Bounds of limits.py are held before anything of the size in
question is allocated. Long inputs are worked through in slices, NumPy calls on a few hundred KB or about 100 us of
bytecode; after each slice other threads may take the interpreter lock (`common.gil_slices`), so that searches keep
their latency.
Invariant: what `ids`, `vectors` and `fields` return shares no memory with what the caller passed, unless that is
immutable.
"""

from vecdb.validate.arguments import (
    collection_config,
    collection_name,
    field_selection,
    flag,
    index_config,
    owner,
    request_id,
    search_limit,
    search_params,
    threads,
)
from vecdb.validate.common import commit_number, integer, iterator, seconds, short_repr
from vecdb.validate.fields import EncodedFields, decode_fields, field_decoder, fields
from vecdb.validate.ids import IdBatch, ids, truth
from vecdb.validate.metadata import metadata
from vecdb.validate.mixture import MixtureQuery, mixture_query
from vecdb.validate.some_vectors import SomeVectors, first_vector, some_vectors
from vecdb.validate.tenants import (
    AccessLists,
    access_lists,
    listed_tenants,
    records_max,
    search_tenants,
    tenant_name,
    tenant_names,
)
from vecdb.validate.vectors import as_floats, dim_of, is_one_vector, numbers_of, queries, query_norms, vectors

__all__ = [
    "AccessLists",
    "EncodedFields",
    "IdBatch",
    "MixtureQuery",
    "SomeVectors",
    "access_lists",
    "as_floats",
    "collection_config",
    "collection_name",
    "commit_number",
    "decode_fields",
    "dim_of",
    "field_decoder",
    "field_selection",
    "fields",
    "first_vector",
    "flag",
    "ids",
    "index_config",
    "integer",
    "is_one_vector",
    "iterator",
    "listed_tenants",
    "metadata",
    "mixture_query",
    "numbers_of",
    "owner",
    "queries",
    "query_norms",
    "records_max",
    "request_id",
    "search_limit",
    "search_params",
    "search_tenants",
    "seconds",
    "short_repr",
    "some_vectors",
    "tenant_name",
    "tenant_names",
    "threads",
    "truth",
    "vectors",
]
