"""The state in PostgreSQL: transcripts and ledger as rows, any number of nodes.

Read `store.py` first. What the ledger does is shared with the embedded store (`store/sql`); here is the connection
(`connecting.py`), the tables (`schema.py`), how SQLite's words are said (`dialect.py`), the thread that writes
(`writer.py`), who lives (`node.py`), claims (`claiming.py`) and transcripts (`transcripts.py`).
"""
