"""What is committed, as this process holds it: collections, their generations, and snapshots for searches."""
