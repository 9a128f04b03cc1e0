"""Import from other libraries: their file formats, read into collections."""
