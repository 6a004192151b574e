"""The platforms: one adapter each, all held to one contract.

A message and its idempotency key go out; a confirmation, a refusal or an honest "unknown" comes back. Promised: an
adapter sends nothing after its call has ended, and never turns doubt into a refusal. What it hears is stored before it
is acknowledged. Read `channel.py` and `listening.py`, the contracts, then `gate.py`: who may speak.
"""
