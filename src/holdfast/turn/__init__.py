"""A turn: from an input to its outcome. An owned session comes in, appended lines and one settlement go out.

Promised: every turn ends exactly once, whatever happens in it, and a lost turn writes nothing more. Read `runner.py`
first (what happens in a turn), then `turn.py` (how it writes and ends).
"""
