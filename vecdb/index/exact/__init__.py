"""Every row compared: exact search, and the exact answers that others are measured against."""
