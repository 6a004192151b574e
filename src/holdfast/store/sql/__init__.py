"""The ledger in SQL, whatever the engine: inputs, claims, deliveries, timers and the rest, as rows.

Statements are written once, in SQL that SQLite reads as it is (`store/embedded`) and that `store/postgres/dialect.py`
says to PostgreSQL. `*_rows.py`, `inbox.py`, `queueing.py` and `claims.py` are functions on a connection inside a
transaction; the classes beside them are the operations of `store/protocol.py` that need nothing but the ledger, over
`ledger.py` (read it first). Transcripts are each backend's own.
"""
