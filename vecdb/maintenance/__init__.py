"""What runs behind: indexing, repair, rebuild, seal, vacuum, and the thread that does them when they are due."""
