"""The words of an error for whoever typed a command: its options in place of the arguments of Python functions."""

from __future__ import annotations

import re

# What the packages below call an argument, as their messages spell it; what follows is what the command offers.
_PHRASES = (
    ("or open with check_finite=False to look at it", "or leave such rows out with --skip-bad"),
    ("open it without read_only=True to create one", "import and serve make one"),
    ("open it without read_only=True to write", "this command only reads it"),
    ("close it there, or open it here with read_only=True", "end that process first"),
    ("vector_column and id_column are for tables", "--vector-column and --id-column are for tables"),
    ("or make it a field beside new ids with new_ids=True", "or make it a field beside new ids with --new-ids"),
    ("name the file so or pass format=", "name the file so or give --format"),
    ("import it with hnswlib=True", "give --hnswlib"),
    ("or with atomic=False", "or with smaller fields"),
    ("with lossy=True", "with --lossy"),
    ("at= chooses", "--at chooses"),
)
_ARGUMENTS = ("vector_column", "id_column", "format", "key", "encoding", "columns")
_ARGUMENT = re.compile(rf"\b({'|'.join(_ARGUMENTS)})=(?=(['\"]?))")


def for_the_command_line(message: str) -> str:
    """The message with options of the command in place of arguments."""
    for phrase, words in _PHRASES:
        message = message.replace(phrase, words)
    return _ARGUMENT.sub(lambda match: "--" + match[1].replace("_", "-") + (" " if match[2] else ""), message)
