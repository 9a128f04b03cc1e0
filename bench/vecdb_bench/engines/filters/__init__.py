"""Engines of `vecdb bench filters`, one script each; filtered.py is what they share."""
