"""The platforms: one adapter each, all held to one contract.

A message and its idempotency key come in, a confirmation, a refusal or an honest "unknown" goes out. Promised: an
adapter sends nothing after its call has ended, and never turns doubt into a refusal. Read `channel.py`, the contract.
"""
