"""How it is read: the planner, searches, recall and what it costs."""
