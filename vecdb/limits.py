"""Every bound, on one page. A value over its bound is refused before anything is allocated or written.

The unit stands before `_max` or `_min`, where there is one. `validate/` holds callers to these; storage and indexes
rely on them.
"""

from __future__ import annotations

# -- a collection ------------------------------------------------------------------------------
name_bytes_max = 128  # collection name, UTF-8
dim_max = 8_192  # keeps an 8-bit dot product inside int32: 8,192 * 255 * 128 < 2**31
metadata_bytes_max = 16_384  # of a collection, encoded: every commit writes it again with the state
collections_max = 16_384  # per database
tenant_drop_rows = 8_192  # of a tenant that is dropped with its records, deleted in one commit
backups_kept_max = 65_536  # of one database in one folder, where older ones are removed
aliases_max = 1_024  # of collections, per database: all are one value, written anew by each change
collections_open_max = 256  # that nobody holds and that are kept open, as far as descriptors allow
rows_max = 2**31 - 2  # a row number must fit the 31 bits it has in a search pool entry

# -- a record ----------------------------------------------------------------------------------
id_bytes_max = 256  # UTF-8; the LMDB key adds owner and lengths and must stay within 511
owner_bytes_max = 128
fields_bytes_max = 1 << 20  # one record's encoded fields
fields_depth_max = 64  # nesting of lists and dicts in fields
tenants_per_record_max = 65_536

# -- a tenant ----------------------------------------------------------------------------------
tenant_bytes_max = 256  # a name, UTF-8
tenants_made_max = 2**32 - 1  # in the life of a collection: numbers are never given out twice
tenant_records_max = 2**31 - 2  # of a tenant that was given no quota of its own: as many as there can be rows
tenant_cache_bytes = 256 << 20  # rows, and bitmaps of them, that a process keeps of the tenants of one collection
tenant_unions_max = 256  # unions of tenants kept with them

# -- a call ------------------------------------------------------------------------------------
batch_bytes_max = 256 << 20  # one atomic write: vectors and fields together
batch_rows_max = 1 << 20
tenants_per_call_max = 1 << 16  # distinct names that a call grants, revokes or makes
pairs_per_call_max = 1 << 22  # (record, tenant) pairs of one write
union_tenants_max = 4_096  # names of one search
queries_max = 1 << 20  # queries per search call
stream_window_max = 1_024  # queries of a stream that are read ahead of the hits that were handed out
limit_max = 16_384  # neighbours per query
ef_max = 65_536
search_cells_max = 1 << 27  # queries * limit: the size of the answer
threads_max = 256
positives_max = 16_384  # of one user of a mixture search; all of them are looked at and none returned
history_ids_max = 65_536  # positives of all users together
components_max = 1_024
neighbours_max = 65_536  # users that smooth one

hit_fields_cache_bytes = 8 << 20  # fields of records found often, kept for one collection
tie_share = 1e-6  # distances that differ by no greater share are equal: what float32 and the order of a sum leave

# -- a filter ----------------------------------------------------------------------------------
filter_text_max = 1 << 25  # characters of a string filter
filter_depth_max = 64  # nesting of and, or, not
filter_terms_max = 4_096  # comparisons in it
filter_values_max = 1_000_000  # values in it: those of its lists together
filter_pattern_max = 1_024  # characters of a `like` pattern
filter_int_bits_max = 1_024  # past these an int is larger than every float
filter_large_ints_max = 1_024  # ints beyond 64 bits in a filter that a server is sent

# -- records by filter -----------------------------------------------------------------------------
get_records_max = 65_536  # in one list; `iter` gives pages of any number
facets_max = 65_536  # values of one answer
cursor_chars_max = 1 << 21  # of a page: it holds the value of a field, whose record has at most `fields_bytes_max`

# -- columns of fields, by which filters are answered ---------------------------------------------
columns_max = 1_024  # paths of a collection that have one; a filter on others looks at the records
dictionary_texts_max = 65_536  # different texts of a column, or a quarter of its rows; more are kept as checksums
dictionary_bytes_min = 1 << 20  # and bytes of them, with so many more for each row
dictionary_row_bytes = 64
dictionary_questions_max = 64  # patterns and orders of texts whose answers a column keeps
filter_cache_bytes = 64 << 20  # rows that match filters, kept for the newest snapshot of a collection

# -- hnsw --------------------------------------------------------------------------------------
m_min = 2
m_max = 128
ef_construction_max = 4_096

