"""The console: what a database holds, shown in a browser. Pages are HTML that is made here; scripts only add to them.

    view.py        what one console may show, and the collections and tenants within it
    queries.py     what the pages show, as plain values: collections, records, searches, tenants
    drawings/      recall against effort as a plot, vectors in two dimensions
    live.py        figures of this moment, for a page that asks again and again
    figures.py     numbers, sizes and values as text
    jobs.py        long work in threads of its own
    guard.py       who may ask: token, host, origin; headers of every answer
    entries.py     which token opens what: the one that was printed, or each token of a server its own view
    app.py         the application: pages by address
    serving.py     a port that is listened at
    pages/         a file for each page: arguments of a request in, a template with values out

All but pages/, context.py, guard.py, entries.py, app.py and serving.py knows nothing of HTTP. Everything goes through
the public API, so that a directory and a server are shown alike.
"""
