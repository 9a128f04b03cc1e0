"""vecdb over gRPC: the server.

    app.py         start, serve, drain                         config.py    file, environment and flags
    interceptor.py       every call passes here: who, may they,      tokens.py    the file of hashed tokens
                   is there room, what went wrong              auth.py      which rpc needs what, what a token reaches
    admission.py   bounds, rates                               executors.py      on the event loop, or on which thread
    services/      one rpc each: message -> vecdb -> message   status_errors.py    an error -> a status
    metrics.py     logs.py   tls.py

A call: listener -> Guard (token, permission, room) -> service (scope, vecdb's public API) -> message. Everything but
vecdb's own work runs on one event loop, so that nothing here needs a lock but the queues of executors.py.
"""