# -- spann -------------------------------------------------------------------------------------
bits_choices = (1, 2, 4, 8)  # of a code, per dimension
replicas_max = 8  # lists that a row may be in
head_ratio_min = 0.001  # lists per row
head_ratio_max = 0.25
nprobe_max = 65_536
rerank_max = 65_536
named_rows_max = 1 << 17  # of a query that is answered in two rounds
named_cells_max = 1 << 22  # of all queries of such a call, and places for them
posting_bytes_min = 4_096
posting_bytes_max = 1 << 24
saved_build_rows_min = 65_536  # clustering more than these is worth files that outlive a killed build

# -- curator -----------------------------------------------------------------------------------
leaf_rows_min = 4
leaf_rows_max = 65_536

# -- the structure and the tail (architecture: every index is a structure and a tail) ------------
flat_rows_max = 4_096  # with fewer rows nothing is indexed, and searches scan
seal_rows_min = 16_384  # the index is sealed again once max(this, an eighth of the sealed rows) have come since
index_step_rows = 1_024  # rows that an index takes at once are whole multiples of this, cut by row number
tail_rows_max = 32_768  # beside searches, writers wait while more rows than this are unindexed
tail_rows_bulk_max = 1 << 20  # the same while nobody searches: a bulk load need not wait for the graph

prepared_searches_max = 4_096  # searches that are kept prepared for a collection's newest snapshot

# -- commit ------------------------------------------------------------------------------------
group_calls_max = 256  # write calls that share one commit
group_bytes_max = 64 << 20
queue_calls_max = 4_096  # write calls waiting; more are refused with Unavailable

# -- the journal of access lists, in pairs of eight bytes -----------------------------------------
journal_entry_pairs = 1 << 14  # of one commit; more go to the tables at once
journal_pairs = 1 << 17  # past this maintenance merges it into the tables, past four times this writers do
journal_entries = 1 << 12  # the same of its entries: a process that begins to read decodes each
merge_pairs = 1 << 13  # merged into a table by one commit, or a sixteenth of the journal where that is more

# -- writes that may be repeated ------------------------------------------------------------------
request_id_bytes_max = 128
request_age_max_s = 24 * 3_600
requests_max = 65_536  # whose answers a collection keeps

# -- storage -----------------------------------------------------------------------------------
lmdb_map_bytes = 1 << 40  # address space reserved, sparse: costs nothing until used
lmdb_readers_max = 1_024
block_rows_max = 1_024  # records per LMDB value
changed_rows_logged = 1 << 18  # whose fields the newest commits changed: who is farther behind looks at all changes
vacuum_dead_share = 0.3  # maintenance vacuums a collection past this share of dead rows

# -- the log of commits in object storage ----------------------------------------------------------
log_wait_s = 0.2  # commits that come within this time share an object
log_object_bytes = 8 << 20  # of commits that share one: more do not wait
log_inline_bytes = 1 << 20  # a longer range of a file is an object of its own
log_waiting_bytes = 64 << 20  # of commits that wait while the store is away: then they give way to a snapshot
log_files_waiting = 256  # files that are held open for them: the same
log_ahead_s = 10.0  # for the store to take a commit that is acknowledged only then; then its callers leave
log_look_s = 1.0  # how often a writer to which nobody writes looks whether another has taken over
log_copies_s = 10.0  # for a revoke to be in the log, from where copies have it
log_close_s = 30.0  # for what waits to be written, when a database closes
snapshots_kept = 2
snapshot_log_bytes = 64 << 20  # of log, and as much as the snapshot before it has: then there is another
snapshot_log_objects = 2_048  # of that log at most, however small: a copy that begins asks for one after another
snapshot_age_s = 3_600.0  # the same after this time, where there was any commit
snapshot_part_bytes = 8 << 20
log_trim_age_s = 600.0  # how long it is known what is removed before it is: copies look each `log_trim_look_s`
log_trim_look_s = 60.0
log_poll_s = 0.2  # how often a copy looks for commits

# -- several servers as one database ---------------------------------------------------------------
cluster_shards_max = 256
cluster_copies_max = 64  # of a shard
cluster_hedge_s = 0.25  # a read is asked of another copy after this time, before it is known how long others took
cluster_hedge_min_s = 0.003  # and never sooner than this
cluster_call_kinds_max = 1_024  # of which it is known how long they take
cluster_wait_s = 0.5  # for a copy to have this client's own writes, where the writer cannot be asked
cluster_stale_s = 1.0  # so long a read is made again that is refused as too old: a copy looks five times a second
cluster_stale_poll_s = 0.05  # after this time
cluster_own_writes_s = 2.0  # so long the writer is asked after a write whose commit is not known
cluster_revoke_s = 1.5  # for copies to have a revoke: past it they do not answer without having it
