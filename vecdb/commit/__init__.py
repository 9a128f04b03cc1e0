"""The write path: requests, the commit thread that carries them out in groups, and back-pressure."""
