"""Columns of fields: derived from records, row by row, so that a filter is answered by arrays."""
