"""Backups: what a copy of a database consists of, and those that are kept in object storage."""
