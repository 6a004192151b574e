"""Order and limits: accepted inputs come in, turns that may start go out.

Promised: one turn at a time per transcript, at most `width` per lane and state directory, users before machines, and
nobody starves. Read `policy.py` first; `states.py` is the table of an input's life; `worker.py` runs the loop.
"""
