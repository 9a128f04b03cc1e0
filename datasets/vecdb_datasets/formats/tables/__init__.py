"""Tables: rows of named values, one of which is the vector, perhaps one the id, the others fields.

table.py      the contract, and windows of parsed rows
columns.py    which column is the vector, which the id, what an id may be
spelled.py    vectors that are spelled in a cell of text
lines.py      lines of text, read from any of every 1,024th row on
csv_file.py   jsonl.py   json_document.py   words.py   arrow_rows.py   parquet.py   arrow_ipc.py    a reader each
"""
