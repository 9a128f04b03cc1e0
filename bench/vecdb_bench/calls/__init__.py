"""Single calls: what one costs in Python, beside other threads, beside a writer.

call_counts.py    Python calls and moves between files       threads.py    as many threads, or processes
interference.py   latency beside a thread that writes
"""
