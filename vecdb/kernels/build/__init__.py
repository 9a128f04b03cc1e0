"""Building and repairing: graph, clusters, lists."""
