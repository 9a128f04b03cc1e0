"""What leaves the directory: backups in object storage, and copies of a database that follow it."""
