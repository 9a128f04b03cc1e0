"""How fast, how exact, how large: vecdb measured beside its peers, in one run, on real data."""
