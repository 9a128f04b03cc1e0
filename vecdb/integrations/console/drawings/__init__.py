"""What is computed to be drawn: recall against effort, vectors in two dimensions. Arrays and numbers, no HTTP."""
