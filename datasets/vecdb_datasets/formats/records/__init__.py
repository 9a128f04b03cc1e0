"""Whole collections in files: export -> import is the identity.

facts.py     what a file says of its collection: dim, metric, dtype, index, tenants; where ids, owners, fields stand
tagged.py    field values that JSON lacks
target.py    where an export goes: a file that is replaced as a whole, a link's target, a pipe
jsonl.py     a head line with the facts, then a row a line
parquet.py   columns of one type each, a column of the other values, the facts as metadata
csv_text.py  what CSV can hold, and its facts beside it
pairs.py     vectors in one file (npy, fbin, ...), ids and all else in another beside it
"""
