"""A file for each page: what a request asks for in, a template with what was found out."""
