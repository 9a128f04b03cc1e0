"""Searches over posting lists, in one round or in two: `list_search.py`, `two_rounds.py`."""
