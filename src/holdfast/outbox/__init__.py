"""What must go out, kept until it has: settlements come in, confirmed deliveries go out.

Promised: rows are committed with the settlement that causes them, and at most one unlabelled copy reaches the user.
Read `message.py` first (what is sent and its key), then `delivery.py` (the loop).
"""
