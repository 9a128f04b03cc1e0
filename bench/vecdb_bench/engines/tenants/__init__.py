"""Engines of `vecdb bench tenants`, one script each; tenant.py is what they share."""
