"""Which tests of the public API a cluster cannot pass, and why; and which are fast enough to be run with one always.

A test that is listed must fail: where it passes by now, it is to be taken out.
"""

from __future__ import annotations

import pytest

FAST_SHARDS = 2
FAST = frozenset(
    (
        "test_a_clear_keeps_the_collection",
        "test_a_collection_that_was_dropped",
        "test_a_database_near_or_far_is_of_the_same_classes",
        "test_a_database_that_is_closed",
        "test_a_renamed_collection_is_the_same_one",
        "test_a_stream_of_queries_finds_what_calls_find_in_the_same_order",
        "test_a_stream_that_is_left_reads_no_more",
        "test_a_tenant_goes_with_its_records",
        "test_a_write_gives_a_vector_or_takes_it_away",
        "test_an_alias_is_switched_and_opens_what_it_stands_for",
        "test_an_error_comes_once_the_hits_before_it_are_handed_out_and_ends_the_stream",
        "test_in_and_len",
        "test_metadata_is_noted",
        "test_names_that_are_taken_or_not_there_are_refused_and_nothing_changes",
        "test_nothing_is_found_in_what_is_empty",
        "test_reads_of_records_see_all_and_searches_those_with_vectors",
        "test_tenants_are_listed_from_a_name_on",
        "test_tenants_come_and_go",
        "test_the_first_write_gives_the_dim",
        "test_the_nearest_are_found_under_every_metric_and_type",
        "test_what_is_not_found_is_told_apart",
    )
)

_ORDER = "records are oldest first within a shard, and shard after shard: commits of several shards have no order"
_ATOMIC = "a call is atomic at each shard: where one refuses its part, others have done theirs"
_EXPLAINS = "what explains a search, and the facts of `stats`, have the key `shards` with those of each"
_IDS = "ids are made by the client and unique, and do not go on from the largest: nobody knows that of all shards"
_BACKUP = "each shard's server makes a backup of its own, in its own folder and under the name of the shard"
_TYPES = "whether values can be compared, and the types that an error names, are those of one shard's records"
_CELLS = "components of a mixture are clusters of the user's own records: shards have no cells in common"

# test, or test[parameter] -> why it cannot hold with one shard or several
NEVER: dict[str, str] = {
    "test_a_backup_is_made": _BACKUP,
    "test_older_backups_are_removed_and_nothing_else": _BACKUP,
    "test_a_search_explains_itself": _EXPLAINS,
    "test_facts_are_the_same_facts": _EXPLAINS,
}

# the same with more than one shard
SEVERAL: dict[str, str] = {
    "test_ids_are_made": _IDS,
    "test_made_ids": _IDS,
    "test_a_collection_without_a_dim_has_records_first": _IDS,
    "test_tenants_and_owners": "a quota is kept by each shard: it is exact for a tenant whose records it owns",
    "test_inserts_and_conflicts": "a shard compares its part of a call with the part that it knows by the request id",
    "test_recall_is_measured_and_tuned": "each shard tunes its own index: where it has few rows there are no widths",
    "test_mistakes_lead_to_the_same_errors_and_change_nothing": _ATOMIC,
    "test_an_insert_may_skip": _ATOMIC,
    "test_every_read_with_a_filter_is_that_of_the_twin_and_right": _ORDER,
    "test_pages_have_the_records_and_the_cursors_of_the_twin[None]": _ORDER,
    "test_writes_by_filter_change_what_matches_and_nothing_else": _ORDER,
    "test_all_records_are_listed_in_batches_of_the_length_asked_for": _ORDER,
    "test_long_fields_are_split_by_their_size": _ORDER,
    "test_tenants_find_their_own": _ORDER,
    "test_facets_values_ends_and_fields_are_those_of_the_twin": _TYPES,
    "test_searches_of_every_kind_take_filters": _CELLS,
    "test_a_mixture_of_interests": _CELLS,
    "test_hits_tell_whose_records_they_are": _CELLS,
}

# the same with five
FIVE: dict[str, str] = {"test_values_of_different_types_are_different_values": _TYPES}


def mark_cluster_test(item: pytest.Item, shards: int) -> None:
    assert isinstance(item, pytest.Function)
    name = item.originalname
    if shards != FAST_SHARDS or name not in FAST:
        item.add_marker(pytest.mark.slow)
    names = [name, *(f"{name}[{one}]" for one in item.callspec.id.split("-"))]
    known = NEVER | (SEVERAL if shards > 1 else {}) | (FIVE if shards == 5 else {})
    for reason in {known[one] for one in names if one in known}:
        item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
