"""The command line: arguments come in, one call of the library or of a gateway goes out, text or JSON comes back.

Promised: every error of ours is one line on standard error with its exit code, never a traceback; `--json` gives the
same facts to programs; nothing is imported before it is needed. Read `main.py` first, then `root.py`; `settings.py`,
`output.py`, `exit_codes.py`, `remote.py` and `asking.py` are shared, every other module is one group of commands.
"""
