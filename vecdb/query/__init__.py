"""The read path: the planner, searches and point reads, recall, and (learning/) the width that a recall needs."""
