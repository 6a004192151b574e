"""Moving in: conversations of another program become sessions here, its configuration a `holdfast.toml`.

In comes a folder, file or database of another program, which is only read; out go conversations (`conversation.py`),
each of which a turn of its own writes into a session (`bringing.py`), and a report of what has no counterpart. Whatever
has been brought in is known by the ids of its lines, so a second run changes nothing, and one that was cut off half-way
goes on. Read `conversation.py`, then `bringing.py`; the readers are `openclaw_tree.py` (with `openclaw_database.py`,
`openclaw_session.py`, `openclaw_config.py`) and `plain.py`.
"""
