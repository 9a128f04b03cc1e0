"""Engines of `vecdb bench disk`, one script each."""
