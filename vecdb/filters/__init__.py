"""The language of filters: one typed tree, the three forms in which users write it, and what it means.

    F.year >= 2020                      expression.py --+
    "year >= $y"             lexer.py -> parser.py -----+--> tree.py --> evaluate.py: does a record match?
    {"year": {"$gte": 2020}}            dicts.py -------+
    any of them                         forms.py: `to_filter`, the gate

Thread rule: trees are values that never change; everything here may be called from any thread.
Meaning: a comparison with a missing or null value is false, and `Not` is the complement, so that every record either
matches a filter or its negation.
"""
