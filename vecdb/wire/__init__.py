"""Between messages and values: what the gRPC client and server both need, and nothing that needs gRPC.

    arrays    Vectors <-> ndarray[n, dim], Ids <-> int64[n] or list of strings, lists of tenants
    nouns     CollectionConfig, index configurations, SearchParams, Record, fields
    answers   SearchResponse <-> Hits
    faults    which error has which code and which gRPC status
    addresses whether an address is this machine's own
    pem       whether files of TLS are what they should be

Reading a message checks its shape only (InvalidArgument, before anything of its size is allocated); what its values
mean is for the one gate, which every request passes on the server as if it had been called there.
"""
