"""How kernels of many threads get along: words that they change at once, and turns at the interpreter's lock."""
