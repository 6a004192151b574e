"""`holdfast doctor`: whether what a state promises is true of it now, and mending what can be mended safely.

In: facts about a state (`facts.py`), gathered by its backend without writing anything. Out: findings, each of one check
(`checks.py` has the table; what they look for is in `conversations.py`, `work.py`, `ground.py`, all pure). Repairs go
through the same doors as everything else (`repairs.py`): turns, recovery, transactions that look again. Read
`checkup.py` first.
"""
