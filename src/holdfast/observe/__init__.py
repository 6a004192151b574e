"""Why did nobody answer? Rows and events come in, plain words go out. Reads only. Read `why.py` first."""
