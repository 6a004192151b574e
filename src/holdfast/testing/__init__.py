"""What tests of agents and of Holdfast itself are made of: fakes that stand at the seams. Shipped to users.

Start with `world.py`: a gateway in memory. Its parts can be used alone: `clock.py` (time that moves when told),
`model.py` (answers from a script), `channel.py` (a platform that misbehaves on demand), `faults.py` (dying at a named
point), `provider.py` (real wire formats on loopback), `mishaps.py` (what can go wrong there). `store_suite` and
`channel_suite.py` are what every store backend and every channel has to pass.
"""
