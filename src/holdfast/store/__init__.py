"""Where the promises are kept: protocols per concern (`protocol.py`), what readers see (`views.py`), and two backends.

Operations come in by name and their effects stay; SQL and files are known to nobody else. Promised: what DESIGN says
about epochs, syncs and crashes, held equal by one conformance suite. Read `protocol.py` first.
"""
