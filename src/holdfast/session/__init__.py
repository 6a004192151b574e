"""Transcripts: their lines, who may extend them, and the fence that tells changes apart. Pure, except for nothing.

Bytes and facts come in; entries, branches and verdicts go out. Promised: nothing here reads, writes or waits, so every
rule can be tested by itself. Read `fence.py` first, then `entries.py` and `lines.py`.
"""
