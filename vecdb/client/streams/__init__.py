"""Calls with many messages or answers: what they send next, what they have got, and how signals end them."""
