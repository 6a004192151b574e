"""Faults of the disk on the real thing, one by one: a kill at every disk call, every disk call failing once, and every
state that a power loss may leave; each over the workloads of `workloads.py`.

    python -m holdfast.testing.disk                       # all of it; one JSON object per part; needs a C compiler
    python -m holdfast.testing.disk --part kill --workload settle --folder FOLDER

`calls.c` sees the calls, SQLite's own included; `shim.py` builds and commands it; `enumerate.py` loops over the number
of the call until a run ends without a fault; `power.py` rebuilds crash states from a recorded trace; `checking.py` says
what has to be true afterwards.
"""
