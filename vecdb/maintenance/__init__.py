"""Work in the background: indexing, repair, rebuild, seal, vacuum, and the thread that does them when they are due."""
