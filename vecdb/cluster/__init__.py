"""Several servers as one database: which shard has a record, who answers for a shard, and answers put together."""
