"""vecdb over gRPC: the server.

    app.py             start, serve, drain                      config.py     file, environment and flags
    security/          TLS, tokens, permissions, admission; the interceptor that applies them to every call
    services/          the rpcs: message -> vecdb -> message    executors.py  where work runs: event loop or threads
    status_errors.py   an error -> a status                     metrics.py    logs.py
    probe.py           the health check: python -m vecdb_server.probe

A call: gRPC -> interceptor (token, permission, room) -> service (scope, vecdb's public API) -> message. Everything but
vecdb's own work runs on one event loop, so that only the queues of executors.py need a lock.
"""
