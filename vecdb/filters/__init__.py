"""The language of filters: one typed tree (tree.py), and the forms in which users write it.

Thread rule: trees are values that never change; everything here may be called from any thread.
Meaning: a comparison with a missing or null value is false, and `Not` is the complement, so that every record either
matches a filter or its negation.
"""
