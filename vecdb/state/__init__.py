"""The committed state of each collection in this process: generations, indexes, and the snapshots that searches use."""
