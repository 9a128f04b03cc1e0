"""The backend in this process: a directory, its lock, its collections; check, backup and restore."""
