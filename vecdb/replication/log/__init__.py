"""The log of commits in object storage: its writer, and copies that follow it."""
