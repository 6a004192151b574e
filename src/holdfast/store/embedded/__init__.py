"""The embedded backend: transcripts as JSONL files, the ledger as one SQLite file; nothing to install.

Claims and appends come in; lines, rows and kernel locks go out. Promised: any number of processes on one machine share
a state directory safely. Read `store.py` first, then `holding.py` (one append) and `baseline.py` (one claim).
"""
