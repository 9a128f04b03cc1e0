"""Codes of vectors: 8 and 16 bits, rotated or not, float32, RaBitQ, one bit, and bits as they are."""
