"""Curator: one clustering tree that many tenants share (after Jin et al., 2024)."""
