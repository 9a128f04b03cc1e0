"""Databases, which keep records in a directory, one file each."""
