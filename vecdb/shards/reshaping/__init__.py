"""A cluster gets another number of shards: new ones are made of the old, caught up with, and take their place.

old_shard.py    reads an old shard: all records, and those that the log says have changed
new_shard.py    makes a new shard of what it is given
log_changes.py  which records some commits of a log have touched
job.py          how far it is: objects in the bucket
steps.py        what is done in which order
"""
