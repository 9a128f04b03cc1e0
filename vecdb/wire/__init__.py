"""Between messages and values: what the gRPC client and server both need, and nothing that needs gRPC.

    arrays            Vectors <-> ndarray[n, dim], Ids <-> int64[n] or list of strings, lists of tenants
    messages          CollectionConfig, index configurations, SearchParams, Record, fields
    search_response   SearchResponse <-> Hits
    element_count     how many elements a message has, on its bytes
    error_codes       which error has which code and which gRPC status
    addresses         whether a host is this machine
    tls_files         PEM files, checked before gRPC gets them

Reading a message checks only its shape (InvalidArgument, before anything of its size is allocated). Its values are
checked by `vecdb.validate` on the server, which every request passes as if it had been called there.

Threads: functions without state; any thread.
"""
