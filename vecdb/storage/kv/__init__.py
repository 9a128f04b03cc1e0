"""The one LMDB environment: what is true."""
