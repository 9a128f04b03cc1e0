"""vecdb over gRPC: the server."""
