"""The read path: the planner, searches and point reads, recall, and the width that a recall needs."""
