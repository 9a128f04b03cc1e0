"""What several kinds of index share."""
