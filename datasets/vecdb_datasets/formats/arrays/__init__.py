"""Files of plain arrays: vectors by themselves, or named arrays among which are the vectors and perhaps their ids."""
