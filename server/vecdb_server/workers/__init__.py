"""`vecdb serve --workers N`: one process writes, N processes share the port and read.

    supervisor.py   starts the processes, and starts those anew that end      ports.py      the port that they share
    place.py        what a process is: writer, or worker                      warmth.py     what they have in common
    forwarding.py   calls that a worker hands on to the writer
    mirror.py       what the writer hears of searches
    board.py        memory that all of them share: what each is and does
    counters.py     counts that bound callers, in it                          series.py     counts of calls, in it

    client --TCP--> worker --reads--> directory <--commits-- writer <--Unix socket-- worker <--TCP-- client

A worker is a whole server: it checks tokens, rates, room and messages, and answers reads from the directory, which it
follows to the newest commit before each. What it hands on is counted already, and the writer counts it no more; whose
call it is the writer finds out for itself, from the token.
"""
