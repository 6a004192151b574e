"""Recovery: what died is closed, what stands still is told apart from what works, and a crash loop is stopped.

In comes what the ledger shows of turns and processes, out come actions on one captured epoch each, with an outcome that
was verified: `effective`, `ineffective` or `not_needed`. Promised: a live owner is never touched. Read `classify.py`
first (what to do, plain functions), then `reaper.py` (doing it), then `restart.py` (boots that ended uncleanly).
"""
