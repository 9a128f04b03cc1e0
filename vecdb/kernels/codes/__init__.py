"""Codes of vectors: 8 bits, RaBitQ, one bit."""
