"""Who may see a record: pairs of rows and tenants, in two tables and a journal, and the rows of tenants that are
searched.
"""
