"""What the command `import` is made of.

options.py      what the command was told
checkpoint.py   how far an import is, so that the next run goes on there
rows.py         rows of a file as batches of records; which of them are bad, and where they stand
collection.py   the collection to import into, made when the first batch is known to be good
copying.py      batch after batch
"""
