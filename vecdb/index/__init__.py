"""Indexes: which rows are near a query? `base` states the contract, the others keep it. Importing one imports the
kernels.
"""
